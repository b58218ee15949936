"""The public functions that plan changes of models, make them and check them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from redtest_onnx.checks import check
from redtest_onnx.data.open import DataLike
from redtest_onnx.errors import InputError
from redtest_onnx.library.opening import ModelLike, Opening, open_model, open_workbench, opened_workbench
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analyze import Analysis, AnalysisSettings, Progress
from redtest_onnx.similarity.analyze import analyze as measure_layers
from redtest_onnx.tracking.run import TrackingOptions

if TYPE_CHECKING:
    from redtest_onnx.pruning.budget import Budget
    from redtest_onnx.pruning.plan import Plan
    from redtest_onnx.pruning.prune import PruneSettings, Pruning
    from redtest_onnx.runtime.session import RunOptions
    from redtest_onnx.training.finetune import FineTuning
    from redtest_onnx.training.settings import TrainingSettings


class BudgetArguments(Opening, total=False):
    """What limits a pruning, and how its model and data are opened.

    Attributes:
        budget: all limits at once; in the place of the following.
        remove: number of layers; of a transformer, of its blocks, unless the settings say a granularity.
        threshold: similarity from which on layers go.
        targets: shares that may stay, such as {"params": 0.5}.
        max_drop: largest loss of accuracy or agreement.
        protect: globs of layers that stay.
        width: whether channels inside of layers go, too, for targets of "params" and "macs".
    """

    budget: Budget
    remove: int
    threshold: float
    targets: Mapping[str, float] | Sequence[tuple[str, float]]
    max_drop: float
    protect: Iterable[str]
    width: bool


def plan(
    model: ModelLike,
    data: DataLike = None,
    settings: PruneSettings | None = None,
    *,
    analysis: Analysis | None = None,
    progress: Progress | None = None,
    **limits: Unpack[BudgetArguments],
) -> Plan:
    """Choose the layers to take out.

    Args:
        model: the model.
        data: calibration samples.
        settings: in which order layers go, and how the result will be repaired.
        analysis: an earlier analysis of the same model, to be used instead of a new one.
        progress: called as work is done.
        limits: see `BudgetArguments`; without any, as many layers as cost no more than one point of accuracy
            or agreement.

    Raises:
        InputError: the model doesn't run on the data, or a limit can't be kept.
        NegativeVerdictError: a target can't be reached.
    """
    from redtest_onnx.pruning.prune import PruneSettings
    from redtest_onnx.pruning.prune import plan as choose

    check("settings", settings, PruneSettings | None)
    budget, how = _budget(limits)
    bench = open_workbench(
        model, data, **_seeded(how, model, 0 if settings is None else settings.similarity.seed)
    )
    return choose(bench, budget, settings, analysis=analysis, progress=progress)[0]


def prune(
    model: ModelLike,
    data: DataLike = None,
    settings: PruneSettings | None = None,
    *,
    plan: Plan | None = None,
    analysis: Analysis | None = None,
    progress: Progress | None = None,
    **limits: Unpack[BudgetArguments],
) -> Pruning:
    """Take redundant layers out of a model, repair what is left, verify it and compare both.

    Args:
        model: the model.
        data: calibration samples.
        settings: in which order layers go, and how the result is repaired.
        plan: what to take out, if that is known; in the place of limits.
        analysis: an earlier analysis of the same model, to be used instead of a new one.
        progress: called as work is done.
        limits: as in `plan`.

    Raises:
        InputError: the model doesn't run on the data, or a limit can't be kept.
        NegativeVerdictError: a target can't be reached.
    """
    from redtest_onnx.pruning import prune as pruning

    check("settings", settings, pruning.PruneSettings | None)
    budget, how = _budget(limits, plan)
    max_drop = budget.max_drop if plan is None else None  # a plan that is given is not held to any
    bench = open_workbench(
        model, data, **_seeded(how, model, 0 if settings is None else settings.similarity.seed)
    )
    chosen = settings or pruning.PruneSettings()
    if plan is None:
        plan, analysis = pruning.plan(bench, budget, chosen, analysis=analysis, progress=progress)
    if analysis is None:
        analysis = measure_layers(bench, _of_plan(plan, bench, chosen.similarity), progress)
    return pruning.prune(
        *(bench, plan, analysis, chosen), targets=budget.targets, max_drop=max_drop, progress=progress
    )


class Training(Opening, total=False):
    """Who is told of a fine-tuning, and how the model and the data are opened.

    Attributes:
        track: one or several of "mlflow", "mlflow:URI", "tensorboard", "tensorboard:FOLDER".
        run_name: of the recorded run; the command and the time if absent.
    """

    track: str | Iterable[str]
    run_name: str


def finetune(
    model: ModelLike,
    data: DataLike,
    settings: TrainingSettings | None = None,
    *,
    teacher: ModelLike | None = None,
    validation: DataLike = None,
    progress: Progress | None = None,
    **how: Unpack[Training],
) -> FineTuning:
    """Train a model in PyTorch; its graph stays as it is, only weights change.

    Args:
        model: the model, pruned or not.
        data: training samples.
        settings: see `TrainingSettings`.
        teacher: the model to imitate, usually the original.
        validation: samples that choose the best epoch; a part of `data` held out if None.
        progress: called as work is done.
        how: `track` and `run_name` as in `Training`; else see `Opening`, whose `evaluation` are samples for
            a last judgement.

    Raises:
        RuntimeUnavailableError: PyTorch, or what `track` asks for, is not installed.
        InputError: operators that can't be trained, data that doesn't fit, or nothing to learn from.
        NegativeVerdictError: training diverged.
    """
    from redtest_onnx.data.open import open_data
    from redtest_onnx.training.finetune import ValidationData
    from redtest_onnx.training.finetune import finetune as train
    from redtest_onnx.training.loop import Watch
    from redtest_onnx.training.processes import leads
    from redtest_onnx.training.settings import TrainingSettings
    from redtest_onnx.training.tracked import note_trained, note_training, tracked_watch

    check("settings", settings, TrainingSettings | None)
    tracking = TrackingOptions.of(how.pop("track", ()), how.pop("run_name", None))
    settings = settings or TrainingSettings()
    opening = Opening(**how)  # type: ignore[typeddict-unknown-key]
    bench = open_workbench(model, data, **_seeded(opening, model, settings.seed))
    others = None if validation is None else open_data(validation, bench.model, images=how.get("images"))
    imitated = None if teacher is None else open_model(teacher)
    with tracking.open("finetune", here=leads()) as tracked:
        note_training(tracked, bench, settings, imitated)
        result = train(
            bench,
            settings,
            teacher=imitated,
            others=ValidationData(others, bench.evaluation),
            watch=tracked_watch(Watch(progress=progress), tracked),
        )
        note_trained(tracked, result)
    return result


def verify(
    original: ModelLike, rewritten: ModelLike, data: DataLike = None, options: RunOptions | None = None
) -> None:
    """Check a rewritten model against what it came from.

    Same inputs, outputs, operator sets and metadata; valid where the original is; loads in ONNX Runtime at
    every optimisation level and gives finite values where the original does.

    Args:
        original: the model before.
        rewritten: what became of it.
        data: samples for both.
        options: device and threads.

    Raises:
        InternalError: the contract is broken.
        InputError: values overflow that were finite.
    """
    from redtest_onnx.pruning.verify import verify as check_rewritten

    bench = opened_workbench(original, data, options)
    check_rewritten(bench, bench.successor(open_model(rewritten)))


def load_plan(
    path: str | Path, model: ModelLike, data: DataLike = None, options: RunOptions | None = None
) -> Plan:
    """Read a plan that `Plan.save` wrote, perhaps edited since, and hold it against the model.

    Args:
        path: the file.
        model: the model it is for.
        data: samples for the model, as for `plan`.
        options: device and threads.

    Raises:
        InputError: not a plan, made for another model, or with layers that are not there or can't go.
    """
    from redtest_onnx.pruning.plan import load_plan as read_plan
    from redtest_onnx.pruning.plan import saved_granularity

    bench = opened_workbench(model, data, options)
    layers = bench.layers(saved_granularity(Path(path), bench))
    return read_plan(Path(path), bench.model, layers, bench.opened.model)


def _of_plan(plan: Plan, bench: Workbench, settings: AnalysisSettings) -> AnalysisSettings:
    """The settings that measure what a plan's steps are, such as blocks, where nothing else is said."""
    if settings.granularity != "auto" or settings.layers != "auto":
        return settings
    return replace(settings, granularity=plan.granularity(bench) or "auto")


def _seeded(how: Opening, model: ModelLike, seed: int) -> Opening:
    """One seed for all: that of the settings, where none is given and a workbench has none yet."""
    if seed and not isinstance(model, Workbench):
        how.setdefault("seed", seed)
    return how


def _budget(limits: BudgetArguments, plan: Plan | None = None) -> tuple[Budget, Opening]:
    """The limits as a budget, and the rest of the keywords."""
    from redtest_onnx.pruning.budget import Budget
    from redtest_onnx.pruning.settings import PruneSettings

    names = Opening.__annotations__
    how = Opening(**{k: v for k, v in limits.items() if k in names})  # type: ignore[typeddict-item]
    said = {k: v for k, v in limits.items() if k not in names}
    for name in said:
        if name in {field.name for field in fields(PruneSettings)}:
            raise InputError(
                f"@{name} is a setting, not a limit",
                hint=f"give settings=PruneSettings({name}={said[name]!r})",
            )
    if plan is not None and said:
        raise InputError(f"@{next(iter(said))} and @plan exclude each other", hint="give one of them")
    whole = limits.get("budget")
    if whole is not None:
        check("budget", whole, Budget)
        if len(said) > 1:
            raise InputError(
                f"@budget and @{next(k for k in said if k != 'budget')} exclude each other",
                hint="say everything in the budget",
            )
        return whole, how
    return Budget.of(**said), how
