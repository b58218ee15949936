"""Where `finetune` and `search` tell of their runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from redtest_onnx.cli.options import Command, apply
from redtest_onnx.tracking.run import TrackingOptions


def tracking_options(function: Command) -> Command:
    """Who is told of a run; see `tracking.run.TrackingOptions`."""
    return apply(
        function,
        click.option(
            "--track",
            multiple=True,
            metavar="NAME[:WHERE]",
            help="Record the run: mlflow (MLFLOW_TRACKING_URI), mlflow:URI, tensorboard (folder runs) or "
            "tensorboard:FOLDER; may be repeated.",
        ),
        click.option("--run-name", help="Of the recorded run. [default: the command and the time]"),
    )


def tracking_options_of(values: dict[str, Any]) -> TrackingOptions:
    """Take the tracking options out of a command's values."""
    return TrackingOptions.of(values.pop("track"), values.pop("run_name"))


def document_path(json_path: str | None) -> Path | None:
    """The file of a JSON document; None where it goes to stdout."""
    return None if json_path in (None, "-") else Path(str(json_path))
