"""Repair without training: solve the remaining linear operators again for what the original computed.

Taking a region out changes what all later operators read. Walking them in order, each is given the
least-squares correction that brings the tensor its output enters (behind bias, normalisation and shortcut) as
near as it can to the original's. Where regions were taken out, the operator before the gap aims at what came
out behind it, so that it takes over part of their work; and where an activation function lies between two
operators, both are solved together. No parameter is added.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import accumulate
from threading import Lock
from typing import Literal, NamedTuple

import numpy as np

from redtest_onnx.arrays import Indices, Values
from redtest_onnx.graph.index import GraphIndex, index_of
from redtest_onnx.graph.linear_operators import LinearOperator
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.subgraph import live
from redtest_onnx.pruning.apply import AdapterInsertion
from redtest_onnx.pruning.narrowing import TakeChannels, taken_channels
from redtest_onnx.pruning.plan import Plan
from redtest_onnx.pruning.repair.equations import CHECK_EVERY, FINAL_ROWS, Correction, Equations
from redtest_onnx.pruning.repair.joint import JointRefit
from redtest_onnx.pruning.repair.known import KnownValues
from redtest_onnx.pruning.repair.pairs import HELD_SHARE, PairValues, upstream_operator
from redtest_onnx.pruning.repair.partial_runner import Part, PartialRunner, samples_per_fit
from redtest_onnx.pruning.repair.targets import changed_tensors, gap_goals, is_only_rectified, is_reached
from redtest_onnx.pruning.repair.working_model import WorkingModel, shared_operators
from redtest_onnx.runtime.session_room import SPARED, is_large, make_room, return_memory
from redtest_onnx.runtime.threads import one_blas_thread
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analyze import Progress

Scope = Literal["all", "gaps"]

log = logging.getLogger(__name__)

ROUNDS = 3  # of solving two operators together; more gain little
_GOAL_SHARE = 12  # of the memory for what is kept; larger goals are computed anew in every round


@dataclass(frozen=True)
class Refit:
    """One operator that was refitted.

    Attributes:
        operator: name of its node.
        explained: share of the error at its target that the first correction takes away.
        condition: condition number of that fit; None where it wasn't asked for.
        rank: directions of its input that carry information; None likewise.
        unknowns: size of its input.
        rows: equations.
        rounds: how often it was solved together with the operator in front of it.
    """

    operator: str
    explained: float
    condition: float | None
    rank: int | None
    unknowns: int
    rows: int
    rounds: int = 0


@dataclass(frozen=True, eq=False)
class Effort:
    """How much is done for a fit.

    Attributes:
        rounds: how often two operators with an activation function between them are solved together.
        density: rows per unknown.
        known: what other fits of the same original on the same samples have found; nothing if None.
        diagnose: whether the condition of each fit is found out, which takes as long as to solve it.
        untie: whether operators that share their weights get their own; else they stay as they are.
    """

    rounds: int = ROUNDS
    density: int = FINAL_ROWS
    known: KnownValues | None = None
    diagnose: bool = True
    untie: bool = True


@one_blas_thread(solvers=True)
def refit(
    bench: Workbench,
    pruned: AdapterInsertion,
    plan: Plan,
    indices: Indices,
    *,
    scope: Scope = "all",
    effort: Effort | None = None,
    progress: Progress | None = None,
) -> tuple[Model, tuple[Refit, ...]]:
    """Solve the linear operators of a pruned model again.

    Args:
        bench: the model before and calibration samples; labels are not used.
        pruned: the model without the plan's layers.
        plan: what was taken out.
        indices: which of the samples.
        scope: "all" operators that see other values than before, or only those in front of "gaps".
        effort: how much is done for the fits.
        progress: called after each operator.

    Returns:
        The repaired model and what was done to each operator.
    """
    effort = effort or Effort()
    known = effort.known or KnownValues()
    effort = replace(effort, known=known)
    if large := is_large(bench.model, SPARED):
        make_room(bench.model, SPARED)
    working = WorkingModel(pruned.model)
    old_index, index = bench.index, working.index
    goals = gap_goals(old_index, plan, pruned.exits)
    taken = taken_channels(bench.model, plan)
    changed = changed_tensors(old_index, index_of(pruned.model), taken)
    tied = set() if effort.untie else shared_operators(pruned.model)
    operators = [operator for operator in working.operators if operator.node not in tied]
    by_target = {operator.target: operator for operator in operators}
    in_scope: dict[Scope, Callable[[LinearOperator], bool]] = {
        "all": lambda operator: operator.input in changed or operator.target in goals,
        "gaps": lambda operator: operator.target in goals,
    }
    todo = [operator for operator in operators if in_scope[scope](operator)]
    firsts = [upstream_operator(index, operator, by_target) if effort.rounds else None for operator in todo]
    starts = [(first or operator).node for first, operator in zip(firsts, todo, strict=True)]
    # Nothing in front of an operator that is still to be changed may be left behind.
    frontier = list(accumulate(reversed(starts), min))[::-1]
    size = min(samples_per_fit(bench), -(-len(indices) // CHECK_EVERY))
    before, now = (
        PartialRunner(side, indices, size=size) for side in (bench, bench.successor(working.model))
    )
    if progress:
        progress(0, len(todo), "repairing")  # the first pass takes a while
    if todo and bench.model.renamed is None and working.model.renamed is None:
        unchanged = changed.isdisjoint(live(index, frontier[0]))
        if unchanged and frontier[0] > 0:
            now.follow(before, _position(old_index, index, frontier[0]), frontier[0])
    done: list[Refit] = []
    for k, (operator, first) in enumerate(zip(todo, firsts, strict=True)):
        reached = _position(old_index, index, frontier[k])
        aim = goals.get(operator.target, operator.target)
        goal = _Goals(before, aim, reached, taken.get(aim), known)
        found = _refit_one(_Front(now, frontier[k]), working, (first, operator), goal, effort)
        if found is not None:
            name = index.nodes[operator.node].name or operator.output
            done.append(record(name, *found))
            log.info("refit %s: %.1f %% of the error explained", name, 100 * found[0].explained)
        goal.hand_on()
        del goal  # and what it keeps, before the next
        if large:
            return_memory()
        if progress:
            progress(k + 1, len(todo), "repairing")
    return working.result(), tuple(done)


def _position(original: GraphIndex, pruned: GraphIndex, node: int) -> int:
    """The node of the original that makes what one of the pruned graph makes; the first if none does."""
    return original.producer.get(pruned.nodes[node].output[0], 0)


class _Front(NamedTuple):
    """A model on its samples, and the node up to which nothing in front will change any more."""

    runner: PartialRunner
    node: int


class _Goals:
    """What an operator should hit, by run, from the original on the same samples.

    Args:
        runner: the original.
        tensor: what is hit.
        node: up to where the original goes on, once all runs were asked for in turn.
        take: takes the channels of it that are left; all if None.
        known: what earlier fits found, and later ones will find here.
    """

    def __init__(
        self,
        runner: PartialRunner,
        tensor: str,
        node: int,
        take: TakeChannels | None = None,
        known: KnownValues | None = None,
    ) -> None:
        self._runner, self._tensor = runner, tensor
        self._take, self._known = take, known or KnownValues()
        self._in_turn = runner.values([tensor], advance_to=node)
        self._part: Part | None = None
        self._kept: dict[int, Values] = {}
        self._size = 0
        self._next = 0
        self._lock = Lock()  # runs are asked for by several threads

    def __call__(self, run: int) -> Values:
        with self._lock:
            return self._found(run)

    def _found(self, run: int) -> Values:
        goal: Values | None = self._kept.get(run)
        if goal is None:
            goal = self._known.value(self._tensor, run)
            if goal is None:
                goal = self._compute(run)
                self._known.keep(self._tensor, run, goal)
            goal = goal if self._take is None else self._take(goal)
            self._size += goal.nbytes
            if self._size <= self._runner.options.memory // _GOAL_SHARE:
                self._kept[run] = goal
        counting: Values = self._runner.counting(goal, run)
        return counting

    def _compute(self, run: int) -> Values:
        """Of the pass through all runs while it is at this one; else of a part that starts behind it."""
        if run == self._next:
            self._next += 1
            found = np.asarray(next(self._in_turn)[self._tensor])
            if self._next == len(self._runner.counts):
                self._in_turn.close()  # and with it the session of a long part
            return found
        self._part = self._part or self._runner.part([self._tensor])
        return np.asarray(self._part(run)[self._tensor])

    def hand_on(self) -> None:
        """Let the original go on from the goals, as far as they are kept and whole."""
        if self._take is not None:
            return
        self._runner.keep(self._tensor, [self._kept[run] for run in sorted(self._kept)])


def _refit_one(
    front: _Front,
    working: WorkingModel,
    pair: tuple[LinearOperator | None, LinearOperator],
    goal: _Goals,
    effort: Effort,
) -> tuple[Correction, int] | None:
    """Solve an operator again, then together with the one in front of it, if there is one.

    Returns:
        The first correction, and how often both were solved together; None where nothing helps.
    """
    first, operator = pair
    values = PairValues(front.runner.options.memory // HELD_SHARE)
    correction = _solve(front, working.index, pair, goal, values, effort)
    if correction is None:
        return None
    working.correct(operator, correction.weight, correction.bias)
    if first is None or not values.inner:
        return correction, 0
    joint = JointRefit(front.runner, working, (first, operator), values, goal, effort.density, effort.known)
    rounds = joint.rounds(effort.rounds)
    front.runner.keep(first.target, values.inner)
    return correction, rounds


def _solve(
    front: _Front,
    index: GraphIndex,
    pair: tuple[LinearOperator | None, LinearOperator],
    goals: Callable[[int], Values],
    values: PairValues,
    effort: Effort,
) -> Correction | None:
    """The least-squares correction of one operator; None if shapes don't fit or nothing helps.

    What the operator in front of it reads and gives is left in `values`.
    """
    runner, (first, operator) = front.runner, pair
    equations = Equations(operator, sum(runner.counts), runner.options, density=effort.density)
    names = [operator.input, operator.output, operator.target]
    names += [] if first is None else [first.input, first.target]
    runs = runner.values(names, advance_to=front.node)
    rectified = is_only_rectified(index, operator.target)
    reached = True
    for k, found in enumerate(runs):
        goal = goals(k)
        x, output, now = (runner.counting(found[name], k) for name in names[:3])
        if now.shape != goal.shape or output.shape != now.shape:
            return None
        reached = reached and is_reached(goal, now, rectified=rectified)
        if first is not None:
            values.hold(found[first.input], found[first.target], first, effort.density)
        if not equations.add(x, goal - now, runner.counted(k)):
            return None
    # A fit to what rounding alone leaves would turn weights that are right.
    return None if reached else equations.solve(diagnose=effort.diagnose)


def record(name: str, fit: Correction, rounds: int) -> Refit:
    """What was done to an operator."""
    known = fit.diagnosis
    condition, rank = (None, None) if known is None else (known.condition, known.rank)
    return Refit(name, fit.explained, condition, rank, fit.unknowns, fit.rows, rounds)
