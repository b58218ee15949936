"""Repair without training: solve the remaining linear operators again for what the original computed.

Taking a region out changes what all later operators read. Walking them in order, each is given the
least-squares correction that brings the tensor its output enters (behind bias, normalisation and shortcut) as
near as it can to the original's. Where regions were taken out, the operator before the gap aims at what came
out behind it, so that it takes over part of their work. No parameter is added.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from redtest_onnx.analysis import Progress
from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.graph.linear import LinearOperator, linear_operators
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.probe import expose
from redtest_onnx.graph.signature import fixed_batch
from redtest_onnx.graph.surgery import adapter_output
from redtest_onnx.graph.weights import change_operands
from redtest_onnx.metrics.patches import Window, patches, values_at
from redtest_onnx.metrics.ridge import NormalEquations, RidgeFit, best_fit
from redtest_onnx.pruning.plan import Plan
from redtest_onnx.runtime.batching import Indices, runs
from redtest_onnx.runtime.data import Dataset
from redtest_onnx.runtime.session import RunOptions, Session

Values = npt.NDArray[np.generic]

log = logging.getLogger(__name__)

_BATCH = 64
# Rows beyond this many per unknown make no difference to a fit; images are sampled at so many positions.
_ROWS_PER_UNKNOWN = 300
_SMALLEST_SCALE = 1e-6
_CHECK_EVERY = 4  # one batch in so many chooses the penalty


@dataclass(frozen=True)
class Refit:
    """One operator that was solved again.

    Attributes:
        operator: name of its node.
        explained: share of the error at its target that the correction takes away.
        condition: condition number of the fit.
        rank: directions of its input that carry information.
        unknowns: size of its input.
        rows: equations.
    """

    operator: str
    explained: float
    condition: float
    rank: int
    unknowns: int
    rows: int


def refit(
    original: Model,
    pruned: Model,
    plan: Plan,
    data: Dataset,
    indices: Indices,
    options: RunOptions,
    *,
    progress: Progress | None = None,
) -> tuple[Model, tuple[Refit, ...]]:
    """Solve the linear operators of a pruned model again.

    Args:
        original: the model before.
        pruned: the model without the plan's layers.
        plan: what was taken out.
        data: calibration samples; labels are not used.
        indices: which of them.
        options: device and threads.
        progress: called after each operator.

    Returns:
        The repaired model and what was done to each operator.
    """
    goals = _goals(GraphIndex(original.graph), plan)
    index = GraphIndex(pruned.graph)
    moved = _moved(GraphIndex(original.graph), index)
    todo = [
        operator
        for operator in linear_operators(pruned, index)
        if operator.input in moved or operator.target in goals
    ]
    done: list[Refit] = []
    for k, operator in enumerate(todo):
        goal = goals.get(operator.target, operator.target)
        equations = _equations(original, pruned, operator, goal, data, indices, options)
        fit = equations and best_fit(*equations, intercept=operator.bias is not None)
        if equations and fit:
            pruned = _corrected(pruned, operator, fit)
            name, rows = index.nodes[operator.node].name, equations[0].rows
            done.append(Refit(name, fit.explained, fit.condition, fit.rank, len(fit.weight), rows))
            log.info("refit %s: %.1f %% of the error explained", name, 100 * fit.explained)
        if progress:
            progress(k + 1, len(todo), "repairing")
    return pruned, tuple(done)


def _goals(index: GraphIndex, plan: Plan) -> dict[str, str]:
    """What the operators before a gap should hit: the original's values behind it.

    Keys are tensors before the activation in front of the gap, values those before the activation behind it.
    """
    ends: dict[str, str] = {}
    goals: dict[str, str] = {}
    for step in plan.steps:
        if step.action == "adapter":
            # A convolution with its bias, or a product with the bias behind it.
            for k in (0, 1):
                goals[adapter_output(step.tensor, k)] = _before_activation(index, step.tensor)[0]
            continue
        start = next((first for first, last in ends.items() if last == step.input), step.input)
        ends[start] = step.tensor
    for start, end in ends.items():
        gap = index.between(start, end)
        if any(reader not in gap for reader in index.readers.get(start, ())):
            continue  # somebody else still needs the old values
        (before, first), (behind, last) = _before_activation(index, start), _before_activation(index, end)
        if first == last:
            goals[before] = behind
    return goals


def _before_activation(index: GraphIndex, tensor: str) -> tuple[str, tuple[str, ...]]:
    """The tensor in front of the activation functions that end in `tensor`, and those functions."""
    functions: list[str] = []
    while True:
        producer = index.producer.get(tensor)
        if producer is None or ops.qualified(index.nodes[producer]) not in ops.ACTIVATION:
            return tensor, tuple(functions)
        functions.append(ops.qualified(index.nodes[producer]))
        tensor = index.nodes[producer].input[0]


def _moved(original: GraphIndex, pruned: GraphIndex) -> frozenset[str]:
    """Tensors of the pruned graph whose values differ from the original's."""
    moved: set[str] = set()
    for i, node in enumerate(pruned.nodes):
        before = original.producer.get(node.output[0])
        if (
            before is None
            or original.reads[before] != pruned.reads[i]
            or not moved.isdisjoint(pruned.reads[i])
        ):
            moved.update(node.output)
            if before is not None and original.reads[before] != pruned.reads[i]:
                moved.update(set(pruned.reads[i]) - set(original.reads[before]))
    return frozenset(moved)


def _equations(
    original: Model,
    pruned: Model,
    operator: LinearOperator,
    goal: str,
    data: Dataset,
    indices: Indices,
    options: RunOptions,
) -> tuple[NormalEquations, NormalEquations] | None:
    """Normal equations of an operator's correction, to fit and to check; None if shapes don't fit."""
    wanted = Session(expose(original, [goal]), options)
    present = Session(expose(pruned, [operator.input, operator.target]), options)
    fixed = fixed_batch(original)
    equations: tuple[NormalEquations, NormalEquations] | None = None
    rng = np.random.default_rng(0)
    unknowns = _unknowns(pruned, operator)
    per_sample = max(1, -(-_ROWS_PER_UNKNOWN * unknowns // len(indices)))
    size = fixed or min(_BATCH, -(-len(indices) // _CHECK_EVERY))
    for k, (chosen, count) in enumerate(runs(indices, size, fixed=fixed is not None)):
        feeds = data.inputs(chosen)
        target = wanted.run(feeds)[goal][:count]
        values = present.run(feeds)
        x, now = values[operator.input][:count], values[operator.target][:count]
        if now.shape != target.shape:
            return None
        rows = _rows(operator, x, target.astype(np.float64) - now, per_sample, rng)
        if rows is None:
            return None
        sizes = rows[0].shape[1], rows[1].shape[1]
        equations = equations or (NormalEquations(*sizes), NormalEquations(*sizes))
        equations[k % _CHECK_EVERY == _CHECK_EVERY - 1].add(*rows)
    return equations


def _unknowns(model: Model, operator: LinearOperator) -> int:
    dims = model.initializers[operator.weight].dims
    return int(np.prod(dims) // len(operator.scale))


def _rows(
    operator: LinearOperator,
    x: Values,
    error: Values,
    per_sample: int,
    rng: np.random.Generator,
) -> tuple[Values, Values] | None:
    """What the operator reads, [r, p], and the error at its target, [r, q]."""
    if operator.kind != "Conv":
        if x.shape[:-1] != error.shape[:-1]:
            return None
        a, b = x.reshape(-1, x.shape[-1]), error.reshape(-1, error.shape[-1])
        if len(a) > per_sample * len(x):
            chosen = np.sort(rng.choice(len(a), per_sample * len(x), replace=False))
            a, b = a[chosen], b[chosen]
        return a, b
    if operator.geometry is None or error.ndim != 4:
        return None
    height, width = error.shape[2:]
    places = np.arange(height * width)
    if len(places) > per_sample:
        places = np.sort(rng.choice(places, per_sample, replace=False))
    rows, columns = np.divmod(places, width)
    return patches(x, Window(*operator.geometry), rows, columns), values_at(error, rows, columns)


def _corrected(model: Model, operator: LinearOperator, fit: RidgeFit) -> Model:
    """The model with the correction in the operator's weights and bias."""
    weight: npt.NDArray[Any] = model.value(model.initializers[operator.weight])
    change = fit.weight * _inverse(operator.scale)
    if operator.kind == "Conv" or operator.transposed:
        change = change.T.reshape(weight.shape)
    changes = {(operator.node, operator.weight): (weight + change).astype(weight.dtype)}
    if operator.bias is not None:
        bias: npt.NDArray[Any] = model.value(model.initializers[operator.bias])
        share = fit.bias * _inverse(operator.bias_scale)
        changes[operator.bias_node, operator.bias] = (bias + share).astype(bias.dtype)
    return change_operands(model, changes)


def _inverse(scale: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """1 / scale; 0 for channels that a normalisation has switched off."""
    usable = np.abs(scale) > _SMALLEST_SCALE
    return np.where(usable, 1 / np.where(usable, scale, 1), 0)
