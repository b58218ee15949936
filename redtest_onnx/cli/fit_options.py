"""Samples for the last fit of `prune` that lie in several files, read by many workers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from redtest_onnx.cli.options import Command, DataOptions, FilePath, apply
from redtest_onnx.engines.run import EngineOptions
from redtest_onnx.errors import InputError
from redtest_onnx.graph.files import load
from redtest_onnx.pruning.repair.shards import FitShards
from redtest_onnx.runtime.session import RunOptions
from redtest_onnx.runtime.workbench import Workbench


def fit_options(function: Command) -> Command:
    """Which samples the last fit takes."""
    return apply(
        function,
        click.option(
            "--fit-data",
            multiple=True,
            type=FilePath,
            help="Fit --repair refit to all samples of this file instead of --data's; may be repeated: "
            "--workers or --engine ray read the files side by side.",
        ),
    )


@dataclass(frozen=True)
class ShardOpening:
    """Opens a model with the samples of a file, in whatever process an engine runs it."""

    model: Path
    data: DataOptions
    run: RunOptions

    def __call__(self, file: str) -> Workbench:
        """The workbench of the model and the samples."""
        model = load(self.model)
        return Workbench(model, self.data.open(model, path=Path(file)), self.run, seed=self.data.seed)


def shards_of(files: tuple[Path, ...], opening: ShardOpening, engine: EngineOptions) -> FitShards | None:
    """The shards that were named; None without any.

    Raises:
        InputError: one is not there, is named twice, or does not fit the model.
    """
    for file in files:
        if not file.exists():
            raise InputError("no such file", where=str(file), hint="--fit-data names files of samples")
    if len({file.resolve() for file in files}) < len(files):
        raise InputError("--fit-data names a file twice", hint="name each once")
    for file in files:
        opening(str(file))  # what can't be read is told before any work
    return FitShards(tuple(map(str, files)), opening, engine) if files else None


def check_fit(files: tuple[Path, ...], repair: str, several: bool, rounds: int) -> None:
    """Refuse files of samples that nothing would be fitted to.

    Raises:
        InputError: naming the option that they belong to.
    """
    if files and (repair not in ("refit", "auto") or several or rounds > 1):
        raise InputError(
            "--fit-data belongs to --repair refit or auto, of one result in one round",
            hint="leave out --curve and --iterations, or --fit-data",
        )
