"""Pairs of operators with a function of single values between them, and what the first reads and gives."""

from __future__ import annotations

from dataclasses import dataclass, field

from redtest_onnx.arrays import Numbers
from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.index import GraphIndex, index_of
from redtest_onnx.graph.linear_operators import LinearOperator
from redtest_onnx.graph.model import Model
from redtest_onnx.pruning.repair.equations import FINAL_ROWS

_SAMPLES_PER_DENSITY = 2  # samples held at least, whatever rows they give, per row per unknown
HELD_SHARE = 3
"""Part of the memory for what is kept that inputs and outputs of a first operator may take."""


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
        return None  # other nodes read what the first operator makes
    if (first.geometry is None) != (second.geometry is None):
        return None  # channels lie along axis 1 for a convolution, along the last one for a product
    return first


@dataclass
class PairValues:
    """What the first operator of a pair reads and gives, run by run.

    Attributes:
        limit: bytes to hold; of larger ones, those of fewer samples are.
        inputs: arrays per run.
        inner: its target per run, replaced as its weights move.
        full: whether further runs are left out.
    """

    limit: int = 1 << 29
    inputs: list[Numbers] = field(default_factory=list)
    inner: list[Numbers] = field(default_factory=list)
    full: bool = False
    _held: int = 0
    _positions: int = 0

    def hold(self, inputs: Numbers, inner: Numbers, first: LinearOperator, density: int) -> None:
        """Take in the next run, unless those that are held suffice or it is too much.

        Rows are taken from all over the samples: of each, no more than a quarter of its positions count. A
        last fit takes all samples: fewer of them cost ResNet56 a point where many layers went.
        """
        self._held += inputs.nbytes + inner.nbytes
        self.full = self.full or self._held > self.limit
        if self.full:
            return
        self.inputs.append(inputs)
        self.inner.append(inner)
        channels = 1 if first.geometry is not None else inner.ndim - 1
        self._positions += inner.size // inner.shape[channels]
        samples = sum(map(len, self.inner))
        enough = self._positions >= 4 * density * first.unknowns(inputs.shape)
        self.full = enough and samples >= _SAMPLES_PER_DENSITY * density and density < FINAL_ROWS


def is_rectifier(model: Model, source: str, result: str) -> bool:
    """Whether one tensor is the other one's positive part."""
    index = index_of(model)
    node = index.producer.get(result)
    return node is not None and (
        ops.qualified(index.nodes[node]) == "Relu" and index.nodes[node].input[0] == source
    )
