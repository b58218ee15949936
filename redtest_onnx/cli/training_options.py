"""How a model is trained, for commands that train."""

from __future__ import annotations

import os
from dataclasses import fields
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from redtest_onnx.cli.options import Command, apply

if TYPE_CHECKING:
    from redtest_onnx.training.settings import TrainingSettings


def training_options(function: Command) -> Command:
    """How a model is trained; see `training.settings.TrainingSettings`."""
    return apply(
        function,
        click.option(
            "--epochs",
            type=click.IntRange(min=1),
            default=20,
            show_default=True,
            help="Passes over the training samples.",
        ),
        click.option(
            "--batch-size", type=click.IntRange(min=1), default=64, show_default=True, help="Per step."
        ),
        click.option(
            "--optimizer",
            type=click.Choice(["auto", "sgd", "adamw", "whitened"]),
            default="auto",
            help="auto: whitened Adam, which goes on where a repair ended, with a teacher and no labels, "
            "else AdamW for models with layer normalisation and SGD for others.",
        ),
        click.option(
            "--lr",
            type=float,
            help="Highest rate. [default: 0.02 with SGD, 0.0005 with AdamW, 0.0003 with whitened Adam]",
        ),
        click.option("--momentum", type=float, default=0.9, show_default=True, help="Of SGD."),
        click.option("--weight-decay", type=float, help="[default: 0.0005 with SGD, 0.01 with AdamW]"),
        click.option(
            "--schedule",
            type=click.Choice(["cosine", "steps", "constant"]),
            default="cosine",
            show_default=True,
            help="Of the learning rate.",
        ),
        click.option(
            "--warmup", type=float, default=0.05, show_default=True, help="Share of steps with a rising rate."
        ),
        click.option(
            "--augment",
            multiple=True,
            type=click.Choice(["crop", "flip"]),
            help="Change training images at random; may be repeated.",
        ),
        click.option(
            "--label-smoothing",
            type=float,
            default=0.0,
            show_default=True,
            help="Share of the target spread over all classes.",
        ),
        click.option(
            "--teacher-weight",
            type=float,
            default=0.5,
            show_default=True,
            help="Share of the loss that imitates the teacher where there are labels too.",
        ),
        click.option(
            "--temperature", type=float, default=2.0, show_default=True, help="Softens what is imitated."
        ),
        click.option(
            "--feature-weight",
            type=float,
            default=0.0,
            show_default=True,
            help="Weight of imitating the outputs of layers inside, too.",
        ),
        click.option("--clip", type=float, default=5.0, show_default=True, help="Largest gradient norm."),
        click.option(
            "--batch-norm",
            type=click.Choice(["auto", "train", "frozen"]),
            default="auto",
            help="Track statistics, or keep them; auto keeps them with whitened Adam.",
        ),
        click.option(
            "--precision",
            type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
            default="auto",
            help="auto: bfloat16 on GPUs that have it, else float32.",
        ),
        click.option(
            "--task",
            type=click.Choice(["auto", "classification", "regression"]),
            default="auto",
            help="auto: classification with labels or a final softmax.",
        ),
        click.option(
            "--validation",
            type=float,
            default=0.1,
            show_default=True,
            help="Share of the data held out to choose the best epoch.",
        ),
        click.option(
            "--patience", type=click.IntRange(min=1), help="Stop after this many epochs without progress."
        ),
    )


def training_settings_of(values: dict[str, Any]) -> TrainingSettings:
    """Take the training options out of a command's values; the seed stays."""
    from redtest_onnx.training.settings import TrainingSettings

    names = [field.name for field in fields(TrainingSettings) if field.name != "seed"]
    return TrainingSettings(**{name: values.pop(name) for name in names}, seed=values["seed"])


def prepare_torch() -> None:
    """Import PyTorch with threads that sleep while they wait.

    Spinning, they take several times the CPU time wherever another process wants a core.

    Raises:
        RuntimeUnavailableError: PyTorch is not installed.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import_module("redtest_onnx.bridge")
