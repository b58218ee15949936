"""What a graph costs: parameters, multiply-accumulates (1 MAC = 2 FLOPs) and the memory of activations."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import onnx

from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.graph.macs import count_macs
from redtest_onnx.graph.memory_plan import peak_activation_bytes, stored_bytes
from redtest_onnx.graph.model import subgraphs, tensor_elements
from redtest_onnx.graph.packed import held_weights
from redtest_onnx.graph.shapes import FLOAT_TYPES, LOW_BIT_TYPES, Shapes

# Running statistics of a BatchNormalization are measured, not learned.
_STATISTICS = {"BatchNormalization": (3, 4)}


@dataclass(frozen=True)
class Cost:
    """What a model costs.

    Attributes:
        parameters: number of learned values.
        parameter_bytes: bytes of all stored values.
        macs: multiply-accumulates for one sample; None if a shape is unknown.
        peak_activation_bytes: largest sum of live activations in a run of the fewest samples that the model
            takes; None if a shape is unknown.
        at: the input sizes that multiply-accumulates and memory are for where they are a guess, in words;
            None where the model, its metadata, the data or the user tell them.
        run_samples: how many samples the run takes that `peak_activation_bytes` is for.
    """

    parameters: int
    parameter_bytes: int
    macs: int | None
    peak_activation_bytes: int | None
    at: str | None = None
    run_samples: int = 1


def model_cost(index: GraphIndex, shapes: Shapes, held: Iterable[str] = ()) -> Cost:
    """The cost of a graph at the given sizes.

    Args:
        index: the graph.
        shapes: of its tensors.
        held: tensors that are kept to the end as outputs are, see `peak_activation_bytes`.
    """
    return Cost(
        count_parameters(index),
        parameter_bytes(index),
        count_macs(index, shapes),
        peak_activation_bytes(index, shapes, held),
        run_samples=shapes.samples,
    )


def count_parameters(index: GraphIndex, nodes: Iterable[int] | None = None) -> int:
    """Number of learned values: floating-point or low-bit constants with more than one element.

    Args:
        index: the graph.
        nodes: count only what these nodes alone read; the whole graph, with its branches, if None.
    """
    chosen = range(len(index.nodes)) if nodes is None else frozenset(nodes)
    total = 0
    for name in {name for i in chosen for name in index.reads[i] if name in index.initializers}:
        if all(reader in chosen for reader in index.readers[name]):
            total += _learned(index, name, index.initializers[name])
    for i in chosen:
        node = index.nodes[i]
        if node.op_type == "Constant" and isinstance(value := ops.attribute(node, "value"), onnx.TensorProto):
            total += _learned(index, node.output[0], value)
        total += sum(count_parameters(GraphIndex(child)) for child in subgraphs([node]))
    return total


def count_shared(index: GraphIndex, nodes: Iterable[int]) -> int:
    """Number of learned values that some nodes read and others outside read, too, such as tied embeddings."""
    chosen = frozenset(nodes)
    names = {name for i in chosen for name in index.reads[i] if name in index.initializers}
    shared = (name for name in names if not all(reader in chosen for reader in index.readers[name]))
    return sum(_learned(index, name, index.initializers[name]) for name in shared)


def learned_values(index: GraphIndex, name: str) -> int:
    """Number of learned values of one initializer."""
    return _learned(index, name, index.initializers[name])


def parameter_bytes(index: GraphIndex) -> int:
    """Bytes of all stored values: initializers and Constant nodes of any type, with branches."""
    total = sum(stored_bytes(tuple(t.dims), t.data_type) for t in index.initializers.values())
    for node in index.nodes:
        if node.op_type == "Constant" and isinstance(value := ops.attribute(node, "value"), onnx.TensorProto):
            total += stored_bytes(tuple(value.dims), value.data_type)
        total += sum(parameter_bytes(GraphIndex(child)) for child in subgraphs([node]))
    return total


def _takes_statistics(node: onnx.NodeProto, name: str) -> bool:
    places = _STATISTICS.get(ops.qualified(node), ())
    return any(node.input[k] == name for k in places if k < len(node.input))


def _learned(index: GraphIndex, name: str, tensor: onnx.TensorProto) -> int:
    """Learned values of a stored tensor; packed ones as its readers unpack them, statistics none."""
    readers = [index.nodes[reader] for reader in index.readers.get(name, ())]
    if any(_takes_statistics(node, name) for node in readers):
        return 0
    for node in readers:
        if (held := held_weights(node, name, tensor)) is not None:
            return held
    count = tensor_elements(tensor.dims)
    return count if count > 1 and tensor.data_type in FLOAT_TYPES | LOW_BIT_TYPES else 0


__all__ = [
    "Cost",
    "count_macs",
    "count_parameters",
    "count_shared",
    "learned_values",
    "model_cost",
    "parameter_bytes",
    "peak_activation_bytes",
]
