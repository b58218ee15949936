"""Repair without training: solve the remaining linear operators again for what the original computed.

Taking a region out changes what all later operators read. Walking them in order, each is given the
least-squares correction that brings the tensor its output enters (behind bias, normalisation and shortcut) as
near as it can to the original's. Where regions were taken out, the operator before the gap aims at what came
out behind it, so that it takes over part of their work; and where an activation function lies between two
operators, both are solved together. No parameter is added.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from redtest_onnx.data.batching import Indices
from redtest_onnx.graph.index import index_of
from redtest_onnx.graph.linear_operators import LinearOperator, linear_operators
from redtest_onnx.graph.model import Model
from redtest_onnx.pruning.apply import AdapterInsertion
from redtest_onnx.pruning.plan import Plan
from redtest_onnx.pruning.repair.equations import CHECK_EVERY, Correction, Equations, corrected
from redtest_onnx.pruning.repair.joint import joint_step, line_search, upstream_operator
from redtest_onnx.pruning.repair.partial_runner import PartialRunner
from redtest_onnx.pruning.repair.targets import changed_tensors, gap_goals
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analyze import Progress

Values = npt.NDArray[np.generic]
Scope = Literal["all", "gaps"]

log = logging.getLogger(__name__)

_BATCH = 64
ROUNDS = 3  # of solving two operators together; more gain little
_GOAL_BYTES = 1 << 28  # goals up to this size are kept, larger ones computed anew in every round


@dataclass(frozen=True)
class Refit:
    """One operator that was solved again.

    Attributes:
        operator: name of its node.
        explained: share of the error at its target that the first correction takes away.
        condition: condition number of that fit.
        rank: directions of its input that carry information.
        unknowns: size of its input.
        rows: equations.
        rounds: how often it was solved together with the operator in front of it.
    """

    operator: str
    explained: float
    condition: float
    rank: int
    unknowns: int
    rows: int
    rounds: int = 0


def refit(
    bench: Workbench,
    pruned: AdapterInsertion,
    plan: Plan,
    indices: Indices,
    *,
    scope: Scope = "all",
    rounds: int = ROUNDS,
    progress: Progress | None = None,
) -> tuple[Model, tuple[Refit, ...]]:
    """Solve the linear operators of a pruned model again.

    Args:
        bench: the model before and calibration samples; labels are not used.
        pruned: the model without the plan's layers.
        plan: what was taken out.
        indices: which of the samples.
        scope: "all" operators that see other values than before, or only those in front of "gaps".
        rounds: how often two operators with an activation function between them are solved together.
        progress: called after each operator.

    Returns:
        The repaired model and what was done to each operator.
    """
    old_index, index = bench.index, index_of(pruned.model)
    goals = gap_goals(old_index, plan, pruned.exits)
    changed = changed_tensors(old_index, index)
    operators = linear_operators(pruned.model)
    by_target = {operator.target: operator for operator in operators}
    in_scope: dict[Scope, Callable[[LinearOperator], bool]] = {
        "all": lambda operator: operator.input in changed or operator.target in goals,
        "gaps": lambda operator: operator.target in goals,
    }
    todo = [operator for operator in operators if in_scope[scope](operator)]
    firsts = [upstream_operator(index, operator, by_target) if rounds else None for operator in todo]
    starts = [(first or operator).node for first, operator in zip(firsts, todo, strict=True)]
    # Nothing in front of an operator that is still to be changed may be left behind.
    frontier = list(accumulate(reversed(starts), min))[::-1]
    size = min(_BATCH, -(-len(indices) // CHECK_EVERY))
    before, now = (PartialRunner(side, indices, size=size) for side in (bench, bench.successor(pruned.model)))
    done: list[Refit] = []
    for k, (operator, first) in enumerate(zip(todo, firsts, strict=True)):
        now.advance(frontier[k])
        before.advance(old_index.producer.get(index.nodes[frontier[k]].output[0], 0))
        goal = _Goals(before, goals.get(operator.target, operator.target))
        correction = _solve(now, operator, goal, len(indices))
        if correction is not None:
            now.model = corrected(now.model, operator, correction.weight, correction.bias)
            solved = 0
            if first is not None:
                solved = _together(now, goal, first, operator, len(indices), rounds)
            name = index.nodes[operator.node].name or operator.output
            done.append(replace(_record(name, correction), rounds=solved))
            log.info("refit %s: %.1f %% of the error explained", name, 100 * correction.explained)
        if progress:
            progress(k + 1, len(todo), "repairing")
    return now.model, tuple(done)


class _Goals:
    """What an operator should hit, run by run, from the original on the same samples."""

    def __init__(self, replay: PartialRunner, tensor: str) -> None:
        self._replay, self._tensor = replay, tensor
        self._kept: list[Values] | None = None

    def __call__(self) -> Iterator[Values]:
        if self._kept is not None:
            yield from self._kept
            return
        kept: list[Values] = []
        size = 0
        for values, count in self._replay.values([self._tensor]):
            goal: Values = values[self._tensor][:count]
            size += goal.nbytes
            if size <= _GOAL_BYTES:
                kept.append(goal)
            yield goal
        if size <= _GOAL_BYTES:
            self._kept = kept


def _solve(
    replay: PartialRunner, operator: LinearOperator, goals: Callable[[], Iterator[Values]], samples: int
) -> Correction | None:
    """The least-squares correction of one operator; None if shapes don't fit or nothing helps."""
    equations = Equations(operator, samples)
    names = [operator.input, operator.output, operator.target]
    for (values, count), goal in zip(replay.values(names), goals(), strict=True):
        x, output, now = (values[name][:count] for name in names)
        if now.shape != goal.shape or output.shape != now.shape:
            return None
        if not equations.add(x, goal.astype(np.float64) - now):
            return None
    return equations.solve()


def _together(
    replay: PartialRunner,
    goals: Callable[[], Iterator[Values]],
    first: LinearOperator,
    second: LinearOperator,
    samples: int,
    rounds: int,
) -> int:
    """Alternate between two operators; returns how many rounds brought something."""
    for done in range(rounds):
        step = joint_step(replay, goals, first, second, samples, seed=done + 1)
        model: Any = step and line_search(replay, goals, (first, second), step)
        if model is None:
            return done
        replay.model = model
        correction = _solve(replay, second, goals, samples)
        if correction is not None:
            replay.model = corrected(replay.model, second, correction.weight, correction.bias)
    return rounds


def _record(name: str, fit: Correction) -> Refit:
    return Refit(name, fit.explained, fit.condition, fit.rank, fit.unknowns, fit.rows)
