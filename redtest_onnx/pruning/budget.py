"""How many layers go: by number, by threshold, down to a size, or as far as the quality lasts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import islice, pairwise

from redtest_onnx.errors import InputError
from redtest_onnx.layers.layer import Layer
from redtest_onnx.pruning.criteria import base as criteria
from redtest_onnx.pruning.criteria.base import CriterionContext, ScoredLayer
from redtest_onnx.pruning.plan import Plan
from redtest_onnx.pruning.targets import Quantities, TargetSearch, plan_of
from redtest_onnx.runtime.evaluate import Evaluation
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analyze import Analysis, Progress


@dataclass(frozen=True)
class Budget:
    """What limits the pruning. With none of the first three set, `max_drop` decides alone.

    Attributes:
        remove: number of layers to take out.
        threshold: take out what the criterion scores at least so high; for redtest, Algorithm 3.
        targets: quantities with the share of them that may stay, such as (("params", 0.5),): "params",
            "macs", "size" of the file, "memory" of activations at their peak, or measured "latency".
        max_drop: largest loss of accuracy (with labels) or of agreement (without) on held-out samples.
        protect: globs of layers that stay.
    """

    remove: int | None = None
    threshold: float | None = None
    targets: tuple[tuple[str, float], ...] = ()
    max_drop: float | None = None
    protect: tuple[str, ...] = ()

    def rounds(self, count: int) -> tuple[Budget, ...]:
        """The budget in equal parts for `count` rounds of pruning, each of what the last one left."""
        ends = [round((self.remove or 0) * k / count) for k in range(count + 1)]
        targets = tuple((what, share ** (1 / count)) for what, share in self.targets)
        return tuple(
            replace(self, remove=None if self.remove is None else b - a, targets=targets)
            for a, b in pairwise(ends)
        )


DEFAULT_MAX_DROP = 0.01


def drop(reference: Evaluation, candidate: Evaluation) -> float:
    """What a candidate loses: accuracy where there are labels, else agreement with the original."""
    if reference.accuracy is not None and candidate.accuracy is not None:
        return reference.accuracy - candidate.accuracy
    if candidate.agreement.top1 is not None:
        return 1.0 - candidate.agreement.top1
    return 1.0 - candidate.agreement.cosine


@dataclass(frozen=True)
class Losses:
    """What plans lose on held-out samples.

    Attributes:
        plain: by removal alone.
        repaired: with repair; None where nothing will be repaired.
    """

    plain: Callable[[Plan], float]
    repaired: Callable[[Plan], float] | None = None


def make_plan(
    context: CriterionContext,
    budget: Budget,
    criterion: str = "redtest",
    *,
    losses: Losses | None = None,
    progress: Progress | None = None,
) -> Plan:
    """Choose the layers to take out.

    Args:
        context: the model, its layers and their similarity.
        budget: what limits the choice.
        criterion: name of the criterion.
        losses: what plans lose; needed where `budget.max_drop` decides.
        progress: called for every candidate tried.

    Raises:
        InputError: a protected layer does not exist, or there are fewer candidates than asked for.
        NegativeVerdictError: a target can't be reached.
    """
    bench, analysis = context.bench, context.analysis
    context = replace(context, allowed=_allowed(analysis, budget.protect))
    search = TargetSearch(context, criterion, budget.targets, Quantities(bench))
    ranking = criteria.rank(criterion, replace(context, worth=search.worth) if budget.targets else context)
    if budget.threshold is not None:
        if criterion == "redtest":
            chosen: Sequence[ScoredLayer] = criteria.above_threshold(context, budget.threshold)
        else:
            chosen = [s for s in ranking if s.score >= budget.threshold]
    elif budget.remove is not None:
        chosen = list(islice(ranking, budget.remove))
        if budget.remove > len(chosen):
            raise InputError(
                f"{budget.remove} layers can't be removed: {len(chosen)} of {len(analysis.layers)} can go",
                where=bench.label,
                hint="`inspect` gives the reason for each layer that stays",
            )
    elif budget.targets:
        chosen = search.run(ranking)
    else:
        chosen = list(ranking)
    if losses is None or budget.max_drop is None:
        return plan_of(bench, criterion, chosen)
    plain = _tolerated(bench, criterion, chosen, losses.plain, budget.max_drop, progress)
    if losses.repaired is None:
        return plain
    repaired = _longest(bench, criterion, chosen, losses.repaired, budget.max_drop, progress)
    return max(plain, repaired, key=lambda plan: sum(step.parameters for step in plan.steps))


def _tolerated(
    bench: Workbench,
    criterion: str,
    candidates: Sequence[ScoredLayer],
    loss: Callable[[Plan], float],
    max_drop: float,
    progress: Progress | None,
) -> Plan:
    """Take candidate after candidate; one that costs too much together with those before it stays."""
    kept: list[ScoredLayer] = []
    for done, candidate in enumerate(candidates):
        if loss(plan_of(bench, criterion, [*kept, candidate])) <= max_drop:
            kept.append(candidate)
        if progress:
            progress(done + 1, len(candidates), "trying removals")
    return plan_of(bench, criterion, kept)


def _longest(
    bench: Workbench,
    criterion: str,
    candidates: Sequence[ScoredLayer],
    loss: Callable[[Plan], float],
    max_drop: float,
    progress: Progress | None,
) -> Plan:
    """The longest beginning of the ranking that stays tolerable, found by bisection: each try is a repair."""
    good, bad, tries = 0, len(candidates) + 1, 0
    while bad - good > 1:
        middle = (good + bad) // 2
        if loss(plan_of(bench, criterion, candidates[:middle])) <= max_drop:
            good = middle
        else:
            bad = middle
        tries += 1
        if progress:
            progress(tries, tries + (bad - good - 1).bit_length(), "trying removals with repair")
    return plan_of(bench, criterion, candidates[:good])


def _allowed(analysis: Analysis, protect: Sequence[str]) -> Callable[[Layer], bool]:
    names = [layer.name for layer in analysis.layers]
    for pattern in protect:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise InputError(
                f"--protect {pattern!r} fits no layer",
                hint=f"`inspect` lists the layers, such as {names[-1]!r}",
            )
    return lambda layer: not any(fnmatchcase(layer.name, pattern) for pattern in protect)
