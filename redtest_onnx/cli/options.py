"""Options that mean the same in every command, and what they become."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, Literal, TypeVar

import click

from redtest_onnx.data.arrays import splits
from redtest_onnx.data.dataset import Dataset
from redtest_onnx.data.images import ImageOptions
from redtest_onnx.data.open import open_data
from redtest_onnx.errors import InputError
from redtest_onnx.graph.model import Model
from redtest_onnx.layers.granularity import GRANULARITIES
from redtest_onnx.runtime.outputs.kinds import KINDS, parse_output_kind
from redtest_onnx.runtime.session import RunOptions

Command = TypeVar("Command", bound=Callable[..., Any])
FilePath = click.Path(path_type=Path)


class Numbers(click.ParamType[Any]):
    """Numbers separated by commas; fractions such as 1/255 are welcome."""

    name = "numbers"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        """Parse the text."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(_fraction(part) for part in str(value).split(","))
        except (ValueError, ZeroDivisionError):
            self.fail(f"{value!r} is no list of numbers such as 0.485,0.456,0.406", param, ctx)


class Size(click.ParamType[Any]):
    """HxW, or one number for both."""

    name = "HxW"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Parse the text."""
        if isinstance(value, tuple):
            return value
        try:
            numbers = [int(part) for part in str(value).lower().split("x")]
        except ValueError:
            numbers = []
        if len(numbers) not in (1, 2) or min(numbers) < 1:
            self.fail(f"{value!r} is no size such as 224x224", param, ctx)
        return numbers[0], numbers[-1]


class InputShape(click.ParamType[Any]):
    """NAME:D,D,D."""

    name = "NAME:SIZES"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, tuple[int, ...]]:
        """Parse the text."""
        if isinstance(value, tuple):
            return value
        name, _, sizes = str(value).rpartition(":")
        try:
            return name, tuple(int(part) for part in sizes.split(","))
        except ValueError:
            self.fail(f"{value!r} is no input with sizes such as input:1,3,224,224", param, ctx)


def _images(
    mean: tuple[float, ...],
    std: tuple[float, ...],
    scale: tuple[float, ...],
    size: tuple[int, int] | None,
    layout: Literal["auto", "nchw", "nhwc"],
) -> ImageOptions:
    if len(scale) > 1:
        raise InputError("--scale takes one number, such as 1/255")
    return ImageOptions(mean, std, scale[0] if scale else None, size, layout)


def _fraction(text: str) -> float:
    above, slash, below = text.partition("/")
    return float(above) / float(below) if slash else float(above)


@dataclass(frozen=True)
class DataOptions:
    """What the data options say."""

    data: Path | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: tuple[float, ...]
    size: tuple[int, int] | None
    layout: Literal["auto", "nchw", "nhwc"]
    input_shape: tuple[tuple[str, tuple[int, ...]], ...]
    seed: int

    @property
    def images(self) -> ImageOptions:
        """How image files become inputs."""
        return _images(self.mean, self.std, self.scale, self.size, self.layout)

    def open(self, model: Model, *, path: Path | None = None, split: str | None = None) -> Dataset:
        """The samples at `path`, or those of --data."""
        images = self.images
        shapes = dict(self.input_shape)
        unknown = set(shapes) - {spec.name for spec in model.inputs}
        if unknown:
            names = ", ".join(spec.name for spec in model.inputs)
            raise InputError(f"--input-shape names {', '.join(sorted(unknown))}; the inputs are {names}")
        return open_data(path or self.data, model, split=split, images=images, shapes=shapes, seed=self.seed)

    def has_split(self, name: str, path: Path | None = None) -> bool:
        """Whether the .npz at `path`, or that of --data, has a split of that name."""
        path = path or self.data
        return path is not None and path.suffix.lower() == ".npz" and path.exists() and name in splits(path)


def training_data(source: DataOptions, model: Model) -> Dataset:
    """The samples of --data to train on: its split `train` if it has one."""
    return source.open(model, split="train" if source.has_split("train") else None)


def evaluation_data(source: DataOptions, model: Model, path: Path | None) -> Dataset | None:
    """The samples that judge a result: those at `path`, or the split `test` of --data; None if neither is."""
    if source.has_split("test", path):
        return source.open(model, path=path, split="test")
    return None if path is None else source.open(model, path=path)


_IMAGE_OPTIONS = (
    click.option("--mean", type=Numbers(), default=(), help="Mean per channel, after scaling."),
    click.option("--std", type=Numbers(), default=(), help="Standard deviation per channel, after scaling."),
    click.option("--scale", type=Numbers(), default=(), help="Factor for pixels of 0..255. [default: 1/255]"),
)


def data_options(function: Command) -> Command:
    """Where samples come from and how images become inputs."""
    return apply(
        function,
        click.option(
            "--data", type=FilePath, help=".npz, .npy, or a folder or .zip of images; made up if absent."
        ),
        *_IMAGE_OPTIONS,
        click.option("--size", type=Size(), help="Resize images to this. [default: the model's size]"),
        click.option("--layout", type=click.Choice(["auto", "nchw", "nhwc"]), default="auto"),
        click.option(
            "--input-shape",
            type=InputShape(),
            multiple=True,
            help="Sizes of a made-up input; may be repeated.",
        ),
        click.option("--seed", type=click.IntRange(min=0), default=0, help="Of every random choice."),
    )


def training_data_options(function: Command) -> Command:
    """Where images to train with come from."""
    return apply(
        function,
        click.option("--data", type=FilePath, help=".npz with `input` and `labels`, or images by class."),
        *_IMAGE_OPTIONS,
        click.option("--size", type=Size(), help="Resize image files to this. [default: 32x32]"),
        click.option("--seed", type=click.IntRange(min=0), default=0, help="Of every random choice."),
    )


def run_options(function: Command) -> Command:
    """Where the model runs."""
    return apply(
        function,
        click.option(
            "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True
        ),
        click.option("--threads", type=click.IntRange(min=0), default=0, help="0: all cores."),
    )


def layer_options(function: Command) -> Command:
    """What counts as a layer."""
    return apply(
        function,
        click.option(
            "--layers", default="auto", show_default=True, help="auto, all, or a glob over names of layers."
        ),
        click.option(
            "--granularity",
            type=click.Choice(GRANULARITIES),
            default="sub-layer",
            show_default=True,
            help="How much a layer holds: one operator, a transformer's sub-layer or a residual block, a "
            "transformer's block, or all layers of one shape.",
        ),
    )


def measure_options(function: Command) -> Command:
    """How similarity is measured."""
    return apply(
        function,
        click.option(
            "--pooling",
            type=click.Choice(["mean", "none", "cls", "token"]),
            default="mean",
            show_default=True,
            help="Average activations over positions, or take all values; of sequences the first token, or a "
            "random one of each sample.",
        ),
        click.option(
            "--estimator",
            type=click.Choice(["minibatch", "paper", "exact", "biased"]),
            default="minibatch",
            show_default=True,
            help="One ratio of sums over batches, the mean of the batches, all samples at once, or minibatch "
            "without the correction of its bias.",
        ),
        click.option(
            "--kernel",
            type=click.Choice(["linear", "rbf"]),
            default="linear",
            show_default=True,
            help="How alike two samples are: inner product, or Gaussian of the median distance.",
        ),
        click.option("--alpha", type=float, default=100.0, show_default=True, help="Steepness of the score."),
        click.option(
            "--samples", type=click.IntRange(min=1), default=256, show_default=True, help="Per batch."
        ),
        click.option("--batches", type=click.IntRange(min=1), default=10, show_default=True),
        layer_options,
    )


def output_options(function: Command) -> Command:
    """How results are given."""
    return apply(
        function,
        click.option("--json", "json_path", metavar="FILE|-", help="Machine-readable result; - for stdout."),
        click.option("--force", is_flag=True, help="Overwrite existing outputs."),
        click.option("-v", "--verbose", count=True, help="Say more on stderr."),
        click.option("-q", "--quiet", is_flag=True, help="No progress, no tables."),
    )


def output_kind_option(function: Command) -> Command:
    """What outputs are, where the graph does not tell."""
    return apply(
        function,
        click.option(
            "--output-kind",
            multiple=True,
            metavar="NAME=KIND[:AXIS]",
            help=f"What an output holds, and its axis of classes; one of {', '.join(KINDS)}."
            "[default: found from the graph]",
        ),
    )


def run_options_of(values: dict[str, Any]) -> RunOptions:
    """Take the run options out of a command's values."""
    kinds = tuple(map(parse_output_kind, values.pop("output_kind", ())))
    return RunOptions(values.pop("device"), values.pop("threads"), kinds)


def data_options_of(values: dict[str, Any]) -> DataOptions:
    """Take the data options out of a command's values."""
    names = ("data", "mean", "std", "scale", "size", "layout", "input_shape")
    return DataOptions(**{name: values.pop(name) for name in names}, seed=values["seed"])


def images_of(values: dict[str, Any]) -> ImageOptions:
    """Take the options for images to train with out of a command's values."""
    return _images(values.pop("mean"), values.pop("std"), values.pop("scale"), values.pop("size"), "auto")


def configure_logging(verbose: int, quiet: bool) -> None:
    """Warnings on stderr; with -v what is converted or left out, with -vv everything."""
    level = logging.ERROR if quiet else (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logging.basicConfig(level=level, format="%(levelname)s: %(message)s", force=True)


def apply(function: Command, *options: Callable[[Command], Command]) -> Command:
    """The function with several options, which the help lists in this order."""
    return reduce(lambda decorated, option: option(decorated), reversed(options), function)
