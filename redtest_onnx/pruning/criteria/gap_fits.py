"""Several corrections of one operator from one normal matrix: for gaps of several lengths behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx

from redtest_onnx.arrays import Counted, Numbers
from redtest_onnx.graph.linear_operators import LinearOperator
from redtest_onnx.graph.model import Model
from redtest_onnx.metrics.ridge import NormalEquations
from redtest_onnx.pruning.repair.equations import usable_scale
from redtest_onnx.pruning.repair.operator_rows import in_channel_order, operator_rows
from redtest_onnx.runtime.session import RunOptions, Session

_ROWS = 15  # per unknown
_RIDGE = 3e-3  # of the mean of the diagonal


class GapFits:
    """Corrections of one operator.

    Args:
        model: the model that holds it.
        operator: the operator.
        options: how its corrections are computed.
        seed: of the positions that serve as rows.
    """

    def __init__(self, model: Model, operator: LinearOperator, options: RunOptions, seed: int) -> None:
        self._operator, self._seed = operator, seed
        self._sizes = tuple(operator.weight_of(model).dims)
        self._session = None if operator.geometry is None else _convolution(model, operator, options)

    def solve(
        self, inputs: Sequence[Numbers], errors: Sequence[Sequence[Numbers]], counted: Sequence[Counted]
    ) -> list[tuple[Numbers, Numbers]] | None:
        """Weights and biases whose outputs come near to each of several errors.

        Args:
            inputs: what the operator reads, run by run, samples first.
            errors: at its target, [goal][run].
            counted: which positions of sequences count, run by run.

        Returns:
            float32 weights and biases, one pair per goal; None where there is nothing to fit to.
        """
        operator, goals = self._operator, len(errors)
        unknowns = operator.unknowns(inputs[0].shape)
        outputs = len(operator.scale) // operator.groups
        sums = NormalEquations(unknowns, outputs * goals, operator.groups)
        wanted = max(1, -(-_ROWS * unknowns // sum(map(len, inputs))))
        several = replace(operator, scale=np.tile(operator.scale, goals))
        rng = np.random.default_rng(self._seed)
        axis = 1 if operator.geometry else -1
        for run, x in enumerate(inputs):
            stacked = _stacked([goal[run] for goal in errors], operator.groups, axis)
            rows = operator_rows(several, x, stacked, wanted, rng, counted[run])
            if rows is None:
                return None
            for block in rows.blocks:
                sums.add(*rows.gather(block))
        if not sums.rows:
            return None
        fit = sums.solve(_RIDGE, intercept=operator.bias is not None)
        found = []
        usable = usable_scale(operator.scale)
        for k in range(goals):
            part = slice(k * outputs, (k + 1) * outputs)
            rows_of_weights = in_channel_order(fit.weight[:, :, part], operator.geometry) * usable[:, None]
            biases = fit.bias[:, part].reshape(-1) * usable
            found.append((rows_of_weights.astype(np.float32), biases.astype(np.float32)))
        return found

    def output(self, x: Numbers, correction: tuple[Numbers, Numbers]) -> Numbers:
        """What a correction adds to the target, [n, ...] float32."""
        weight, bias = correction
        if self._session is None:
            return np.asarray(x.astype(np.float32) @ weight.T + bias)
        feeds = {"x": x.astype(np.float32), "w": weight.reshape(self._sizes), "b": bias}
        return np.asarray(self._session.run(feeds)["y"])


def _stacked(errors: Sequence[Numbers], groups: int, axis: int) -> Numbers:
    """Errors for several goals behind one another within each group of channels."""
    if groups == 1:
        return np.concatenate(errors, axis=axis)
    split = [np.split(error, groups, axis=axis) for error in errors]
    return np.concatenate([parts[g] for g in range(groups) for parts in split], axis=axis)


def _convolution(model: Model, operator: LinearOperator, options: RunOptions) -> Session:
    """The operator's convolution of a fed x with fed weights w and biases b, as y."""
    node = onnx.NodeProto()
    node.CopyFrom(model.graph.node[operator.node])
    del node.input[:], node.output[:]
    node.input.extend(["x", "w", "b"])
    node.output.append("y")
    proto = onnx.ModelProto(ir_version=model.proto.ir_version)
    proto.opset_import.extend(model.proto.opset_import)
    proto.graph.name = "correction"
    proto.graph.node.append(node)
    for name in ("x", "w", "b"):
        proto.graph.input.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    proto.graph.output.append(onnx.ValueInfoProto(name="y"))
    return Session(model.edited(proto), options)
