"""Image files as pixels, the way their viewers show them."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL import Image

LARGEST_FILE = 1 << 28  # bytes
_LARGEST = 100_000_000  # pixels, some 300 MB in memory
# Pillow knows more, some of which start programs.
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF")
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff"})

Pixels = npt.NDArray[np.float32 | np.uint8]


def decode(content: bytes, channels: int, size: tuple[int, int] | None) -> Pixels:
    """The pixels of one image file.

    The orientation that cameras note is applied. What is transparent lies on white. Grey of 16 bits keeps its
    precision; colours of 16 bits become bytes.

    Args:
        content: of the file.
        channels: 1 for grey, 3 for red, green and blue.
        size: height and width to resize to (bilinear); None leaves the image's own.

    Returns:
        [H, W, channels] in 0..255.

    Raises:
        ValueError: it is no image of a known format, larger than 100 million pixels, holds several pictures
            (the first one of a camera's MPO counts), or numbers without a known range.
    """
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=_FORMATS) as file:
                _check(file)
                deep = file.mode.startswith("I")
                image = ImageOps.exif_transpose(file)
                assert image is not None
                image = _sixteen_bits(image) if deep else _eight_bits(image, channels)
        if size and image.size != size[::-1]:
            image = image.resize(size[::-1], Image.Resampling.BILINEAR)
        pixels = np.asarray(image)
    except Exception as error:  # parsers of file formats fail in many ways
        raise ValueError(str(error) or type(error).__name__) from error
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    return np.repeat(pixels, channels, axis=-1) if pixels.shape[-1] < channels else pixels


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
