"""The loop of a search: propose, evaluate, store, learn; the same table however often it is interrupted."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from redtest_onnx.engines.base import Engine, Work
from redtest_onnx.engines.run import EngineOptions
from redtest_onnx.ranking.candidate import MeasuredCandidate
from redtest_onnx.search.space import Space
from redtest_onnx.search.store import Failure, Outcome, Store
from redtest_onnx.search.strategies import Strategy
from redtest_onnx.similarity.analyze import Progress

_PATIENCE = 2000  # proposals in a row that are all known: the space is used up

Fitness = Callable[[MeasuredCandidate], float | None]
OutcomeReport = Callable[[int, Outcome], None]
"""Takes the position of an architecture among the proposals, and what came out."""


@dataclass(frozen=True, eq=False)
class SearchProblem:
    """What is searched, and how.

    Attributes:
        space: the architectures.
        strategy: proposes them; fresh, with the seed of the run.
        fitness: what the strategy shall raise.
        window: how many proposals may be open at a time; None for a strategy that learns nothing.
    """

    space: Space
    strategy: Strategy
    fitness: Fitness
    window: int | None = 8


@dataclass(frozen=True)
class SearchBudget:
    """When a search ends.

    Attributes:
        evaluations: number of different architectures.
        seconds: time after which nothing new is begun; None for no limit.
    """

    evaluations: int
    seconds: float | None = None


@dataclass(frozen=True)
class SearchResult:
    """How a search ended.

    Attributes:
        outcomes: all of them, those of earlier runs too, in the order of their proposals.
        evaluated: how many this run added.
        reason: why it ended: "evaluations", "seconds", or "space" if nothing new was left to propose.
    """

    outcomes: tuple[Outcome, ...]
    evaluated: int
    reason: str


def search(
    work: Work[str, MeasuredCandidate],
    problem: SearchProblem,
    store: Store,
    budget: SearchBudget,
    *,
    engine: EngineOptions | None = None,
    progress: Progress | None = None,
    report: OutcomeReport | None = None,
) -> SearchResult:
    """Search a space, going on from what the store holds.

    A strategy is told outcomes in the order of its proposals, each when `window` later ones are open. So
    proposals do not depend on which worker was faster, and a strategy that begins anew on a store
    with results proposes the same ones, whose outcomes are then known: a search that was interrupted ends
    with the table it would have ended with.

    Args:
        work: evaluates an architecture.
        problem: what is searched, and how.
        store: takes the outcomes, each as soon as it is there.
        budget: when to end.
        engine: where the work runs; this process if None.
        progress: called after every outcome.
        report: called with every outcome, those that the store holds already as they are proposed again.
    """
    with (engine or EngineOptions()).open(work) as workers:
        run = _Run(problem, store, budget, workers)
        run.report = report
        while run.propose():
            run.submit()
            if run.running:
                run.collect()
                if progress:
                    progress(min(len(run.outcomes), budget.evaluations), budget.evaluations, "searching")
    return SearchResult(tuple(store.outcomes().values()), run.evaluated, run.reason)


class _Run:
    def __init__(
        self,
        problem: SearchProblem,
        store: Store,
        budget: SearchBudget,
        engine: Engine[str, MeasuredCandidate],
    ) -> None:
        self._space, self._strategy, self._fitness = problem.space, problem.strategy, problem.fitness
        self._store, self._budget, self._window, self._engine = store, budget, problem.window, engine
        self._end = None if budget.seconds is None else monotonic() + budget.seconds
        self._open: deque[tuple[str, str]] = deque()  # proposals not told yet, with their keys
        self._numbers: dict[str, int] = {}  # of every key proposed
        self._queue: deque[tuple[str, str]] = deque()  # to be evaluated
        self._repeats = 0
        self.outcomes = store.outcomes()
        self.running: dict[str, str] = {}  # keys by architecture
        self.evaluated = 0
        self.reason = "evaluations"
        self.report: OutcomeReport | None = None

    def propose(self) -> bool:
        """Ask as far as the window and the budget reach; False when nothing is left to wait for.

        Outcomes are told as late as the window allows, never as soon as they are known: else what is
        proposed would depend on it.
        """
        while self._may_ask():
            if len(self._open) == self._window:
                if self._open[0][1] not in self.outcomes:
                    break
                self._tell(*self._open.popleft())
            architecture = self._strategy.ask()
            key = self._space.key(architecture)
            self._open.append((architecture, key))
            self._repeats = self._repeats + 1 if key in self._numbers else 0
            if key not in self._numbers:
                self._numbers[key] = len(self._numbers)
                if key in self.outcomes:
                    self._tell_of(key)
                else:
                    self._queue.append((architecture, key))
        return bool(self._queue or self.running)

    def submit(self) -> None:
        """Give the engine as much as it can run; after the time limit nothing new."""
        if self._late():
            self._queue.clear()
        while self._queue and len(self.running) < self._engine.slots:
            architecture, key = self._queue.popleft()
            self._engine.submit(architecture)
            self.running[architecture] = key

    def collect(self) -> None:
        """Wait for one outcome and store it."""
        finished = self._engine.wait()
        key = self.running.pop(finished.piece)
        outcome: Outcome = finished.value or Failure(key, finished.piece, finished.error or "")
        self._store.add(self._numbers[key], outcome)
        self.outcomes[key] = outcome
        self.evaluated += 1
        self._tell_of(key)

    def _tell_of(self, key: str) -> None:
        if self.report is not None:
            self.report(self._numbers[key], self.outcomes[key])

    def _may_ask(self) -> bool:
        if len(self._numbers) >= self._budget.evaluations:
            return False
        if self._late():
            self.reason = "seconds"
        elif self._repeats >= _PATIENCE:
            self.reason = "space"
        else:
            return True
        return False

    def _late(self) -> bool:
        return self._end is not None and monotonic() > self._end

    def _tell(self, architecture: str, key: str) -> None:
        outcome = self.outcomes[key]
        score = self._fitness(outcome) if isinstance(outcome, MeasuredCandidate) else None
        self._strategy.tell(architecture, score)
