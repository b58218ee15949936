"""Resize the layer behind a gap to what the layer in front of it gives, with weights drawn anew.

RedTest (arXiv 2411.10507, section 4.3) joins two layers whose shapes differ in this way and trains the whole
afterwards; all other weights stay. Operators are drawn as PyTorch draws them by default, uniformly within
1 / sqrt(values per output); normalisations start as the identity. A sum with a shortcut gets a projection.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod, sqrt

import numpy as np
import numpy.typing as npt
import onnx

from redtest_onnx.errors import InputError
from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.edits import finished
from redtest_onnx.graph.index import reads
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.shapes import Shape
from redtest_onnx.graph.surgery import Removal, drop_unused, remove_regions
from redtest_onnx.layers.adaptation import windows
from redtest_onnx.layers.layout import channels_first
from redtest_onnx.pruning.plan import Plan
from redtest_onnx.runtime.workbench import Workbench

_POOLS = frozenset({"MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"})
_CARRIED = ops.ACTIVATION | ops.CARRIERS | _POOLS | {"Dropout", "Flatten", "Reshape", "ReduceMean"}
_NORMS = {"BatchNormalization": (1.0, 0.0, 0.0, 1.0), "LayerNormalization": (1.0, 0.0)}
_FLOATS = frozenset({onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE})


@dataclass(frozen=True)
class SizeChange:
    """A tensor whose sizes are others than its readers were made for.

    Attributes:
        shape: its sizes now.
        gap: name of the removed layer in front of it.
        first: whether its channels are in front of its positions.
    """

    shape: Shape
    gap: str
    first: bool


def refuse_limit(method: str, max_drop: float | None) -> None:
    """Refuse a limit of loss for "reinit": weights drawn anew know nothing before they are trained.

    Raises:
        InputError: there is one.
    """
    if method == "reinit" and max_drop is not None:
        raise InputError(
            "layers that are drawn anew lose too much before they are trained to keep to a limit",
            hint="say how much to remove with @remove, @threshold or @target, not with @max_drop",
        )


def reinitialised(bench: Workbench, plan: Plan) -> tuple[Model, tuple[str, ...]]:
    """The model without a plan's layers, what comes behind gaps resized and drawn anew.

    Args:
        bench: the model before, with its branches inlined; its seed draws the weights.
        plan: what is taken out.

    Returns:
        The model, and the operators that were drawn; none where all shapes fit.

    Raises:
        InputError: what reads a gap can't be resized, or the graph can't be edited.
    """
    pruned = remove_regions(bench.model, [Removal(step.input, step.tensor) for step in plan.steps])
    work = _Resizing(bench, pruned, plan)
    work.run()
    return (work.result(), tuple(work.drawn)) if work.drawn else (pruned, ())


class _Resizing:
    """One walk over a pruned graph in which shapes don't fit, in the order of its nodes."""

    def __init__(self, bench: Workbench, pruned: Model, plan: Plan) -> None:
        self._bench, self._model = bench, pruned
        self._sizes = bench.shapes.sizes
        self._random = np.random.default_rng(bench.seed)
        self._readers_of = {_key(node): node for node in bench.model.graph.node}
        self._gaps = {step.tensor: step for step in plan.steps}
        self._changed: dict[str, SizeChange] = {}
        self._proto = onnx.ModelProto()
        self._proto.CopyFrom(pruned.proto)
        self._inserted: dict[str, list[onnx.NodeProto]] = {}
        self.drawn: list[str] = []
        """Names of the operators that were drawn."""

    def run(self) -> None:
        """Follow every change of shape to the operators that can take it."""
        for node in self._proto.graph.node:
            changes = dict(self._changes(node))
            if changes:
                self._take(node, changes)
        for output in self._proto.graph.output:
            if output.name in self._changed:
                raise self._refusal(self._changed[output.name], f"it is the model's output {output.name!r}")

    def result(self) -> Model:
        """The model with all changes."""
        graph = self._proto.graph
        nodes = [n for node in graph.node for n in (*self._inserted.get(_key(node), ()), node)]
        nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del graph.node[:]
        graph.node.extend(nodes)
        kept = [value for value in graph.value_info if value.name not in self._changed]
        del graph.value_info[:]
        graph.value_info.extend(kept)
        drop_unused(graph)
        return finished(self._model, self._proto)

    def _changes(self, node: onnx.NodeProto) -> Iterator[tuple[int, SizeChange]]:
        """Operands, by position, of other sizes than the node was made for."""
        before = self._readers_of.get(_key(node))
        for name in set(reads(node)) - set(node.input):
            if name in self._changed:
                raise self._refusal(self._changed[name], f"a branch of {node.op_type} reads it")
        for position, name in enumerate(node.input):
            was = name if before is None else before.input[position]
            gap = self._gaps.get(was)
            change = self._changed.get(name)
            if gap is not None and change is None and {name, was} <= self._sizes.keys():
                rank = len(self._sizes[name])
                first = channels_first(self._bench.index, gap.input, gap.tensor, rank)
                change = SizeChange(self._sizes[name], gap.region, first)
            if change is not None and self._sizes.get(was) != change.shape:
                if gap is not None:
                    change = replace(change, gap=gap.region)
                yield position, change

    def _take(self, node: onnx.NodeProto, changes: dict[int, SizeChange]) -> None:
        kind, change = ops.qualified(node), next(iter(changes.values()))
        if _key(node) not in self._readers_of:
            raise self._refusal(change, f"it is the model's output {node.output[0]!r}")
        if kind in ("Conv", "Gemm", "MatMul") and set(changes) == {0}:
            self._resize(node, change)
        elif kind in _NORMS and set(changes) == {0}:
            self._restart(node, change)
        elif kind in _CARRIED and set(changes) == {0}:
            self._carry(node, change)
        elif kind in ("Add", "Sum") and len(changes) < len(node.input):
            for position, one in changes.items():
                self._project(node, position, one)
        elif kind in ("Add", "Sum") and len({one.shape for one in changes.values()}) == 1:
            self._changed[node.output[0]] = change
        else:
            raise self._refusal(change, f"{node.op_type} {_name(node)} reads it")

    def _carry(self, node: onnx.NodeProto, change: SizeChange) -> None:
        """Hand other sizes on through an operator that takes any."""
        was, given = self._sizes.get(node.output[0], ()), self._sizes.get(node.input[0], change.shape)
        if node.op_type == "Reshape" and len(was) == 2 and was[0] == given[0] == change.shape[0]:
            # Its constant tells the old number of features.
            node.op_type = "Flatten"
            del node.input[1:], node.attribute[:]
        shape = self._inferred(node, change)
        if shape is None:
            raise self._refusal(change, f"the sizes behind {node.op_type} {_name(node)} can't be told")
        if shape != self._sizes.get(node.output[0]):
            self._changed[node.output[0]] = replace(change, shape=shape)

    def _inferred(self, node: onnx.NodeProto, change: SizeChange) -> Shape | None:
        info = onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, change.shape)
        model = onnx.helper.make_model(
            onnx.helper.make_graph(
                [node],
                "node",
                [onnx.ValueInfoProto(name=node.input[0], type=info)],
                [onnx.ValueInfoProto(name=node.output[0])],
                [
                    self._model.initializers[name]
                    for name in node.input[1:]
                    if name in self._model.initializers
                ],
            ),
            opset_imports=self._proto.opset_import,
        )
        try:
            found = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph.output[0].type
        except onnx.shape_inference.InferenceError:
            return None
        sizes = tuple(d.dim_value for d in found.tensor_type.shape.dim)
        return sizes if sizes and all(sizes) else None

    def _resize(self, node: onnx.NodeProto, change: SizeChange) -> None:
        """Give a convolution or a matrix product weights for other inputs."""
        weight = self._model.initializers.get(node.input[1])
        after = self._sizes.get(node.output[0])
        if weight is None or weight.data_type not in _FLOATS or after is None:
            raise self._refusal(
                change, f"{node.op_type} {_name(node)} reads it, whose weights are not stored"
            )
        shape = list(weight.dims)
        if node.op_type == "Conv":
            if ops.attribute(node, "group", 1) != 1:
                raise self._refusal(change, f"the grouped convolution {_name(node)} reads it")
            shape[1], fan = change.shape[1], change.shape[1] * prod(weight.dims[2:])
            self._stride(node, change, weight.dims[2:], after)
        else:
            if (node.op_type == "Gemm" and ops.attribute(node, "transA", 0) == 1) or len(shape) != 2:
                raise self._refusal(change, f"{node.op_type} {_name(node)} reads it")
            transposed = node.op_type == "Gemm" and ops.attribute(node, "transB", 0) == 1
            if change.shape[:-1] != after[:-1]:
                raise self._refusal(change, f"{node.op_type} {_name(node)} can't change positions")
            shape[1 if transposed else 0] = fan = change.shape[-1]
        self._draw(node, 1, shape, fan)
        if len(node.input) > 2 and node.input[2] in self._model.initializers:
            self._draw(node, 2, list(self._model.initializers[node.input[2]].dims), fan)
        self.drawn.append(_name(node))

    def _stride(self, node: onnx.NodeProto, change: SizeChange, kernel: Sequence[int], after: Shape) -> None:
        """Let a convolution step so that its output keeps its sizes."""
        count = len(kernel)
        strides, dilations = (_integers(node, name, [1] * count) for name in ("strides", "dilations"))
        pads = _integers(node, "pads", [0] * 2 * count)
        auto = str(ops.attribute(node, "auto_pad", b"NOTSET")).strip("b'")
        found = []
        for axis, (size, out) in enumerate(zip(change.shape[2:], after[2:], strict=True)):
            extent = (kernel[axis] - 1) * dilations[axis] + 1
            padded = size + pads[axis] + pads[axis + count] if auto == "NOTSET" else size
            for stride in dict.fromkeys((strides[axis], -(-size // out), size // out)):
                same = auto.startswith("SAME")
                if stride and out == (-(-size // stride) if same else (padded - extent) // stride + 1):
                    found.append(stride)
                    break
        if len(found) != count:
            sizes = f"{'x'.join(map(str, change.shape[2:]))} to {'x'.join(map(str, after[2:]))}"
            raise self._refusal(change, f"convolution {_name(node)} can't step from {sizes}")
        _set_integers(node, "strides", found)

    def _restart(self, node: onnx.NodeProto, change: SizeChange) -> None:
        """Give a normalisation as many channels, so that it starts as the identity behind its statistics."""
        channels = change.shape[-1 if node.op_type == "LayerNormalization" else 1]
        if node.op_type == "LayerNormalization" and ops.attribute(node, "axis", -1) not in (
            -1,
            len(change.shape) - 1,
        ):
            raise self._refusal(change, f"{node.op_type} {_name(node)} covers several axes")
        for position, value in enumerate(_NORMS[node.op_type][: len(node.input) - 1], start=1):
            stored = self._model.initializers.get(node.input[position])
            if stored is None or stored.data_type not in _FLOATS:
                raise self._refusal(change, f"{node.op_type} {_name(node)} reads it")
            self._store(node, position, np.full(channels, value, _dtype(stored)))
        self._changed[node.output[0]] = change
        self.drawn.append(_name(node))

    def _project(self, node: onnx.NodeProto, position: int, change: SizeChange) -> None:
        """Put a projection drawn at random in front of one operand of a sum (He et al., their option B)."""
        after, before = self._sizes.get(node.output[0]), change.shape
        name = f"{node.output[0]}/projection"
        made = onnx.helper.make_node("MatMul", [node.input[position]], [name], name=name)
        if after is None or len(after) != len(before):
            raise self._refusal(change, f"{node.op_type} {_name(node)} adds another shape to it")
        if change.first:
            steps = windows(before[2:], after[2:])
            if steps is None:
                raise self._refusal(change, f"{node.op_type} {_name(node)} adds more positions to it")
            pairs = list(zip(before[2:], after[2:], steps, strict=True))
            kernel = [max(1, a - b * step.stride + 1) for a, b, step in pairs]
            made.op_type = "Conv"
            _set_integers(made, "kernel_shape", kernel)
            _set_integers(made, "strides", [step.stride for _, _, step in pairs])
            shape = [after[1], before[1], *kernel]
        elif before[:-1] == after[:-1]:
            shape = [before[-1], after[-1]]
        else:
            raise self._refusal(change, f"{node.op_type} {_name(node)} adds more positions to it")
        fan = prod(shape[1:]) if change.first else shape[0]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(
            self._bench.shapes.dtypes.get(node.output[0], onnx.TensorProto.FLOAT)
        )
        made.input.append("")
        self._store(made, 1, self._values(shape, fan, dtype))
        self._inserted.setdefault(_key(node), []).append(made)
        node.input[position] = name
        self.drawn.append(name)

    def _draw(self, node: onnx.NodeProto, position: int, shape: Sequence[int], fan: int) -> None:
        stored = self._model.initializers[node.input[position]]
        self._store(node, position, self._values(shape, fan, _dtype(stored)))

    def _values(self, shape: Sequence[int], fan: int, dtype: np.dtype[np.generic]) -> npt.NDArray[np.generic]:
        bound = 1 / sqrt(fan)
        values: npt.NDArray[np.generic] = self._random.uniform(-bound, bound, shape).astype(dtype)
        return values

    def _store(self, node: onnx.NodeProto, position: int, values: npt.NDArray[np.generic]) -> None:
        """Let a node read values of its own."""
        name = f"{node.output[0]}/reinit{position}"
        self._proto.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
        node.input[position] = name

    def _refusal(self, change: SizeChange, why: str) -> InputError:
        return InputError(
            f"layer {change.gap!r} can't be replaced by resizing what comes behind it: {why}",
            where=self._bench.label,
            hint=f"@repair=adapter or @repair=refit, or @protect={change.gap}",
        )


def _key(node: onnx.NodeProto) -> str:
    return next(filter(None, node.output), "")


def _name(node: onnx.NodeProto) -> str:
    return node.name or _key(node)


def _dtype(tensor: onnx.TensorProto) -> np.dtype[np.generic]:
    return onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)


def _integers(node: onnx.NodeProto, name: str, default: list[int]) -> list[int]:
    for item in node.attribute:
        if item.name == name:
            return list(item.ints)
    return default


def _set_integers(node: onnx.NodeProto, name: str, values: Sequence[int]) -> None:
    for item in node.attribute:
        if item.name == name:
            del item.ints[:]
            item.ints.extend(values)
            return
    node.attribute.append(onnx.helper.make_attribute(name, values))
