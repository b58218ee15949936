"""Options that say how images become inputs, and what becomes of them where there are no images."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import click

from redtest_onnx.cli.parameters import Numbers, Resize, Size
from redtest_onnx.cli.sample_options import ARRAYS, reads_others
from redtest_onnx.data.dataset import Dataset
from redtest_onnx.data.image_pipeline import (
    INTERPOLATIONS,
    RESAMPLERS,
    ImageOptions,
    Interpolation,
    Resampler,
)
from redtest_onnx.data.user_code import names_function
from redtest_onnx.errors import InputError

log = logging.getLogger(__name__)

IMAGE_OPTIONS = (
    click.option("--mean", type=Numbers(), default=(), help="Mean per channel, after scaling."),
    click.option("--std", type=Numbers(), default=(), help="Standard deviation per channel, after scaling."),
    click.option("--scale", type=Numbers(), default=(), help="Factor for pixels of 0..255. [default: 1/255]"),
    click.option("--resize", type=Resize(), help="Resize images: the shorter side, or both."),
    click.option("--crop", type=Size(), help="Cut the middle of images to this, after --resize."),
    click.option(
        "--interpolation", type=click.Choice(INTERPOLATIONS), help="Of resizing. [default: bilinear]"
    ),
    click.option(
        "--resampler",
        type=click.Choice(RESAMPLERS),
        help="Resize as Pillow does, or as torchvision does on tensors, and with it Transformers 5. "
        "[default: as the model's files say, else pillow]",
    ),
    click.option("--pad", is_flag=True, help="Fit whole images in and fill up with zeros."),
)
_NAMES = ("mean", "std", "scale", "size", "resize", "crop", "interpolation", "resampler", "pad", "layout")
# These hold numbers or texts, whatever the model.
_NO_IMAGES = ARRAYS | {".txt", ".tsv"}


@dataclass(frozen=True)
class GivenImageOptions:
    """The options for images that the user gave.

    Attributes:
        flags: their names.
        mixed: whether the command reads other samples than --data, too, which they may be for.
    """

    flags: tuple[str, ...] = ()
    mixed: bool = False

    @classmethod
    def of(cls, values: dict[str, Any]) -> GivenImageOptions:
        """Those among a command's values.

        Raises:
            InputError: there are some, and --data can't hold images.
        """
        names = [name for name in _NAMES if values.get(name) not in (None, (), False, "auto")]
        names += ["preprocess"] if values.get("preprocess") else []
        mixed = reads_others()
        given = cls(tuple(f"--{name}" for name in names), mixed)
        data: Path | None = values.get("data")
        if data is not None and data.suffix.lower() in _NO_IMAGES and not mixed:
            given._refuse(str(data))
        return given

    def check(self, path: Path | None, data: Dataset, images: ImageOptions) -> None:
        """Say what is done to images as far as it was not asked for; refuse the options where there are none.

        Args:
            path: where the samples are; None for synthetic ones.
            data: the samples as they were opened.
            images: the options.

        Raises:
            InputError: options were given and do nothing.
        """
        if said := getattr(data, "preparation", ""):
            log.log(
                logging.INFO if _asked_for(data, images) else logging.WARNING, "%s: %s", data.source, said
            )
        # What a function gives may have been images until they were put together as arrays.
        if not (path is None or getattr(data, "of_images", False) or names_function(str(path))):
            self._refuse(data.source)

    def _refuse(self, source: str) -> None:
        if not self.flags:
            return
        if self.mixed:
            verb = "has" if len(self.flags) == 1 else "have"
            log.warning("%s: it holds no images, %s %s no effect on it", source, ", ".join(self.flags), verb)
            return
        verb = "is" if len(self.flags) == 1 else "are"
        raise InputError(
            f"{', '.join(self.flags)} {verb} for images, and it holds none",
            where=source,
            hint="leave them out: arrays and texts have to be prepared already as the model takes them",
        )


def image_options_of(
    values: dict[str, Any], layout: Literal["auto", "nchw", "nhwc"] = "auto"
) -> ImageOptions:
    """The image options among a command's values, which are taken out."""
    scale = values.pop("scale")
    if len(scale) > 1:
        raise InputError("--scale takes one number, such as 1/255")
    found = {name: values.pop(name) for name in ("mean", "std", "size", "resize", "crop", "pad")}
    interpolation: Interpolation = values.pop("interpolation") or "bilinear"
    resampler: Resampler = values.pop("resampler") or "auto"
    return ImageOptions(
        **found,
        scale=scale[0] if scale else None,
        layout=layout,
        interpolation=interpolation,
        resampler=resampler,
    )


def _asked_for(data: Dataset, images: ImageOptions) -> bool:
    """Whether everything that is done to images was said by the user, and nothing was assumed."""
    sized = images.size or images.resize or images.crop or images.pad or getattr(data, "fits", False)
    return bool(images.mean and images.std and sized)
