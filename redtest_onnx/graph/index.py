"""Who makes and who reads each tensor of a graph, and which tensors carry activations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property

import onnx

from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.model import Model, subgraphs


class _Counts(dict[str, int]):
    """Counts that start from a rule, so that only those that are asked for take time."""

    def __init__(self, start: Callable[[str], int]) -> None:
        super().__init__()
        self._start = start

    def __missing__(self, name: str) -> int:
        self[name] = self._start(name)
        return self[name]


class GraphIndex:
    """Look-ups over one graph (main graph or branch) whose nodes are topologically sorted.

    Args:
        graph: the graph; not changed.
        outer_fed: tensors of enclosing graphs whose values depend on what the caller feeds.
        outer_activations: tensors of enclosing graphs that are activations.
    """

    def __init__(
        self,
        graph: onnx.GraphProto,
        outer_fed: frozenset[str] = frozenset(),
        outer_activations: frozenset[str] = frozenset(),
    ) -> None:
        self.graph = graph
        self.nodes = tuple(graph.node)
        self.initializers = {t.name: t for t in graph.initializer}
        self.outputs = tuple(dict.fromkeys(v.name for v in graph.output))
        self.reads = tuple(tuple(dict.fromkeys(reads(node))) for node in self.nodes)
        self.producer = {name: i for i, node in enumerate(self.nodes) for name in node.output if name}
        self._outer_fed = outer_fed
        self._outer_activations = outer_activations
        self._paths: dict[tuple[str | None, str], frozenset[int]] = {}

    @cached_property
    def readers(self) -> dict[str, tuple[int, ...]]:
        """Indices of the nodes that read each tensor, also from inside their subgraphs."""
        found: dict[str, list[int]] = {}
        for i, names in enumerate(self.reads):
            for name in names:
                found.setdefault(name, []).append(i)
        return {name: tuple(nodes) for name, nodes in found.items()}

    def value_readers(self, name: str) -> tuple[int, ...]:
        """Indices of the nodes that read a tensor's values, not its sizes alone."""
        found = self.readers.get(name, ())
        return tuple(i for i in found if ops.qualified(self.nodes[i]) not in ops.SIZE_ONLY)

    @cached_property
    def input_dependent(self) -> frozenset[str]:
        """Tensors whose values depend on what the caller feeds, not only on its sizes."""
        found = {v.name for v in self.graph.input if v.name not in self.initializers} | self._outer_fed
        for i, node in enumerate(self.nodes):
            if ops.qualified(node) not in ops.SIZE_ONLY and not found.isdisjoint(self.reads[i]):
                found.update(node.output)
        found.discard("")
        return frozenset(found)

    @cached_property
    def weighted(self) -> frozenset[int]:
        """Nodes that apply weights: a constant operand of a linear operator, embedding or recurrent cell."""
        return frozenset(i for i in range(len(self.nodes)) if self._has_weights(i))

    @cached_property
    def activations(self) -> frozenset[str]:
        """Tensors that depend on an input through at least one operator with weights."""
        found = set(self._outer_activations)
        for i, node in enumerate(self.nodes):
            if ops.qualified(node) in ops.SIZE_ONLY:
                continue
            if i in self.weighted or not found.isdisjoint(self.reads[i]):
                found.update(name for name in node.output if name)
        return frozenset(found)

    def activation_inputs(self, node: int) -> tuple[str, ...]:
        """The activations a node reads, each once, in order."""
        return self._activation_inputs[node]

    @cached_property
    def _activation_inputs(self) -> tuple[tuple[str, ...], ...]:
        activations = self.activations
        return tuple(tuple(name for name in reads if name in activations) for reads in self.reads)

    def between(self, entry: str | None, exit_: str) -> frozenset[int]:
        """Nodes on the paths of activations from `entry` (from the model's inputs if None) to `exit_`.

        What joins in from the side, such as an encoder's output, lies on none of them.
        """
        if (entry, exit_) not in self._paths:
            self._paths[entry, exit_] = self._nodes_between(entry, exit_)
        return self._paths[entry, exit_]

    def _nodes_between(self, entry: str | None, exit_: str) -> frozenset[int]:
        found: set[int] = set()
        stack = [exit_]
        while stack:
            name = stack.pop()
            node = self.producer.get(name)
            if name == entry or node is None or node in found:
                continue
            found.add(node)
            stack.extend(self.activation_inputs(node))
        return frozenset(found) if entry is None else self._behind(entry, found)

    def _behind(self, entry: str, nodes: set[int]) -> frozenset[int]:
        """Those of the nodes that depend on a tensor through one another."""
        reached, kept = {entry}, set()
        for node in sorted(nodes):
            if not reached.isdisjoint(self.reads[node]):
                reached.update(self.nodes[node].output)
                kept.add(node)
        return frozenset(kept)

    @cached_property
    def flows(self) -> tuple[frozenset[str], ...]:
        """The activations that depend on each input that weights are applied to before it joins another.

        One for most graphs; one per input for decoders that are fed an encoder's output, or for two towers.
        """
        sources = [i for i in sorted(self.weighted) if not self.activation_inputs(i)]
        found = []
        for name in (v.name for v in self.graph.input if v.name not in self.initializers):
            reached = self.reached(name)
            if any(not reached.isdisjoint(self.reads[i]) for i in sources):
                found.append(frozenset(reached & self.activations))
        return tuple(dict.fromkeys(found)) if len(found) > 1 else (self.activations,)

    def reached(self, tensor: str) -> set[str]:
        """A tensor and all whose values depend on it."""
        reached = {tensor}
        for i, node in enumerate(self.nodes):
            if ops.qualified(node) not in ops.SIZE_ONLY and not reached.isdisjoint(self.reads[i]):
                reached.update(name for name in node.output if name)
        return reached

    def with_feeders(self, nodes: frozenset[int]) -> frozenset[int]:
        """Nodes with those that make constants for them alone, such as weights put together on the way."""
        found = set(nodes)
        stack = list(nodes)
        while stack:
            for name in self.reads[stack.pop()]:
                maker = self.producer.get(name)
                if maker is None or maker in found or name in self.activations:
                    continue
                makes = [made for made in self.nodes[maker].output if made]
                inside = all(found.issuperset(self.readers.get(made, ())) for made in makes)
                if inside and not any(made in self.outputs or made in self.activations for made in makes):
                    found.add(maker)
                    stack.append(maker)
        return frozenset(found)

    def source(self, name: str) -> str:
        """What Identity nodes copy to a tensor; that itself where none does."""
        while (maker := self.producer.get(name)) is not None and ops.qualified(
            self.nodes[maker]
        ) == "Identity":
            name = self.nodes[maker].input[0]
        return name

    @cached_property
    def handed_on(self) -> dict[str, str]:
        """Initializers that copies and transpositions alone hand on, by the tensors that these make."""
        found: dict[str, str] = {}
        for node in self.nodes:
            if ops.qualified(node) in ("Identity", "Transpose"):
                name = found.get(node.input[0], node.input[0])
                if name in self.initializers and name not in self.input_dependent:
                    found[node.output[0]] = name
        return found

    def dead_nodes_if_unread(self, unread: Iterable[str], kept: Iterable[str] = ()) -> frozenset[int]:
        """Nodes that nothing needs once no node reads the tensors `unread`, while `kept` stay in use."""
        gone = set(unread)
        held = Counter((*kept, *(name for name in self.outputs if name not in gone)))
        left = _Counts(lambda name: 0 if name in gone else len(self.readers.get(name, ())) + held[name])
        dead: set[int] = set()
        stack = [self.producer[name] for name in gone if name in self.producer]
        while stack:
            node = stack.pop()
            if node in dead or any(left[name] > 0 for name in self.nodes[node].output):
                continue
            dead.add(node)
            for name in self.reads[node]:
                left[name] -= 1
                if name in self.producer and left[name] == 0:
                    stack.append(self.producer[name])
        return frozenset(dead)

    def _has_weights(self, i: int) -> bool:
        node = self.nodes[i]
        name = ops.qualified(node)
        if not any(read in self.input_dependent for read in self.reads[i]):
            return False
        if name in ops.WEIGHT_ATTRIBUTES:
            return True
        if name in ops.CONTROL_FLOW:
            return any(self._inside(child).weighted for child in subgraphs([node])) or self._hands_in(node)
        positions = ops.WEIGHT_INPUTS.get(name)
        if positions is None:
            # An unknown operator is a layer if a stored matrix is among its inputs.
            positions = tuple(range(len(node.input))) if ops.is_unknown(node) else ()
        operands = [node.input[k] for k in positions if k < len(node.input) and node.input[k]]
        return any(name not in self.input_dependent and self._is_matrix(name) for name in operands)

    def _hands_in(self, node: onnx.NodeProto) -> bool:
        """Whether a loop multiplies by matrices that it is handed as states, as TensorFlow's loops do."""
        matrices = any(
            name and name not in self.input_dependent and self._is_matrix(name) for name in node.input
        )
        inside = (inner for child in subgraphs([node]) for inner in child.node)
        return matrices and any(ops.qualified(inner) in ops.WEIGHT_INPUTS for inner in inside)

    def _inside(self, child: onnx.GraphProto) -> GraphIndex:
        """A branch or body, whose own inputs and captured tensors are what the caller feeds."""
        return GraphIndex(child, self.input_dependent, frozenset())

    def _is_matrix(self, name: str) -> bool:
        """Whether a constant has two axes or more; constants computed on the way count as such."""
        if (tensor := self.initializers.get(name)) is not None:
            return len(tensor.dims) >= 2
        producer = self.producer.get(name)
        if producer is not None and self.nodes[producer].op_type == "Constant":
            value = ops.attribute(self.nodes[producer], "value")
            return isinstance(value, onnx.TensorProto) and len(value.dims) >= 2
        return True


def index_of(model: Model) -> GraphIndex:
    """The look-ups over a model's main graph, made once per model."""
    found = model.facts.get("index")
    if not isinstance(found, GraphIndex):
        found = model.facts["index"] = GraphIndex(model.graph)
    return found


def reads(node: onnx.NodeProto) -> Iterator[str]:
    """Names a node reads, from inside its subgraphs too."""
    yield from (name for name in node.input if name)
    for graph in subgraphs([node]):
        yield from captured(graph)


def captured(graph: onnx.GraphProto) -> Iterator[str]:
    """Names a subgraph reads from the graphs around it."""
    own = {v.name for v in graph.input} | {t.name for t in graph.initializer}
    own.update(name for node in graph.node for name in node.output)
    for node in graph.node:
        yield from (name for name in reads(node) if name not in own)
    yield from (v.name for v in graph.output if v.name not in own)
