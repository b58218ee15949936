"""Samples in folders and zips of images; class subfolders are labels."""

from __future__ import annotations

import io
import logging
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from redtest_onnx.checks import Positive, check_settings
from redtest_onnx.data.dataset import Chosen, Feeds
from redtest_onnx.errors import InputError
from redtest_onnx.graph.model import Model, TensorSpec

log = logging.getLogger(__name__)

_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp"})


@dataclass(frozen=True)
class ImageOptions:
    """How images become inputs: value = (pixel * scale - mean) / std.

    Attributes:
        mean: per channel, or one for all.
        std: per channel, or one for all.
        scale: multiplied onto 0..255; None takes 1/255 for float inputs and 1 for integer ones. Signed
            bytes, as quantised models take them, are shifted to -128..127 if nothing else is asked for.
        size: height and width to resize to; None takes the model's, else the image's own.
        layout: where channels stand; "auto" finds it in the model's input.
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    scale: float | None = None
    size: tuple[Positive, Positive] | None = None
    layout: Literal["auto", "nchw", "nhwc"] = "auto"

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True)
class ImageData:
    """Images decoded when asked for."""

    source: str
    names: tuple[str, ...]
    classes: npt.NDArray[np.int64] | None
    read: Callable[[str], bytes]
    input: TensorSpec
    options: ImageOptions
    synthetic: bool = False

    @property
    def labelled(self) -> bool:
        """Whether subfolders tell classes."""
        return self.classes is not None

    def __len__(self) -> int:
        return len(self.names)

    def inputs(self, indices: Chosen) -> Feeds:
        """The chosen images, decoded and normalised."""
        layout = _Layout.of(self.input, self.options)
        decoded = [self._decode(self.names[int(k)], layout) for k in indices]
        if len({image.shape for image in decoded}) > 1:
            raise InputError(
                "its images have different sizes and the model's input leaves the size open",
                where=self.source,
                hint="@size=HxW resizes them",
            )
        values = self._normalise(np.stack(decoded))
        if layout.channels_first:
            values = np.ascontiguousarray(values.transpose(0, 3, 1, 2))
        return {self.input.name: values}

    def labels(self, indices: Chosen) -> npt.NDArray[np.int64] | None:
        """Classes of the chosen images."""
        return None if self.classes is None else self.classes[np.asarray(indices)]

    def _decode(self, name: str, layout: _Layout) -> npt.NDArray[np.float32 | np.uint8]:
        """[H, W, C] in 0..255."""
        from PIL import Image, UnidentifiedImageError

        try:
            with Image.open(io.BytesIO(self.read(name))) as file:
                if deep := file.mode.startswith("I"):
                    # 16 bits a pixel; Pillow would cut them off at 255.
                    image = Image.fromarray(np.asarray(file).astype(np.float32) / np.float32(257))
                else:
                    image = file.convert("L" if layout.channels == 1 else "RGB")
            if layout.size and image.size != layout.size[::-1]:
                image = image.resize(layout.size[::-1], Image.Resampling.BILINEAR)
            pixels = np.asarray(image)
        except (
            *(OSError, RuntimeError, zipfile.BadZipFile, zlib.error),
            *(UnidentifiedImageError, Image.DecompressionBombError),
        ) as error:
            raise InputError(f"is no readable image ({error})", where=f"{self.source}/{name}") from error
        if deep:
            pixels = np.repeat(pixels[..., None], layout.channels, axis=-1)
        return pixels[..., None] if pixels.ndim == 2 else pixels

    def _normalise(self, pixels: npt.NDArray[np.float32 | np.uint8]) -> npt.NDArray[Any]:
        """[n, H, W, C] in the type of the input."""
        dtype = self.input.numpy_dtype
        options = self.options
        plain = options.scale is None and not options.mean and not options.std
        mean = np.asarray(options.mean or (128.0 if plain and dtype == np.int8 else 0.0,), np.float32)
        std = np.asarray(options.std or (1.0,), np.float32)
        scale = options.scale if options.scale is not None else (1 if dtype.kind in "iu" else 1 / 255)
        values: npt.NDArray[Any] = (pixels.astype(np.float32) * np.float32(scale) - mean) / std
        if dtype.kind not in "iu":
            return values.astype(dtype)
        values, limits = np.rint(values), np.iinfo(str(dtype))
        if values.min() < limits.min or values.max() > limits.max:
            raise InputError(
                f"pixels become {values.min():g} to {values.max():g}, the model takes {dtype}",
                where=self.source,
                hint="choose @scale, @mean and @std as in the model's own preprocessing",
            )
        return values.astype(dtype)


@dataclass(frozen=True)
class _Layout:
    """Where an input has its channels, how many, and the size it asks for."""

    channels_first: bool
    channels: int
    size: tuple[int, int] | None

    @classmethod
    def of(cls, spec: TensorSpec, options: ImageOptions) -> _Layout:
        shape = spec.shape or ()
        if len(shape) != 4:
            raise InputError(
                f"input {spec.name!r} is {spec}, which takes no images",
                hint="give an .npz with arrays named like the model's inputs",
            )
        first = shape[1] in (1, 3) or shape[3] not in (1, 3)
        if options.layout != "auto":
            first = options.layout == "nchw"
        channels = shape[1] if first else shape[3]
        if channels not in (1, 3, None) and isinstance(channels, int):
            raise InputError(f"input {spec.name!r} has {channels} channels, images have 1 or 3")
        height, width = shape[2:4] if first else shape[1:3]
        size = (height, width) if isinstance(height, int) and isinstance(width, int) else None
        asked = options.size
        if asked and any(
            isinstance(own, int) and own != k for own, k in zip((height, width), asked, strict=True)
        ):
            raise InputError(
                f"@size={asked[0]}x{asked[1]}, but input {spec.name!r} is {spec}",
                hint="leave @size out: images are resized to what the model takes",
            )
        return cls(first, channels if isinstance(channels, int) else 3, options.size or size)


def open_images(path: Path, model: Model, options: ImageOptions) -> ImageData:
    """Open a folder or .zip of images without decoding any.

    Raises:
        InputError: no images, or the model doesn't take a single image.
    """
    if len(model.inputs) != 1:
        names = ", ".join(spec.name for spec in model.inputs)
        raise InputError(
            f"images feed one input, the model has {names}",
            where=str(path),
            hint="write an .npz with an array for each of them",
        )
    layout = _Layout.of(model.inputs[0], options)
    for what, values in (("@mean", options.mean), ("@std", options.std)):
        if len(values) not in (0, 1, layout.channels):
            raise InputError(f"{what} has {len(values)} values for {layout.channels} channels")
    if 0 in options.std:
        raise InputError("@std holds a zero, by which no value can be divided")
    members, read = _folder(path) if path.is_dir() else _zip(path)
    found = sorted(filter(_is_image, members))
    if not found:
        raise InputError("holds no images", where=str(path), hint=f"known are {', '.join(sorted(_SUFFIXES))}")
    if len(found) < len(members):
        log.info("%s: %d files are no images and are left out", path, len(members) - len(found))
    return ImageData(str(path), tuple(found), _classes(found), read, model.inputs[0], options)


def _is_image(name: str) -> bool:
    """Whether a file is an image and none of the shadows that macOS puts beside files."""
    path = PurePosixPath(name)
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return path.suffix.lower() in _SUFFIXES and not hidden


def _classes(images: list[str]) -> npt.NDArray[np.int64] | None:
    """Class of each image by its folder, folders in the order of their names; None if all lie in one."""
    folders = [PurePosixPath(name).parent for name in images]
    order = {folder: k for k, folder in enumerate(sorted(set(folders)))}
    if len(order) < 2:
        return None
    return np.array([order[folder] for folder in folders], np.int64)


def _folder(path: Path) -> tuple[list[str], Callable[[str], bytes]]:
    names = [file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()]
    return names, lambda name: (path / name).read_bytes()


def _zip(path: Path) -> tuple[list[str], Callable[[str], bytes]]:
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"is not a readable zip file ({error})", where=str(path)) from error
    return [info.filename for info in archive.infolist() if not info.is_dir()], archive.read
