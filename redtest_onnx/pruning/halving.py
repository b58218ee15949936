"""How far down a ranking layers can go within a limit, in few tries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import ceil, inf

from redtest_onnx.pruning.criteria.base import ScoredLayer
from redtest_onnx.pruning.plan import Plan
from redtest_onnx.pruning.targets import plan_of
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analyze import Progress

PATIENCE = 8
"""Layers in a row that may fail before those behind them, which rank lower, are given up."""
_BEARABLE = 0.2  # a loss above is nothing to advise


@dataclass(frozen=True)
class Trial:
    """What is tried.

    Attributes:
        bench: the original.
        criterion: what ranked the candidates.
        candidates: layers, first to go first.
        max_drop: largest loss that is tolerated.
        progress: called after every try.
    """

    bench: Workbench
    criterion: str
    candidates: Sequence[ScoredLayer]
    max_drop: float
    progress: Progress | None = None

    def plan(self, chosen: Iterable[ScoredLayer]) -> Plan:
        """The plan that takes out some candidates."""
        return plan_of(self.bench, self.criterion, chosen)


class LeastLoss:
    """Remembers which try cost least, to be told where none was good enough."""

    def __init__(self) -> None:
        self._least = inf
        self._plan: Plan | None = None

    def watched(self, loss: Callable[[Plan], float]) -> Callable[[Plan], float]:
        """The same loss, looked at as it is asked for."""

        def watch(plan: Plan) -> float:
            found = loss(plan)
            if found < self._least:
                self._least, self._plan = found, plan
            return found

        return watch

    def words(self, limit: float, synthetic: bool) -> str:
        """What the best try costs, and what to try."""
        most = "1 point" if limit == 0.01 else f"{100 * limit:.3g} points"
        advice = "@remove=1 takes one whatever it costs"
        if synthetic:
            advice += ", and real samples (@data) allow repairs, which cost less"
        if self._plan is None:
            return f"every removal that was tried costs more than {most}, the limit; {advice}"
        names = ", ".join(step.region for step in self._plan.steps)
        if self._least < _BEARABLE:
            advice = f"@max_drop={ceil(self._least * 100) / 100:g} allows it, {advice}"
        return (
            f"without {names}, which costs least of what was tried, {100 * self._least:.1f} points are lost "
            f"and {most} may be; {advice}"
        )


class Removals:
    """Candidates that can go together: each in turn, unless it costs too much with those kept before it.

    Groups are tried that double while they fit and are halved when they don't, which finds what single steps
    find if a layer more never loses less, in about 2 log2(n) tries where long runs fit. After eight layers in
    a row that don't fit the rest is left.

    Args:
        trial: what is tried.
        loss: what a plan loses.

    Attributes:
        kept: the candidates that go, as far as they are known.
    """

    def __init__(self, trial: Trial, loss: Callable[[Plan], float]) -> None:
        self._trial, self._loss = trial, loss
        self.kept: list[ScoredLayer] = []
        self._position, self._size, self._failures = 0, 1, 0

    @property
    def done(self) -> bool:
        """Whether nothing is left to be tried."""
        return self._position >= len(self._trial.candidates) or self._failures >= PATIENCE

    @property
    def unbroken(self) -> bool:
        """Whether no candidate was turned down so far, so that those kept are the first of the ranking."""
        return len(self.kept) == self._position

    @property
    def most(self) -> int:
        """Parameters that go at most, if all that are still to be tried go with those kept."""
        return removed_parameters(self.kept) + sum(
            max(removed_parameters([item]), 0) for item in self._trial.candidates[self._position :]
        )

    def advance(self) -> None:
        """Try the next group."""
        candidates = self._trial.candidates
        group = candidates[self._position : self._position + self._size]
        if self._loss(self._trial.plan([*self.kept, *group])) <= self._trial.max_drop:
            self.kept.extend(group)
            self._position, self._size, self._failures = self._position + len(group), 2 * self._size, 0
        elif len(group) > 1:
            self._size = len(group) // 2
        else:
            self._position, self._failures = self._position + 1, self._failures + 1
        if self._trial.progress:
            self._trial.progress(self._position, len(candidates), "trying removals")

    def all(self) -> list[ScoredLayer]:
        """All that can go together."""
        while not self.done:
            self.advance()
        return self.kept


def removed_parameters(chosen: Iterable[ScoredLayer]) -> int:
    """Learned values that go with some layers, less those of adapters in their place."""
    return sum(item.layer.parameters - item.layer.added_parameters for item in chosen)


def longest(trial: Trial, loss: Callable[[Plan], float], sure: int = 0) -> int:
    """Length of the longest beginning of the ranking that stays tolerable, found by bisection.

    Where nothing is sure, the first candidate alone is tried first: if it doesn't fit, none will.

    Args:
        trial: what is tried.
        loss: what a plan loses.
        sure: a length that is known to be tolerable.
    """
    good, bad, tries = 0, len(trial.candidates) + 1, 0

    def fits(length: int) -> bool:
        nonlocal tries
        found = loss(trial.plan(trial.candidates[:length])) <= trial.max_drop
        tries += 1
        if trial.progress:
            trial.progress(tries, tries + (bad - good - 1).bit_length() - 1, "trying removals with repair")
        return found

    if trial.candidates and not sure:
        if not fits(1):
            return 0
        sure = 1
    while bad - good > 1:
        middle = (good + bad) // 2
        if middle <= sure or fits(middle):
            good = middle
        else:
            bad = middle
    return good
