"""Two linear operators with an activation function between them, solved for the second one's goal together.

The second is solved as it stands. Then the error that it leaves is sent back through it and through the slope
of the function: that is what the first would have to add. Its least-squares fit to that wish, weighed by what
its channels do to the goal, is the step; how far to go along it is tried out. Both solutions alternate (a
Gauss-Newton step with a Kronecker-factored curvature, one closed-form solve at a time).

What the first operator reads never changes, and what it gives is linear in the step: its outputs are held in
memory and moved along, so that neither it nor anything in front of it runs again.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, replace
from threading import Lock
from typing import TypeVar

import numpy as np

from redtest_onnx.arrays import Float32s, Float64s, Numbers
from redtest_onnx.graph.linear_operators import LinearOperator
from redtest_onnx.graph.model import Model
from redtest_onnx.pruning.repair.equations import Correction, Equations, inverse_scale
from redtest_onnx.pruning.repair.known import KnownValues
from redtest_onnx.pruning.repair.operator_models import (
    RESULT,
    SOURCE,
    WEIGHT,
    backward_model,
    effective_weight,
    forward_model,
    input_metric,
)
from redtest_onnx.pruning.repair.operator_rows import spatial
from redtest_onnx.pruning.repair.pairs import PairValues, is_rectifier
from redtest_onnx.pruning.repair.partial_runner import Part, PartialRunner, for_size
from redtest_onnx.pruning.repair.positions import counted_rows, silenced
from redtest_onnx.pruning.repair.working_model import WorkingModel
from redtest_onnx.runtime.session import Session
from redtest_onnx.runtime.threads import in_threads

Result = TypeVar("Result")

_LENGTHS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0)
_FIRST_LENGTH = 2
_DAMPING = 1.0  # of the curvature, relative to its mean
_TRIED_ON = 256  # samples that choose the length of a step
_LEAST_GAIN = 0.998  # of the error that the round before left: what gains less is the last round
_SLOPE_STEP = 1e-2  # small beside activations of order one, large beside float32's rounding


class JointRefit:
    """Rounds of solving two operators together.

    Args:
        runner: the pruned model, in front of the first operator.
        working: the same model, whose weights change.
        pair: the first and the second operator.
        values: what the first reads and gives.
        goal: gives the second operator's goals by run.
        density: rows per unknown.
        known: holds the sessions of operators that other pairs have in common.
    """

    def __init__(
        self,
        runner: PartialRunner,
        working: WorkingModel,
        pair: tuple[LinearOperator, LinearOperator],
        values: PairValues,
        goal: Callable[[int], Numbers],
        density: int,
        known: KnownValues | None = None,
    ) -> None:
        self._runner, self._working, self._values, self._goal = runner, working, values, goal
        self._first, self._second = pair
        self._options, self._density, self._known = runner.options, density, known or KnownValues()
        self._samples = sum(runner.counts[: len(values.inner)])
        self._equations = Equations(self._first, self._samples, runner.options, density=density, seed=1)
        self._function: Part | None = None
        self._rectifies = is_rectifier(runner.model, self._first.target, self._second.input)
        self._sessions: dict[tuple[Hashable, ...], Session] = {}
        self._workers = 1
        self._opening = Lock()  # of sessions, by the first run that needs them

    def rounds(self, count: int) -> int:
        """Alternate between both operators; returns how many rounds brought something."""
        before = np.inf
        changed = True
        for done in range(count):
            if changed:
                behind = self._runner.part([self._second.input, self._second.target], self._given(0))
                self._workers = behind.workers
            left = self._step(behind)
            if left is None:
                return done
            changed = self._solve_second(behind)
            if left > _LEAST_GAIN * before:
                return done + 1
            before = left
        return count

    def _given(self, run: int, inner: Numbers | None = None) -> dict[str, Numbers]:
        return {self._first.target: self._values.inner[run] if inner is None else inner}

    def _step(self, behind: Part) -> float | None:
        """Move the first operator along its answer to the error the second leaves; what is left of that.

        None, and nothing is moved, where that doesn't help.
        """
        found = self._answer(behind)
        if found is None:
            return None
        fit, curvature, errors = found
        step = _weighed(fit, curvature, self._first)
        usable = self._first.scale * inverse_scale(self._first.scale)
        weight, bias = step.weight * usable[:, None], step.bias * usable
        moves = list(self._each(lambda k: self._moved(k, weight, bias), len(errors)))
        length, left = self._length(behind, moves)
        if not left < sum(errors):
            return None
        self._working.correct(self._first, length * weight, length * bias)

        def moved(k: int) -> Numbers:
            move = moves[k] if k < len(moves) else self._moved(k, weight, bias)
            return _along(self._values.inner[k], move, length)

        self._values.inner[:] = self._each(moved)
        return left

    def _each(self, function: Callable[[int], Result], count: int | None = None) -> Iterator[Result]:
        """Results of a function for each run, or for the first ones."""
        runs = range(len(self._values.inner) if count is None else count)
        return in_threads(function, runs, self._workers)

    def _answer(self, behind: Part) -> tuple[Correction, Float64s, list[float]] | None:
        """The fit to what the second operator asks of the first, the curvature, and errors of some runs."""
        weight = effective_weight(self._second, self._working.weight(self._second))
        kernel = weight.astype(np.float32)
        self._equations.start_again()
        moments: list[Float64s] = []
        errors: list[float] = []
        seen = 0
        for k, asked in enumerate(self._each(lambda run: self._asked(run, behind, kernel))):
            if asked is None:
                return None
            count = self._runner.counts[k]
            read = self._runner.counting(self._values.inputs[k], k)
            if not self._equations.add(read, asked.wish, self._runner.counted(k)):
                return None
            if seen < _TRIED_ON:
                errors.append(asked.error)
            seen += count
            moments.append(asked.moments)
        fit = self._equations.solve()
        if fit is None:
            return None
        return fit, input_metric(self._second, weight) * np.mean(moments, axis=0), errors

    def _asked(self, run: int, behind: Part, kernel: Float32s) -> _Asked | None:
        """What one run asks of the first operator; None if shapes don't fit."""
        second, counted = self._second, self._runner.counted(run)
        now = behind(run, self._given(run))
        between = now[second.input]
        if self._values.inner[run].shape != between.shape:
            return None
        target = self._runner.counting(now[second.target], run)
        error = silenced((self._goal(run).astype(np.float32) - target).astype(np.float32), counted)
        slopes = self._runner.counting(self._slopes(run), run)
        with np.errstate(over="ignore", invalid="ignore"):  # rows whose wish is not finite are left out
            wish = self._back(error, kernel, between).reshape(slopes.shape) * slopes
        channels = np.moveaxis(slopes, 1 if second.geometry else -1, -1)
        kept = None if second.geometry else counted_rows(channels, counted)
        rows = channels.reshape(-1, channels.shape[-1]) if kept is None else channels[kept]
        return _Asked(wish, _energy(error), (rows.T @ rows).astype(np.float64) / len(rows))

    def _back(self, error: Float32s, kernel: Float32s, between: Numbers) -> Float32s:
        """The error behind the second operator, sent back through it."""
        size = out = ()
        if self._second.geometry is not None:
            error, size = spatial(error), spatial(between).shape[2:]
            out = error.shape[2:]
        session = self._session(
            ("backward", self._second.geometry, self._second.groups, size, out),
            error.nbytes + between.nbytes,
            lambda: self._opened(backward_model(self._second, size, out), error),
        )
        found: Float32s = session.run({SOURCE: error, WEIGHT: kernel})[RESULT]
        return found

    def _session(self, key: tuple[Hashable, ...], size: int, make: Callable[[], Session]) -> Session:
        """That of an operator for images or texts of one size; runs may be of several."""
        with self._opening:
            found = self._sessions.get(key)
            if found is None:
                found = self._sessions[key] = self._known.session(key, size, make)
            return found

    def _slopes(self, run: int) -> Float32s:
        """Slope of the function at the first operator's outputs, by central differences."""
        inner, ends = self._values.inner[run], []
        if self._rectifies and inner.dtype.kind == "f":  # a ramp from 0 to 1 as wide as the difference
            ramp = inner.astype(np.float32)
            ramp += np.float32(_SLOPE_STEP)
            np.clip(ramp, 0, np.float32(2 * _SLOPE_STEP), out=ramp)
            ramp /= np.float32(2 * _SLOPE_STEP)
            return ramp
        for shift in (_SLOPE_STEP, -_SLOPE_STEP):
            moved = (inner.astype(np.float32) + np.float32(shift)).astype(inner.dtype)
            ends.append(self._applied(run, moved).astype(np.float32))
        slope: Float32s = (ends[0] - ends[1]) / np.float32(2 * _SLOPE_STEP)
        return slope

    def _opened(self, model: Model, fed: Numbers) -> Session:
        options = for_size(self._options, [fed.nbytes])
        options = options if self._workers == 1 else replace(options, threads=1)
        return Session(model, options, use="beside")

    def _applied(self, run: int, inner: Numbers) -> Numbers:
        """The function between the operators, at other outputs of the first."""
        with self._opening:
            if self._function is None:
                self._function = self._runner.part([self._second.input], self._given(0))
        found: Numbers = self._function(run, self._given(run, inner))[self._second.input]
        return found

    def _moved(self, run: int, weight: Float64s, bias: Float64s) -> Float32s:
        """What the first operator gives more after a whole step, of one run."""
        x, inner = self._values.inputs[run].astype(np.float32), self._values.inner[run]
        geometry = self._first.geometry
        size = out = ()
        kernel = weight.astype(np.float32)
        if geometry is not None:
            x, size, out = spatial(x), spatial(x).shape[2:], spatial(inner).shape[2:]
            kernel = kernel.reshape(len(kernel), -1, *geometry.kernel)
        session = self._session(
            ("forward", geometry, self._first.groups, size, out),
            x.nbytes + inner.nbytes,
            lambda: self._opened(forward_model(self._first, size, out), x),
        )
        found: Float32s = session.run({SOURCE: x, WEIGHT: kernel})[RESULT]
        found += bias.astype(np.float32).reshape(-1, *[1] * len(out))
        return found.reshape(inner.shape)

    def _length(self, behind: Part, moves: list[Float32s]) -> tuple[float, float]:
        """How many steps serve the goal best on the runs that are tried, and the error that is left then.

        Errors along a step have one valley: lengths are tried from the middle one on, downhill.
        """

        def left(run: int, length: float) -> float:
            inner = _along(self._values.inner[run], moves[run], length)
            target = behind(run, self._given(run, inner))[self._second.target]
            error = self._goal(run).astype(np.float32) - self._runner.counting(target, run)
            return _energy(silenced(error, self._runner.counted(run)))

        def tried(length: float) -> float:
            total = sum(self._each(lambda run: left(run, length), len(moves)))
            return total if np.isfinite(total) else np.inf

        known = {_FIRST_LENGTH: tried(_LENGTHS[_FIRST_LENGTH])}
        best = _FIRST_LENGTH
        for direction in (1, -1):
            while 0 <= best + direction < len(_LENGTHS):
                known[best + direction] = tried(_LENGTHS[best + direction])
                if not known[best + direction] < known[best]:
                    break
                best += direction
            if best != _FIRST_LENGTH:
                break
        return _LENGTHS[best], known[best]

    def _solve_second(self, behind: Part) -> bool:
        """Solve the second operator for what the first gives now; whether its weights changed."""
        equations = Equations(self._second, self._samples, self._options, density=self._density)

        def rows(run: int) -> tuple[Numbers, Numbers]:
            now, second = behind(run, self._given(run)), self._second
            read, target = (self._runner.counting(now[n], run) for n in (second.input, second.target))
            return read, self._goal(run).astype(np.float32) - target

        for k, (read, error) in enumerate(self._each(rows)):
            if not equations.add(read, error, self._runner.counted(k)):
                return False
        correction = equations.solve()
        if correction is None:
            return False
        self._working.correct(self._second, correction.weight, correction.bias)
        return True


@dataclass(frozen=True, eq=False)
class _Asked:
    """What one run asks of the first operator: changes of its target, for an error of the second one's.

    Attributes:
        wish: changes, in the shape of the first operator's target.
        error: sum of squares of what the second operator misses.
        moments: [C, C] of the slopes of the function between them.
    """

    wish: Numbers
    error: float
    moments: Float64s


@dataclass(frozen=True)
class _Step:
    """A direction for the first operator of a pair: [M, p] and [M] at its target."""

    weight: Float64s
    bias: Float64s


def _weighed(fit: Correction, curvature: Float64s, first: LinearOperator) -> _Step:
    """The fit in the metric of what the channels do: less where they do much already."""
    mean = float(np.trace(curvature)) / len(curvature)
    if mean <= 0:
        return _Step(fit.weight, fit.bias)
    damped = curvature / mean + _DAMPING * np.eye(len(curvature))
    if first.groups > 1:
        # Channels of different groups read different inputs, and can't be mixed.
        damped = np.diag(np.diagonal(damped))
    inverse = np.linalg.inv(damped)
    return _Step(inverse @ fit.weight / mean, inverse @ fit.bias / mean)


def _along(inner: Numbers, move: Float32s, length: float) -> Numbers:
    """Outputs after so many steps, in their own type."""
    return np.asarray(inner + np.float32(length) * move, inner.dtype)


def _energy(values: Numbers) -> float:
    """Sum of squares, in float64."""
    flat = values.reshape(-1)
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.sum(np.square(flat, dtype=np.float64)))
