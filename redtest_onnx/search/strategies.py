"""Which architecture to look at next."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Literal, Protocol, get_args

import numpy as np

from redtest_onnx.errors import InputError
from redtest_onnx.search.space import Enumerable, Space, mutate, sample

StrategyName = Literal["random", "evolution", "tpe", "all"]
STRATEGIES: tuple[StrategyName, ...] = get_args(StrategyName)


class Strategy(Protocol):
    """Proposes architectures. What it proposes follows from the seed and from what it was told, in order."""

    def ask(self) -> str:
        """The next architecture; it may have been proposed before."""

    def tell(self, architecture: str, fitness: float | None) -> None:
        """How good a proposal was; None if it has no score. Once per proposal, in the order of asking."""


class RandomSearch:
    """Every choice uniform, whatever came out before; of a list, each architecture once before any twice."""

    def __init__(self, space: Space, seed: int) -> None:
        self._space, self._rng = space, np.random.default_rng(seed)
        self._order: list[str] = []

    def ask(self) -> str:
        """A random architecture."""
        if not isinstance(self._space, Enumerable):
            return sample(self._space, self._rng)
        if not self._order:
            self._order = list(self._rng.permutation(self._space.names))
        return str(self._order.pop())

    def tell(self, architecture: str, fitness: float | None) -> None:
        """Nothing is learned."""


class Enumeration:
    """Every architecture of a list, in its order; afterwards the last one again and again."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names, self._next = tuple(names), 0

    def ask(self) -> str:
        """The next one."""
        name = self._names[min(self._next, len(self._names) - 1)]
        self._next += 1
        return name

    def tell(self, architecture: str, fitness: float | None) -> None:
        """Nothing is learned."""


class RegularisedEvolution:
    """Mutations of the best of a few, among the youngest that came out (Real et al., arXiv 1802.01548).

    Args:
        space: where to search.
        seed: of all choices.
        population: how many of the last architectures live; as many random ones begin.
        tournament: how many of them a parent is the best of.
    """

    def __init__(self, space: Space, seed: int, *, population: int, tournament: int) -> None:
        self._space, self._rng = space, np.random.default_rng(seed)
        self._begin, self._tournament = population, tournament
        self._living: deque[tuple[float, str]] = deque(maxlen=population)

    def ask(self) -> str:
        """A random architecture in the beginning and with nothing alive, else a child."""
        if self._begin > 0 or not self._living:
            self._begin -= 1
            return sample(self._space, self._rng)
        drawn = self._rng.integers(len(self._living), size=self._tournament)
        _, parent = max(self._living[i] for i in drawn)
        return mutate(self._space, parent, self._rng)

    def tell(self, architecture: str, fitness: float | None) -> None:
        """The architecture joins, the oldest leaves; without a score it does not live."""
        if fitness is not None:
            self._living.append((fitness, architecture))


class TreeParzen:
    """Optuna's tree-structured Parzen estimator over the choices of the space."""

    def __init__(self, space: Space, seed: int) -> None:
        optuna = _optuna()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._space = space
        self._choices = {
            name: optuna.distributions.CategoricalDistribution(values)
            for name, values in space.choices.items()
        }
        sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        self._study = optuna.create_study(direction="maximize", sampler=sampler)
        self._failed = optuna.trial.TrialState.FAIL
        self._asked: deque[Any] = deque()

    def ask(self) -> str:
        """Where the estimator expects improvement."""
        trial = self._study.ask(self._choices)
        self._asked.append(trial)
        return self._space.spell(trial.params)

    def tell(self, architecture: str, fitness: float | None) -> None:
        """The oldest trial under way has ended."""
        trial = self._asked.popleft()
        if fitness is None:
            self._study.tell(trial, state=self._failed)
        else:
            self._study.tell(trial, fitness)


def make_strategy(
    name: StrategyName, space: Space, seed: int, *, population: int, tournament: int
) -> Strategy:
    """A strategy by its name.

    Raises:
        InputError: Optuna is needed and not installed, or the space can't be gone through.
    """
    if name == "evolution":
        return RegularisedEvolution(space, seed, population=population, tournament=tournament)
    if name == "all":
        if not isinstance(space, Enumerable):
            raise InputError(
                "@strategy=all takes every row of a table, and there is none",
                hint="give @metrics or @benchmark",
            )
        return Enumeration(space.names)
    return TreeParzen(space, seed) if name == "tpe" else RandomSearch(space, seed)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise InputError("@strategy=tpe needs Optuna", hint='pip install "redtest-onnx[nas]"') from error
    return optuna
