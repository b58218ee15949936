"""How many layers go: by number, by threshold, down to a size, or as far as the quality lasts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from itertools import islice, pairwise
from math import isnan
from typing import Annotated, Any

from redtest_onnx.checks import Between, Natural, Share, check, check_settings
from redtest_onnx.errors import InputError, SettingError
from redtest_onnx.layers.layer import Layer
from redtest_onnx.pruning.criteria import base as criteria
from redtest_onnx.pruning.criteria.base import CriterionContext, ScoredLayer, SetChoice
from redtest_onnx.pruning.halving import LeastLoss, Removals, Trial, longest, removed_parameters
from redtest_onnx.pruning.plan import Plan
from redtest_onnx.pruning.set_search import SetSearch
from redtest_onnx.pruning.targets import Quantities, Quantity, TargetSearch, plan_of
from redtest_onnx.pruning.units import kept_by, too_many, unfitted
from redtest_onnx.runtime.evaluate import Evaluation
from redtest_onnx.similarity.analyze import Analysis, Progress

DEFAULT_MAX_DROP = 0.01
"""What accuracy or agreement may lose where nothing else limits the pruning."""


@dataclass(frozen=True)
class Budget:
    """What limits the pruning: one of `remove`, `threshold` and `targets`, or `max_drop` alone.

    Attributes:
        remove: number of layers to take out; of a transformer, of its blocks, unless a granularity is said.
        threshold: take out what the criterion scores at least so high; for redtest, what is as similar to
            the last layer that stays.
        targets: quantities with the share of them that may stay, such as (("params", 0.5),): "params",
            "macs", "size" of the file, "memory" of activations at their peak, or measured "latency".
        max_drop: largest loss of accuracy (with labels) or of agreement (without) on held-out samples; if
            nothing else limits the pruning, `DEFAULT_MAX_DROP` where None.
        protect: globs of layers that stay.
        width: whether channels of inner widths go, too, beside layers or in their place; with targets of
            "params" and "macs" alone.
    """

    remove: Natural | None = None
    threshold: float | None = None
    targets: tuple[tuple[Quantity, Annotated[float, Between(0, 1, above=True)]], ...] = ()
    max_drop: Share | None = None
    protect: tuple[str, ...] = ()
    width: bool = False

    def __post_init__(self) -> None:
        for target in self.targets if isinstance(self.targets, tuple) else ():
            if isinstance(target, tuple) and target:
                check("target", target[0], Quantity)
        check_settings(self)
        limits = [self.remove is not None, self.threshold is not None, bool(self.targets)]
        if sum(limits) > 1:
            raise InputError("@remove, @threshold and @target exclude each other", hint="give one of them")
        if self.width:
            self._check_width()
        if not any(limits) and self.max_drop is None:
            object.__setattr__(self, "max_drop", DEFAULT_MAX_DROP)

    def _check_width(self) -> None:
        """Refuse limits that channels can't be chosen by."""
        counted = all(quantity in ("params", "macs") for quantity, _ in self.targets)
        if not self.targets or not counted or self.max_drop is not None:
            raise InputError(
                "@width takes channels until a share of parameters or multiply-accumulates is left: it goes "
                "with @target of params and macs, and with no other limit",
                hint="@target macs=0.5 @width",
            )

    @classmethod
    def of(cls, **limits: Any) -> Budget:
        """A budget from keywords, with targets as a mapping and globs as text or any iterable, too.

        Raises:
            SettingError: no such limit, or a value that it can't have.
        """
        names = [field.name for field in fields(cls)]
        for name in limits:
            if name not in names:
                raise SettingError("limit", name, names)
        if "targets" in limits:
            given = limits["targets"]
            pairs = _as_tuple(given.items() if isinstance(given, Mapping) else given)
            limits["targets"] = tuple(map(_as_tuple, pairs)) if isinstance(pairs, tuple) else pairs
        if "protect" in limits:
            given = limits["protect"]
            limits["protect"] = (given,) if isinstance(given, str) else _as_tuple(given)
        return cls(**limits)

    def rounds(self, count: int) -> tuple[Budget, ...]:
        """The budget in equal parts for `count` rounds of pruning, each of what the last one left."""
        ends = [-(-(self.remove or 0) * k // count) for k in range(count + 1)]  # the first is never empty
        targets = tuple((what, share ** (1 / count)) for what, share in self.targets)
        return tuple(
            replace(self, remove=None if self.remove is None else b - a, targets=targets)
            for a, b in pairwise(ends)
        )


def _as_tuple(values: Any) -> Any:
    """Several values as a tuple; what is none is left to the check of settings."""
    return tuple(values) if isinstance(values, Iterable) and not isinstance(values, str) else values


def drop(reference: Evaluation, candidate: Evaluation) -> float:
    """What a candidate loses: accuracy where labels tell something, else agreement with the original.

    Agreement is that of the output that agrees least, by its kind. Infinite where nothing can be judged: no
    tolerance lets it pass.
    """
    if reference.accuracy_steers and reference.accuracy is not None and candidate.accuracy is not None:
        return reference.accuracy - candidate.accuracy
    agreement = candidate.agreement.value
    return float("inf") if agreement is None else 1.0 - agreement


@dataclass(frozen=True)
class Losses:
    """What plans lose on held-out samples.

    Attributes:
        plain: by removal alone; infinite if that is known to be too much.
        repaired: with repair, likewise; None where nothing will be repaired.
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
    protected, asked = protected_by(analysis.layers, budget.protect), context.allowed
    context = replace(context, allowed=lambda layer: asked(layer) and protected(layer))
    search = TargetSearch(context, criterion, budget.targets, Quantities(bench))
    proposed = criteria.proposals(
        criterion, replace(context, worth=search.worth) if budget.targets else context
    )
    if isinstance(proposed, SetChoice):
        found = _plan_of_sets(SetSearch(bench, criterion, proposed), context, budget, losses, progress)
        if not found.steps and not found.reason:
            found = replace(found, reason=no_candidates(context, asked, criterion, budget))
        return found
    ranking = iter(proposed)
    if budget.threshold is not None:
        if criterion == "redtest":
            chosen: Sequence[ScoredLayer] = criteria.above_threshold(context, budget.threshold)
        else:
            chosen = [s for s in ranking if s.score >= budget.threshold]
    elif budget.remove is not None:
        chosen = list(islice(ranking, budget.remove))
        if budget.remove > len(chosen):
            why = f"{unfitted(analysis.layers, asked)}{_undefined(criterion, analysis)}"
            why += kept_by(analysis.layers, protected)
            raise too_many(bench, budget.remove, len(chosen), analysis.layers, why)
    elif budget.targets:
        chosen = search.run(ranking)
    else:
        chosen = list(ranking)
    if not chosen:
        return Plan(criterion, bench.digest, (), no_candidates(context, asked, criterion, budget))
    if losses is None or budget.max_drop is None:
        return plan_of(bench, criterion, chosen)
    trial = Trial(bench, criterion, chosen, budget.max_drop, progress)
    least = LeastLoss()
    removals = Removals(trial, least.watched(losses.plain))
    if losses.repaired is None:
        found = trial.plan(removals.all())
    else:
        while removals.unbroken and not removals.done:
            removals.advance()
        beginning = chosen[: longest(trial, least.watched(losses.repaired), len(removals.kept))]
        # Without repair more may go, of layers further down; that is followed only as long as it can be so.
        gone = removed_parameters(beginning)
        while not removals.done and removals.most >= gone:
            removals.advance()
        fewer = removed_parameters(removals.kept) < gone
        found = trial.plan(beginning if fewer else removals.kept)
    return found if found.steps else replace(found, reason=least.words(budget.max_drop, bench.data.synthetic))


def no_candidates(
    context: CriterionContext, allowed: Callable[[Layer], bool], criterion: str, budget: Budget
) -> str:
    """Why no layer is a candidate, and what would make one of some."""
    if budget.remove == 0:
        return "0 layers were asked for"
    analysis = context.analysis
    if budget.threshold is not None:
        return f"no layer that can go scores at least {budget.threshold:g}; a lower @threshold takes more"
    why = f"{unfitted(analysis.layers, allowed)}{_undefined(criterion, analysis)}"
    kept = "; @protect keeps what could be removed" if budget.protect and not why else ""
    return f"no layer is a candidate{why}{kept}"


def _plan_of_sets(
    search: SetSearch,
    context: CriterionContext,
    budget: Budget,
    losses: Losses | None,
    progress: Progress | None,
) -> Plan:
    """The plan of the cheapest set within a budget, made smaller until the loss is tolerable."""
    if budget.threshold is not None:
        chosen = search.above(budget.threshold)
    elif budget.remove is not None:
        chosen = search.of_count(budget.remove, context.analysis.layers)
    elif budget.targets:
        chosen = search.within(budget.targets)
    else:
        chosen = search.of_count(search.largest, context.analysis.layers)
    if losses is None or budget.max_drop is None or not chosen:
        return plan_of(search.bench, search.criterion, chosen)
    least = LeastLoss()
    loss = least.watched(losses.repaired or losses.plain)
    found = search.tolerated(chosen, loss, budget.max_drop, progress)
    synthetic = search.bench.data.synthetic
    return found if found.steps else replace(found, reason=least.words(budget.max_drop, synthetic))


def _undefined(criterion: str, analysis: Analysis) -> str:
    """Words for the layers that the criterion leaves out since their similarity is undefined."""
    count = sum(map(isnan, analysis.adjacent))
    if not criterion.startswith("redtest") or not count:
        return ""
    layers = "1 layer" if count == 1 else f"{count} layers"
    return f"; similarity is undefined for {layers}, @criterion=tail asks for none"


def protected_by(layers: Sequence[Layer], protect: Sequence[str]) -> Callable[[Layer], bool]:
    """Whether a layer may go: those whose names, or a part's, a glob fits may not.

    Raises:
        InputError: a glob matches no layer.
    """

    def fits(layer: Layer, pattern: str) -> bool:
        return any(fnmatchcase(name, pattern) for name in (layer.name, *(p.name for p in layer.parts)))

    for pattern in protect:
        if not any(fits(layer, pattern) for layer in layers):
            raise InputError(
                f"@protect {pattern!r} matches no layer",
                hint=f"`inspect` lists the layers, such as {layers[-1].name!r}",
            )
    return lambda layer: not any(fits(layer, pattern) for pattern in protect)
