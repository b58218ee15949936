"""How many layers go: by number, by threshold, down to a size, or as far as the quality lasts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import islice

from redtest_onnx.analysis import Analysis, Progress
from redtest_onnx.errors import InputError, NegativeVerdictError
from redtest_onnx.graph.layers import Layer
from redtest_onnx.graph.model import Model
from redtest_onnx.pruning import criteria
from redtest_onnx.pruning.criteria import Context, Scored
from redtest_onnx.pruning.plan import Plan, Step
from redtest_onnx.runtime.evaluate import Evaluation


@dataclass(frozen=True)
class Budget:
    """What limits the pruning. With none of the first three set, `max_drop` decides alone.

    Attributes:
        remove: number of layers to take out.
        threshold: take out what the criterion scores at least so high; for redtest, Algorithm 3.
        targets: share of "params" or "macs" that may stay, such as {"params": 0.5}.
        max_drop: largest loss of accuracy (with labels) or of agreement (without) on held-out samples.
        protect: globs of layers that stay.
    """

    remove: int | None = None
    threshold: float | None = None
    targets: tuple[tuple[str, float], ...] = ()
    max_drop: float | None = None
    protect: tuple[str, ...] = ()


DEFAULT_MAX_DROP = 0.01


def drop(reference: Evaluation, candidate: Evaluation) -> float:
    """What a candidate loses: accuracy where there are labels, else agreement with the original."""
    if reference.accuracy is not None and candidate.accuracy is not None:
        return reference.accuracy - candidate.accuracy
    if candidate.agreement.top1 is not None:
        return 1.0 - candidate.agreement.top1
    return 1.0 - candidate.agreement.cosine


def make_plan(
    context: Context,
    budget: Budget,
    criterion: str = "redtest",
    *,
    totals: dict[str, int | None],
    loss: Callable[[Plan], float] | None = None,
    repaired_loss: Callable[[Plan], float] | None = None,
    progress: Progress | None = None,
) -> Plan:
    """Choose the layers to take out.

    Args:
        context: the model, its layers and their similarity.
        budget: what limits the choice.
        criterion: name of the criterion.
        totals: "params" and "macs" of the whole model.
        loss: what a plan loses on held-out samples; needed where `budget.max_drop` decides.
        repaired_loss: what it loses after repair; None where nothing will be repaired.
        progress: called for every candidate tried.

    Raises:
        InputError: a protected layer does not exist, or there are fewer candidates than asked for.
        NegativeVerdictError: a target can't be reached.
    """
    model, analysis = context.model, context.analysis
    context = replace(context, allowed=_allowed(analysis, budget.protect))
    ranking = criteria.rank(criterion, context)
    if budget.threshold is not None:
        if criterion == "redtest":
            chosen: Sequence[Scored] = criteria.above_threshold(context, budget.threshold)
        else:
            chosen = [s for s in ranking if s.score >= budget.threshold]
    elif budget.remove is not None:
        chosen = list(islice(ranking, budget.remove))
        if budget.remove > len(chosen):
            raise InputError(
                f"{budget.remove} layers can't be removed: {len(chosen)} of {len(analysis.layers)} can go",
                where=model.label,
                hint="`inspect` gives the reason for each layer that stays",
            )
    elif budget.targets:
        chosen = _down_to(ranking, budget.targets, totals, model)
    else:
        chosen = list(ranking)
    if loss is None or budget.max_drop is None:
        return _plan(model, criterion, chosen)
    plain = _tolerated(model, criterion, chosen, loss, budget.max_drop, progress)
    if repaired_loss is None:
        return plain
    repaired = _longest(model, criterion, chosen, repaired_loss, budget.max_drop, progress)
    return max(plain, repaired, key=lambda plan: sum(step.parameters for step in plan.steps))


def _tolerated(
    model: Model,
    criterion: str,
    candidates: Sequence[Scored],
    loss: Callable[[Plan], float],
    max_drop: float,
    progress: Progress | None,
) -> Plan:
    """Take candidate after candidate; one that costs too much together with those before it stays."""
    kept: list[Scored] = []
    for done, candidate in enumerate(candidates):
        if loss(_plan(model, criterion, [*kept, candidate])) <= max_drop:
            kept.append(candidate)
        if progress:
            progress(done + 1, len(candidates), "trying removals")
    return _plan(model, criterion, kept)


def _longest(
    model: Model,
    criterion: str,
    candidates: Sequence[Scored],
    loss: Callable[[Plan], float],
    max_drop: float,
    progress: Progress | None,
) -> Plan:
    """The longest beginning of the ranking that stays tolerable, found by bisection: each try is a repair."""
    good, bad, tries = 0, len(candidates) + 1, 0
    while bad - good > 1:
        middle = (good + bad) // 2
        if loss(_plan(model, criterion, candidates[:middle])) <= max_drop:
            good = middle
        else:
            bad = middle
        tries += 1
        if progress:
            progress(tries, tries + (bad - good - 1).bit_length(), "trying removals with repair")
    return _plan(model, criterion, candidates[:good])


def _plan(model: Model, criterion: str, chosen: Iterable[Scored]) -> Plan:
    ordered = sorted(chosen, key=lambda item: item.layer.index)
    return Plan(criterion, model.sha256, tuple(Step.of(item.layer, item.score) for item in ordered))


def _allowed(analysis: Analysis, protect: Sequence[str]) -> Callable[[Layer], bool]:
    names = [layer.name for layer in analysis.layers]
    for pattern in protect:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise InputError(
                f"--protect {pattern!r} fits no layer",
                hint=f"`inspect` lists the layers, such as {names[-1]!r}",
            )
    return lambda layer: not any(fnmatchcase(layer.name, pattern) for pattern in protect)


def _down_to(
    ranking: Iterator[Scored],
    targets: Iterable[tuple[str, float]],
    totals: dict[str, int | None],
    model: Model,
) -> list[Scored]:
    """The shortest beginning of the ranking that leaves no more than the targets."""
    chosen: list[Scored] = []
    for quantity, share in targets:
        total = totals.get(quantity)
        if total is None:
            raise InputError(f"the model's {quantity} are unknown", where=model.label)
        while (left := total - sum(_saved(item.layer, quantity) for item in chosen)) > share * total:
            candidate = next(ranking, None)
            if candidate is None:
                raise NegativeVerdictError(
                    f"target {quantity}={share:g} can't be reached: "
                    f"without all {len(chosen)} removable layers {left / total:.2f} is left",
                    where=model.label,
                    hint="a higher target, or fewer protected layers",
                )
            chosen.append(candidate)
    return chosen


def _saved(layer: Layer, quantity: str) -> int:
    step = Step.of(layer)
    return (step.parameters if quantity == "params" else step.macs) or 0
