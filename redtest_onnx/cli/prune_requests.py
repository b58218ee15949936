"""What `prune` is asked for, from its options."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from redtest_onnx.cli.file_names import check_model_name, check_plan_name
from redtest_onnx.cli.fit_options import check_fit
from redtest_onnx.cli.model_request import ModelRequest
from redtest_onnx.cli.outputs import Outputs
from redtest_onnx.cli.prune_curve import CurveRequest
from redtest_onnx.cli.training_options import prepare_torch
from redtest_onnx.engines.run import EngineOptions
from redtest_onnx.errors import InputError
from redtest_onnx.pruning.budget import Budget
from redtest_onnx.pruning.folder import check_output, default_output
from redtest_onnx.pruning.prune import PruneSettings
from redtest_onnx.pruning.repair.distilled import require_training
from redtest_onnx.pruning.repair.fit import Method
from redtest_onnx.pruning.repair.shards import FitShards
from redtest_onnx.pruning.targets import QUANTITIES, Quantity
from redtest_onnx.report.model_explorer import explorer_files
from redtest_onnx.similarity.analyze import AnalysisSettings
from redtest_onnx.training.distil.settings import DistilSettings


@dataclass(frozen=True)
class PruneRequest(ModelRequest):
    """The options that only `prune` has, by the names of its parameters.

    Raises:
        InputError: options that exclude each other, or a target that is no quantity with a share.
        SettingError: limits that exclude each other.
        RuntimeUnavailableError: training is asked for, and PyTorch is not installed.
    """

    output: Path | None
    criterion: str
    threshold: float | None
    remove: int | None
    target: tuple[str, ...]
    width: bool
    max_drop: float | None
    repair: Method
    repair_time: float | None
    adapter_kernel: str
    epochs: int | None
    iterations: int
    lr: float | None
    augment: tuple[Literal["crop", "flip"], ...]
    protect: tuple[str, ...]
    fit_data: tuple[Path, ...]
    dry_run: bool
    plan_path: Path | None
    eval_data: Path | None
    analysis_path: Path | None
    curve: Path | None
    html: Path | None
    png: Path | None
    layer_latency: bool
    explorer: Path | None
    json_path: str | None
    force: bool

    def __post_init__(self) -> None:
        self.budgets()
        trains = self.repair in ("distil", "auto")
        check_training(self.epochs, self.iterations, self.lr, () if trains else self.augment, self.plan_path)
        if self.repair_time is not None and not trains:
            raise InputError("--repair-time belongs to --repair distil or auto", hint="--repair distil")
        if self.width and ((self.plan_path and not self.dry_run) or self.iterations > 1):
            raise InputError(
                "--width is for one round of a plan that is made here",
                hint="leave out --plan or --iterations",
            )
        check_fit(self.fit_data, self.repair, self.curve is not None, self.iterations)
        if self.repair == "distil":
            require_training()
        if self.epochs is not None:
            prepare_torch()

    @property
    def budget(self) -> Budget:
        """What limits the pruning."""
        targets = tuple(map(_target, self.target))
        return Budget(self.remove, self.threshold, targets, self.max_drop, self.protect, self.width)

    def budgets(self) -> tuple[Budget, ...]:
        """The part of each round."""
        return tuple(self.budget.rounds(self.iterations))

    @property
    def applied_plan(self) -> Path | None:
        """The plan to apply, where one is given for that."""
        return None if self.dry_run else self.plan_path

    @property
    def reads(self) -> tuple[Path | None, ...]:
        """Files beside the model and its samples that nothing may be written over."""
        return self.eval_data, self.analysis_path, self.applied_plan, *self.fit_data

    @property
    def several(self) -> bool:
        """Whether each model of a folder gets a series."""
        return self.curve is not None and self.model.is_dir()

    @property
    def file(self) -> Path:
        """Where the result goes."""
        return self.output or default_output(self.model)

    @property
    def series(self) -> CurveRequest | None:
        """What is asked of a series of models; None where one result is."""
        if self.curve is None:
            return None
        return CurveRequest(self.curve, self.html, self.png, self.json_path, self.force)

    def outputs(self, reads: Iterable[Path | None]) -> Outputs:
        """All files that will be written.

        Args:
            reads: what is read for samples.

        Raises:
            InputError: an option belongs to a single result, and a series is asked for.
            OutputError: one exists, can't be written, is read or is one of the others.
        """
        series = self.series
        if series is not None:
            single = {
                "--remove": self.remove is not None,
                "--threshold": self.threshold is not None,
                "--target": bool(self.target),
                "--width": self.width,
                "--plan": self.plan_path is not None,
                "--dry-run": self.dry_run,
                "--finetune": self.epochs is not None,
                "--model-explorer": self.explorer is not None,
                "--layer-latency": self.layer_latency,
                "--analysis": self.analysis_path is not None and self.several,
            }
            series.check(self.model, single)
        named: dict[str, Path | str | None] = {
            "--html": self.html,
            "--png": self.png,
            "--json": self.json_path,
        }
        named |= {f"--model-explorer ({file.name})": file for file in explorer_files(self.explorer)}
        if self.dry_run:
            if self.plan_path is not None:
                check_plan_name(self.plan_path)
            named["--plan"] = self.plan_path
        elif not self.model.is_dir() and series is None:
            check_model_name(self.file)
            named["--output"] = self.file
        read = (*reads, *self.reads)
        found = Outputs.of(named, force=self.force, reads=read, models=(self.model,))
        if not self.dry_run and series is None:
            check_output(self.model, self.file, force=self.force)
        return found

    def settings(self, similarity: AnalysisSettings, shards: FitShards | None) -> PruneSettings:
        """How layers are chosen and what is left is repaired."""
        distil = DistilSettings(
            mirror="flip" in self.augment,
            crop="crop" in self.augment,
            seconds=self.repair_time,
            seed=similarity.seed,
        )
        kernel: Literal[1, 3] = 3 if self.adapter_kernel == "3" else 1
        return PruneSettings(self.criterion, similarity, self.repair, kernel, distil, shards)


def _target(text: str) -> tuple[Quantity, float]:
    quantity, _, share = text.partition("=")
    try:
        value = float(share)
    except ValueError:
        value = -1.0
    found = next((known for known in QUANTITIES if known == quantity), None)
    if found is None or not 0 < value <= 1:
        raise InputError(
            f"--target {text!r} is not understood",
            hint=f"{' or '.join(QUANTITIES)} and the share that may stay, such as macs=0.6",
        )
    return found, value


def check_engine(engine: EngineOptions, several: bool) -> None:
    """Refuse an engine where there is one model to work on.

    Raises:
        InputError: it does not stay in this process.
    """
    if not several and engine != EngineOptions():
        raise InputError(
            "--engine, --workers and --address are for many models or files of samples",
            hint="prune FOLDER --curve OUTPUT takes all .onnx files of a folder; --fit-data files of samples",
        )


def check_training(
    epochs: int | None, iterations: int, lr: float | None, augment: tuple[str, ...], plan_path: Path | None
) -> None:
    """Refuse options of training where nothing is trained, and plans where several are made.

    Raises:
        InputError: naming the options.
    """
    if epochs is None and (iterations > 1 or lr is not None or augment):
        raise InputError(
            "--iterations and --lr belong to --finetune, --augment to --finetune or --repair distil",
            hint="--finetune EPOCHS",
        )
    if iterations > 1 and plan_path is not None:
        raise InputError("--plan is one round of pruning", hint="leave out --plan or --iterations")
