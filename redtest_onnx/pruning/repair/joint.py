"""Two linear operators with an activation function between them, solved for the second one's goal together.

The second is solved as it stands. Then the error that it leaves is sent back through it and through the slope
of the function: that is what the first would have to add. Its least-squares fit to that wish, weighed by what
its channels do to the goal, is the step; how far to go along it is tried out. Both solutions alternate (a
Gauss-Newton step with a Kronecker-factored curvature, one closed-form solve at a time).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.graph.linear_operators import LinearOperator
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.subgraph import segment
from redtest_onnx.pruning.repair.backward import (
    GRAD_INPUT,
    GRAD_OUTPUT,
    backward_model,
    effective_weight,
    input_metric,
)
from redtest_onnx.pruning.repair.equations import Correction, Equations, corrected, spatial
from redtest_onnx.pruning.repair.partial_runner import PartialRunner
from redtest_onnx.runtime.session import RunOptions, Session

Values = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float64]

log = logging.getLogger(__name__)

_LENGTHS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0)
_DAMPING = 1.0  # of the curvature, relative to its mean
_TRIED_ON = 8  # runs that choose the length of a step
_SLOPE_STEP = 1e-2  # small beside activations of order one, large beside float32's rounding


@dataclass(frozen=True)
class JointStep:
    """A direction for the first operator of a pair: [M, p] and [M] at its target."""

    weight: Floats
    bias: Floats


def upstream_operator(
    index: GraphIndex, second: LinearOperator, operators: dict[str, LinearOperator]
) -> LinearOperator | None:
    """The operator whose target becomes the input of another by a function of single values alone.

    Args:
        index: the graph.
        second: the operator behind the function.
        operators: all operators by target.
    """
    inside: set[int] = set()
    tensor = second.input
    stack = [tensor]
    found: set[str] = set()
    while stack:
        name = stack.pop()
        if name in operators:
            found.add(name)
            continue
        node = index.producer.get(name)
        if node is None or ops.qualified(index.nodes[node]) not in ops.POINTWISE:
            return None
        inside.add(node)
        stack.extend(index.activation_inputs(node))
    if len(found) != 1 or not inside:
        return None
    first = operators[found.pop()]
    between = {first.target, *(name for node in inside for name in index.nodes[node].output if name)}
    readers = {reader for name in between for reader in index.readers.get(name, ())}
    if readers - inside != {second.node} or not between.isdisjoint(index.outputs):
        return None  # somebody else needs what the first operator makes
    return first


def joint_step(
    replay: PartialRunner,
    goals: Callable[[], Iterator[Values]],
    first: LinearOperator,
    second: LinearOperator,
    samples: int,
    seed: int,
) -> JointStep | None:
    """The least-squares answer of the first operator to the error that the second one leaves.

    Args:
        replay: the pruned model, in front of the first operator.
        goals: gives the second operator's goals, run by run.
        first: the first operator.
        second: the second.
        samples: number of samples.
        seed: of the positions that are taken.
    """
    model, options = replay.model, replay.options
    weight = effective_weight(second, model.value(second.weight_of(model)))
    slope = _Slope(model, first.target, second.input, options)
    equations = Equations(first, samples, seed)
    back: Session | None = None
    moments: list[Floats] = []
    names = [first.input, first.target, second.input, second.output, second.target]
    for (values, count), goal in zip(replay.values(names), goals(), strict=True):
        x, inner, between, output, now = (values[name][:count] for name in names)
        if inner.shape != between.shape or output.shape != now.shape:
            return None
        error = (goal.astype(np.float32) - now).astype(np.float32)
        if second.geometry is not None:
            error = spatial(error)
            size = spatial(between).shape[2:]
            back = back or Session(backward_model(second, weight, size, error.shape[2:]), options)
        back = back or Session(backward_model(second, weight, (), ()), options)
        slopes = slope.at(inner)
        wish = back.run({GRAD_OUTPUT: error})[GRAD_INPUT].reshape(inner.shape) * slopes
        if not equations.add(x, wish):
            return None
        channels = np.moveaxis(slopes, 1 if second.geometry else -1, -1)
        rows = channels.reshape(-1, channels.shape[-1])
        moments.append((rows.T @ rows).astype(np.float64) / len(rows))
    fit = equations.solve()
    return _weighed(fit, input_metric(second, weight) * np.mean(moments, axis=0), first) if fit else None


def line_search(
    replay: PartialRunner,
    goals: Callable[[], Iterator[Values]],
    operators: tuple[LinearOperator, LinearOperator],
    step: JointStep,
) -> Model | None:
    """The model after the step of the length that serves the goal best; None if none does."""
    first, second = operators
    start = replay.model

    def after(length: float) -> Model:
        return corrected(start, first, length * step.weight, length * step.bias)

    errors = {0.0: _error(replay, goals, second.target)}
    for length in _LENGTHS:
        replay.model = after(length)  # one at a time: each is a copy of the model
        errors[length] = _error(replay, goals, second.target)
    replay.model = start
    best = min(errors, key=lambda length: errors[length] if np.isfinite(errors[length]) else np.inf)
    return after(best) if best else None


def _error(replay: PartialRunner, goals: Callable[[], Iterator[Values]], target: str) -> float:
    total = 0.0
    for (values, count), goal in zip(replay.values([target], _TRIED_ON), goals(), strict=False):
        total += float(np.square(goal.astype(np.float64) - values[target][:count]).sum())
    return total


def _weighed(fit: Correction, curvature: Floats, first: LinearOperator) -> JointStep:
    """The fit in the metric of what the channels do: less where they do much already."""
    mean = float(np.trace(curvature)) / len(curvature)
    if mean <= 0:
        return JointStep(fit.weight, fit.bias)
    damped = curvature / mean + _DAMPING * np.eye(len(curvature))
    if first.groups > 1:
        # Channels of different groups read different inputs, and can't be mixed.
        damped = np.diag(np.diagonal(damped))
    inverse = np.linalg.inv(damped)
    return JointStep(inverse @ fit.weight / mean, inverse @ fit.bias / mean)


class _Slope:
    """Slope of the function of single values between two tensors, by central differences."""

    def __init__(self, model: Model, source: str, result: str, options: RunOptions) -> None:
        self._model, self._source, self._result, self._options = model, source, result, options
        self._session: Session | None = None

    def at(self, values: Values) -> npt.NDArray[np.float32]:
        """[...] float32 slopes at the values."""
        if self._session is None:
            given = {self._source: int(onnx.helper.np_dtype_to_tensor_dtype(values.dtype))}
            part = segment(self._model, [self._result], given)
            self._session = Session(part, self._options)
        ends = []
        for shift in (_SLOPE_STEP, -_SLOPE_STEP):
            moved = (values.astype(np.float32) + np.float32(shift)).astype(values.dtype)
            ends.append(self._session.run({self._source: moved})[self._result].astype(np.float32))
        slope: npt.NDArray[np.float32] = (ends[0] - ends[1]) / np.float32(2 * _SLOPE_STEP)
        return slope
