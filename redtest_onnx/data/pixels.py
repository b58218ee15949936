"""Image files as pixels, the way their viewers show them."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

LARGEST_FILE = 1 << 28  # bytes
_LARGEST = 100_000_000  # pixels, some 300 MB in memory
# Pillow knows more, some of which start programs.
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF")
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff"})


def open_picture(content: bytes) -> Image.Image:
    """The picture in one image file, turned as the camera noted.

    Args:
        content: of the file.

    Raises:
        ValueError: it is no image of a known format, larger than 100 million pixels or 256 MiB, holds several
            pictures (the first one of a camera's MPO counts), or numbers without a known range.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    if len(content) > LARGEST_FILE:
        raise ValueError(f"it is larger than {LARGEST_FILE >> 20} MiB")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=_FORMATS) as file:
                _check(file)
                turned = ImageOps.exif_transpose(file)
                assert turned is not None
                turned.load()
                return turned
    except UnidentifiedImageError as error:
        raise ValueError(f"it is of no format that is read: {', '.join(_FORMATS)}") from error
    except Exception as error:  # parsers of file formats fail in many ways
        raise ValueError(str(error) or type(error).__name__) from error


def in_bytes(image: Image.Image, channels: int) -> Image.Image:
    """A picture as grey or as red, green and blue in 0..255; what is transparent lies on white.

    Grey of 16 bits keeps its precision, as numbers of mode F; colours of 16 bits become bytes.
    """
    return _sixteen_bits(image) if image.mode.startswith("I") else _eight_bits(image, channels)


def _check(file: Image.Image) -> None:
    width, height = file.size
    if width * height > _LARGEST:
        raise ValueError(f"{width} x {height} pixels are more than {_LARGEST:,}")
    pictures = getattr(file, "n_frames", 1)
    if pictures > 1 and file.format != "MPO":
        raise ValueError(f"it holds {pictures} pictures: save each as a file of its own")
    if file.mode == "F" or (file.mode == "I" and file.format != "PNG"):
        raise ValueError("its numbers of 32 bits have no known range: save it with 8 or 16 bits")


def _sixteen_bits(image: Image.Image) -> Image.Image:
    """Grey values of 16 bits in 0..255; Pillow would cut them off."""
    from PIL import Image

    return Image.fromarray(np.asarray(image).astype(np.float32) / np.float32(257))


def _eight_bits(image: Image.Image, channels: int) -> Image.Image:
    from PIL import Image

    if "A" in image.getbands() or "transparency" in image.info:
        above = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", above.size, "white"), above)
    return image.convert("L" if channels == 1 else "RGB")
