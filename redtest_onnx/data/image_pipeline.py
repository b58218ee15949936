"""From a decoded image to a model's input: resize, crop, pad, scale, normalise, lay out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from redtest_onnx.checks import Positive, check_settings
from redtest_onnx.data.pixels import in_bytes, open_picture
from redtest_onnx.data.resampling import RESAMPLED, resize_bytes
from redtest_onnx.errors import InputError, RuntimeUnavailableError
from redtest_onnx.graph.model import TensorSpec

Pixels: TypeAlias = "npt.NDArray[np.float32 | np.uint8]"
Interpolation: TypeAlias = Literal["nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"]
INTERPOLATIONS: tuple[Interpolation, ...] = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")
Rounding: TypeAlias = Literal["nearest", "down"]
Resampler: TypeAlias = Literal["auto", "pillow", "torch"]
RESAMPLERS: tuple[Resampler, ...] = ("pillow", "torch")


@dataclass(frozen=True)
class ImageOptions:
    """How images become inputs: resized, cropped, padded, and value = (pixel * scale - mean) / std.

    An image that has the wanted size already stays as it is. Otherwise, without `resize`, `crop` or `pad`, it
    is resized with its aspect ratio until it covers the wanted size, and the middle is taken.

    Attributes:
        mean: per channel, or one for all.
        std: per channel, or one for all.
        scale: multiplied onto 0..255; None takes 1/255 for float inputs and 1 for integer ones. Signed
            bytes, as quantised models take them, are shifted to -128..127 if nothing else is asked for.
        size: height and width that the model is given; None takes the model's, else the image's own.
        layout: where channels stand; "auto" finds it in the model's input.
        resize: a number for the shorter side, the other follows; or height and width whatever the ratio.
        crop: height and width to cut from the middle, after resizing; what is missing is filled with zeros.
        interpolation: of resizing, with antialiasing.
        resampler: "pillow" resizes as Pillow does, "torch" as torchvision does on tensors (bilinear, bicubic
            and Lanczos differ, by up to some steps of 255); "auto" is Pillow where no file says otherwise.
        pad: resize the longer side to the wanted size and fill up with zeros, to the right and below.
        crop_rounding: where an odd rest goes: "nearest" as torchvision and timm round, "down" as the image
            processors of Transformers do.
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    scale: float | None = None
    size: tuple[Positive, Positive] | None = None
    layout: Literal["auto", "nchw", "nhwc"] = "auto"
    resize: Positive | tuple[Positive, Positive] | None = None
    crop: tuple[Positive, Positive] | None = None
    interpolation: Interpolation = "bilinear"
    pad: bool = False
    crop_rounding: Rounding = "nearest"
    resampler: Resampler = "auto"

    def __post_init__(self) -> None:
        check_settings(self)
        if self.pad and (self.resize is not None or self.crop is not None):
            raise InputError("@pad fits the whole image in: it goes with neither @resize nor @crop")


@dataclass(frozen=True)
class ImageLayout:
    """Where an input has its channels, how many, and the size it asks for."""

    channels_first: bool
    channels: int
    size: tuple[int, int] | None

    @classmethod
    def of(cls, spec: TensorSpec, options: ImageOptions) -> ImageLayout:
        """The layout of a model's input.

        Raises:
            InputError: it takes no images, or none of the asked size.
        """
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
        for flag, asked in (("@size", options.size), ("@crop", options.crop)):
            if asked and any(
                isinstance(own, int) and own != k for own, k in zip((height, width), asked, strict=True)
            ):
                raise InputError(
                    f"{flag}={asked[0]}x{asked[1]}, but input {spec.name!r} is {spec}",
                    hint=f"leave {flag} out: images are resized to what the model takes",
                )
        return cls(first, channels if isinstance(channels, int) else 3, options.size or options.crop or size)


@dataclass(frozen=True)
class ImagePipeline:
    """What is done with each image.

    Attributes:
        input: the model's input.
        options: what was asked for.
        layout: what the input takes.
    """

    input: TensorSpec
    options: ImageOptions
    layout: ImageLayout

    @classmethod
    def of(cls, spec: TensorSpec, options: ImageOptions) -> ImagePipeline:
        """The pipeline for an input.

        Raises:
            InputError: the input takes no images, or the options don't fit its channels.
        """
        layout = ImageLayout.of(spec, options)
        for what, values in (("@mean", options.mean), ("@std", options.std)):
            if len(values) not in (0, 1, layout.channels):
                raise InputError(f"{what} has {len(values)} values for {layout.channels} channels")
        if options.scale is None and spec.numpy_dtype.kind not in "iu":
            check_mean(options.mean, 1 / 255)
        if 0 in options.std:
            raise InputError("@std holds a zero, by which no value can be divided")
        return cls(spec, options, layout)

    def decode(self, content: bytes, where: str) -> Pixels:
        """[H, W, C] in 0..255 of an image file, resized and cropped.

        Raises:
            InputError: it is no image that can be read.
        """
        if find_spec("PIL") is None:
            raise RuntimeUnavailableError(
                "reading images needs Pillow", hint='pip install "redtest-onnx[images]"'
            )
        try:
            return self.prepare(open_picture(content))
        except ValueError as error:
            raise InputError(f"is not a readable image ({error})", where=where) from error

    def fits(self, content: bytes) -> bool:
        """Whether the image of a file has the size that the model takes; not so of what can't be read."""
        size = self.layout.size
        try:
            return size is None or open_picture(content).size[::-1] == size
        except (ImportError, ValueError):
            return False

    def prepare(self, image: Any) -> Pixels:
        """[H, W, C] in 0..255 of a Pillow image, resized and cropped."""

        channels = self.layout.channels
        image = in_bytes(image, channels)
        deep = image.mode == "F"
        pixels = np.asarray(self._sized(image))
        if deep:
            pixels = np.repeat(pixels[..., None], channels, axis=-1)
        return pixels[..., None] if pixels.ndim == 2 else pixels

    def batch(self, images: Sequence[Pixels], source: str) -> npt.NDArray[Any]:
        """[n, ...] as the input takes it.

        Raises:
            InputError: images of different sizes, or values that the input's type doesn't hold.
        """
        if len({image.shape for image in images}) > 1:
            raise InputError(
                "its images have different sizes and the model's input leaves the size open",
                where=source,
                hint="@size=HxW resizes them",
            )
        values = self._normalised(np.stack(images), source)
        if self.layout.channels_first:
            values = np.ascontiguousarray(values.transpose(0, 3, 1, 2))
        return values

    def __str__(self) -> str:
        """What is done, in words."""
        options, size = self.options, self.layout.size
        torch = options.resampler == "torch" and options.interpolation in RESAMPLED
        how = f"{options.interpolation} as {'torchvision does on tensors' if torch else 'Pillow does'}"
        steps = []
        if options.pad and size:
            steps.append(f"fitted into {_by(size)} with padding ({how})")
        elif isinstance(options.resize, int):
            steps.append(f"shorter side resized to {options.resize} ({how})")
        elif options.resize:
            steps.append(f"resized to {_by(options.resize)} ({how})")
        elif size:
            steps.append(f"resized to cover {_by(size)} ({how}), the middle taken")
        if options.crop and not options.pad:
            steps.append(f"the middle {_by(options.crop)} cropped")
        scale, mean, std = self._values()
        steps.append(f"pixels times {scale:.6g}, less {_few(mean)}, over {_few(std)}")
        return ", ".join(steps)

    def _sized(self, image: Any) -> Any:
        options, size = self.options, self.layout.size
        if options.resize is not None:
            image = self._resized(image, _target(image.size[::-1], options.resize))
            if options.crop is not None:
                return self._cropped(image, options.crop)
            if size is None or image.size[::-1] == size:
                return image
            return self._cropped(image, size)
        if options.crop is not None:
            return self._cropped(image, options.crop)
        if size is None or image.size[::-1] == size:
            return image
        height, width = image.size[::-1]
        ratios = size[0] / height, size[1] / width
        if options.pad:
            factor = min(ratios)
            fitted = self._resized(image, _times((height, width), factor, size))
            return _on_black(fitted, size, (0, 0))
        factor = max(ratios)
        return self._cropped(self._resized(image, _times((height, width), factor, size)), size)

    def _resized(self, image: Any, size: tuple[int, int]) -> Any:
        from PIL import Image

        options = self.options
        if image.size[::-1] == size:
            return image
        if options.resampler == "torch" and options.interpolation in RESAMPLED and image.mode != "F":
            return Image.fromarray(resize_bytes(np.asarray(image), size, options.interpolation))
        return image.resize(size[::-1], Image.Resampling[options.interpolation.upper()])

    def _cropped(self, image: Any, size: tuple[int, int]) -> Any:
        height, width = image.size[::-1]
        if height < size[0] or width < size[1]:
            padded = max(height, size[0]), max(width, size[1])
            image = _on_black(image, padded, ((padded[0] - height) // 2, (padded[1] - width) // 2))
            height, width = padded
        rests = (height - size[0]) / 2, (width - size[1]) / 2
        top, left = (round(rest) if self.options.crop_rounding == "nearest" else int(rest) for rest in rests)
        return image.crop((left, top, left + size[1], top + size[0]))

    def _values(self) -> tuple[float, tuple[float, ...], tuple[float, ...]]:
        """Scale, mean and standard deviation."""
        dtype, options = self.input.numpy_dtype, self.options
        plain = options.scale is None and not options.mean and not options.std
        mean = options.mean or (128.0 if plain and dtype == np.int8 else 0.0,)
        scale = options.scale if options.scale is not None else (1 if dtype.kind in "iu" else 1 / 255)
        return scale, mean, options.std or (1.0,)

    def _normalised(self, pixels: Pixels, source: str) -> npt.NDArray[Any]:
        """[n, H, W, C] in the type of the input."""
        dtype = self.input.numpy_dtype
        scale, *rest = self._values()
        mean, std = (np.asarray(each, np.float32) for each in rest)
        values: npt.NDArray[Any] = (pixels.astype(np.float32) * np.float32(scale) - mean) / std
        if dtype.kind not in "iu":
            return values.astype(dtype)
        values, limits = np.rint(values), np.iinfo(str(dtype))
        if values.min() < limits.min or values.max() > limits.max:
            raise InputError(
                f"pixels become {values.min():g} to {values.max():g}, the model takes {dtype}",
                where=source,
                hint="choose @scale, @mean and @std as in the model's own preprocessing",
            )
        return values.astype(dtype)


def check_mean(mean: tuple[float, ...], scale: float) -> None:
    """Refuse a mean that no pixel reaches: it is one of pixels that are not scaled.

    Args:
        mean: as it was asked for.
        scale: the factor for pixels, which was not.

    Raises:
        InputError: it is beyond the brightest pixel.
    """
    brightest = 255 * scale
    if any(value > brightest * (1 + 1e-6) for value in mean):
        raise InputError(
            f"@mean is up to {max(mean):g}, and pixels are scaled to 0..{brightest:g} before it is taken off",
            hint="@scale=1 if mean and standard deviation are those of pixels from 0 to 255",
        )


def _target(size: tuple[int, int], resize: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width after `resize`; the longer side is rounded down, as torchvision does."""
    if not isinstance(resize, int):
        return resize
    height, width = size
    if height <= width:
        return resize, int(resize * width / height)
    return int(resize * height / width), resize


def _times(size: tuple[int, int], factor: float, limit: tuple[int, int]) -> tuple[int, int]:
    """A size times a factor; a side that should meet `limit` meets it exactly."""
    first, second = (
        wanted if round(side * factor) == wanted else max(1, round(side * factor))
        for side, wanted in zip(size, limit, strict=True)
    )
    return first, second


def _on_black(image: Any, size: tuple[int, int], place: tuple[int, int]) -> Any:
    from PIL import Image

    canvas = Image.new(image.mode, size[::-1])
    canvas.paste(image, place[::-1])
    return canvas


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _few(values: tuple[float, ...]) -> str:
    return "/".join(f"{value:g}" for value in values)
