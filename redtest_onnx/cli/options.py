"""Options that mean the same in every command, and what they become."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import click

from redtest_onnx.cli import file_names
from redtest_onnx.cli.console import LineFormatter, OncePerCommand
from redtest_onnx.cli.help import DATA, SECTIONS, TYPED
from redtest_onnx.cli.image_options import IMAGE_OPTIONS, GivenImageOptions, image_options_of
from redtest_onnx.cli.parameters import InputShape, Size
from redtest_onnx.cli.running_options import Command as Command
from redtest_onnx.cli.running_options import apply as apply
from redtest_onnx.cli.running_options import device_option as device_option
from redtest_onnx.cli.running_options import output_kind_option as output_kind_option
from redtest_onnx.cli.running_options import run_options as run_options
from redtest_onnx.cli.running_options import run_options_of as run_options_of
from redtest_onnx.cli.sample_options import refuse_other_kinds
from redtest_onnx.cli.text_options import TEXT_OPTIONS, text_options_of
from redtest_onnx.data.arrays import splits
from redtest_onnx.data.dataset import Dataset, WithMask
from redtest_onnx.data.image_pipeline import ImageOptions
from redtest_onnx.data.open import open_data
from redtest_onnx.data.text import TextOptions
from redtest_onnx.errors import InputError
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.model_folder import find_beside
from redtest_onnx.layers.granularity import GranularityChoice
from redtest_onnx.report.table_formats import TABLE_FORMATS

FilePath = file_names.FILE

# Read where they lie beside a model.
_BESIDE = (
    *("preprocessor_config.json", "processor_config.json", "config.json", "genai_config.json"),
    *("tokenizer.json", "tokenizer_config.json"),
)


@dataclass(frozen=True)
class DataOptions:
    """What the data options say."""

    data: Path | None
    images: ImageOptions
    preprocess: Path | None
    sample_rate: int | None
    input_shape: tuple[tuple[str, tuple[int, ...]], ...]
    seed: int
    text: TextOptions = field(default_factory=TextOptions)
    given_images: GivenImageOptions = field(default_factory=GivenImageOptions)

    def open(self, model: Model, *, path: Path | None = None, split: str | None = None) -> Dataset:
        """The samples at `path`, or those of --data."""
        shapes = dict(self.input_shape)
        unknown = set(shapes) - {spec.name for spec in model.inputs}
        if unknown:
            names = ", ".join(spec.name for spec in model.inputs)
            raise InputError(f"--input-shape names {', '.join(sorted(unknown))}; the inputs are {names}")
        found = open_data(
            path or self.data,
            model,
            split=split,
            images=self.images,
            sample_rate=self.sample_rate,
            preprocess=self.preprocess,
            text=self.text,
            shapes=shapes,
            seed=self.seed,
        )
        self.given_images.check(path or self.data, found, self.images)
        asked = self.text.mask
        return WithMask(found, asked) if asked and getattr(found, "mask", None) is None else found

    def reads(self, *models: Path) -> tuple[Path | None, ...]:
        """What is read for samples, which no output may replace: what is named, and what lies beside models.

        Args:
            models: .onnx files, or folders with some.
        """
        beside = (
            find_beside(model / "any" if model.is_dir() else model, name)
            for model in models
            for name in _BESIDE
        )
        return (self.data, self.preprocess, self.text.tokenizer, *beside)

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


def data_options(function: Command) -> Command:
    """Where samples come from and how images become inputs."""
    return apply(
        function,
        click.option(
            "--data",
            type=FilePath,
            help=".npz, .npy, a folder, .zip or .tar of images, sounds or arrays, a table or texts "
            "(.parquet, .arrow, .jsonl, .csv, .tsv, .txt), or FILE.py:FUNCTION; synthetic (random) if "
            "absent.",
        ),
        *IMAGE_OPTIONS,
        click.option(
            "--size",
            type=Size(),
            help="Size that images are given: resized to cover it, the middle taken. [default: the model's]",
        ),
        click.option(
            "--preprocess",
            type=FilePath,
            help="File that says how images were prepared in training. [default: preprocessor_config.json or "
            "timm's config.json beside MODEL]",
        ),
        click.option("--sample-rate", type=click.IntRange(min=1), help="Of sounds for the model, in Hz."),
        click.option(
            "--layout",
            type=click.Choice(["auto", "nchw", "nhwc"]),
            default="auto",
            help="Order of the axes of image inputs. [default: what the shape says]",
        ),
        *TEXT_OPTIONS,
        click.option(
            "--input-shape",
            type=InputShape(),
            multiple=True,
            help="Sizes of a synthetic input; may be repeated.",
        ),
        click.option("--seed", type=click.IntRange(min=0), default=0, help="Random seed."),
    )


def data_arguments(ctx: click.Context) -> tuple[str, ...]:
    """The options about samples as they were typed, for a command that is to read the same ones."""
    options = {
        name: option
        for option in ctx.command.params
        if isinstance(option, click.Option) and option.name in SECTIONS[DATA]
        for name in option.opts
    }
    found: list[str] = []
    rest = iter(ctx.meta.get(TYPED, ()))
    for word in rest:
        name, sign, _ = word.partition("=")
        option = options.get(name)
        if option is not None:
            found.append(word)
            if not sign and not option.is_flag:
                found.append(next(rest, ""))
    return tuple(found)


def training_data_options(function: Command) -> Command:
    """Where images to train with come from."""
    return apply(
        function,
        click.option("--data", type=FilePath, help=".npz with `input` and `labels`, or images by class."),
        *IMAGE_OPTIONS,
        click.option("--size", type=Size(), help="Resize image files to this. [default: 32x32]"),
        click.option("--seed", type=click.IntRange(min=0), default=0, help="Random seed."),
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
            type=click.Choice(get_args(GranularityChoice)),
            default="auto",
            show_default=True,
            help="How much a layer holds: one operator, a transformer's sub-layer or a residual block, a "
            "transformer's block, or all layers of one shape. auto: sub-layers, but blocks of a transformer "
            "where a number of layers is removed.",
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
        click.option(
            "--alpha",
            type=float,
            default=100.0,
            show_default=True,
            help="Steepness of the score; inf counts the pairs above the threshold.",
        ),
        click.option(
            "--samples", type=click.IntRange(min=1), default=256, show_default=True, help="Samples per batch."
        ),
        click.option(
            "--batches",
            type=click.IntRange(min=1),
            default=10,
            show_default=True,
            help="Batches at most, as far as the data reaches.",
        ),
        layer_options,
    )


def output_options(function: Command) -> Command:
    """How results are given."""
    return apply(
        function,
        click.option(
            "--json",
            "json_path",
            type=file_names.JSON,
            metavar="FILE|-",
            help="Machine-readable result; - for stdout.",
        ),
        click.option("--force", is_flag=True, help="Overwrite existing outputs."),
        click.option("-v", "--verbose", count=True, help="Say more on stderr."),
        click.option("-q", "--quiet", is_flag=True, help="No progress, no tables."),
    )


def latency_option(function: Command) -> Command:
    """Time of each layer."""
    return apply(
        function,
        click.option(
            "--layer-latency",
            is_flag=True,
            help="Time each layer by itself, too, for the page and the table.",
        ),
    )


def explorer_option(function: Command) -> Command:
    """Node data for Model Explorer."""
    return apply(
        function,
        click.option(
            "--model-explorer",
            "explorer",
            type=file_names.OUTPUT,
            help="Write node data for Google's Model Explorer: PATH.similarity.json, .macs.json and "
            ".removed.json.",
        ),
    )


def format_option(function: Command) -> Command:
    """How tables are printed."""
    return apply(
        function,
        click.option(
            "--format",
            "form",
            type=click.Choice(TABLE_FORMATS),
            default="table",
            show_default=True,
            help="Format of the table on stdout; numbers in full but for table and markdown.",
        ),
    )


def data_options_of(values: dict[str, Any]) -> DataOptions:
    """Take the data options out of a command's values."""
    given = GivenImageOptions.of(values)
    refuse_other_kinds(values)
    images = image_options_of(values, values.pop("layout"))
    names = ("data", "preprocess", "sample_rate", "input_shape")
    found = {name: values.pop(name) for name in names}
    text = text_options_of(values)
    return DataOptions(images=images, **found, seed=values["seed"], text=text, given_images=given)


def images_of(values: dict[str, Any]) -> ImageOptions:
    """Take the options for images to train with out of a command's values."""
    GivenImageOptions.of(values)  # refuses those that do nothing
    return image_options_of(values)


def configure_logging(verbose: int, quiet: bool) -> None:
    """Warnings on stderr; with -v what is converted or left out, with -vv everything."""
    level = logging.ERROR if quiet else (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logging.basicConfig(level=level, force=True)
    for handler in logging.root.handlers:
        handler.setFormatter(LineFormatter("%(levelname)s: %(message)s"))
        handler.addFilter(OncePerCommand())
