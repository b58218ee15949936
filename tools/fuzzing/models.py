"""Break valid models: their graphs in targeted ways, or their bytes at random."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import cache

import onnx
from onnx import TensorProto, helper

from fuzzing.seeds import SEEDS

Graph = onnx.GraphProto
SIZES = (0, -1, 1, 3, 2**31, 2**31 - 1, 2**62, -(2**63))
NAMES = ("", "input", "output", "w0", "\x00", "\x1b[31m", "[red]", "../x", "é" * 300, "a/b", "\u202e", " ")
PLACES = (
    "../../etc/passwd",
    "/etc/passwd",
    "gone",
    "",
    ".",
    "x" * 5000,
    "a\x00b",
    "data",
    "/dev/zero",
    "model.onnx",
)
OPERATORS = (
    *(
        "Relu",
        "Add",
        "Conv",
        "MatMul",
        "Gemm",
        "If",
        "Loop",
        "Scan",
        "Shape",
        "Reshape",
        "Expand",
        "Nonsense",
        "",
    ),
    *(
        "ConstantOfShape",
        "Constant",
        "Identity",
        "Cast",
        "Resize",
        "TopK",
        "NonZero",
        "SequenceEmpty",
        "Optional",
    ),
    *("LSTM", "Attention", "Block", "DequantizeLinear", "Gather", "Slice", "Split", "Concat", "Transpose"),
)


@cache
def valid() -> tuple[bytes, ...]:
    """The valid models."""
    return tuple(make().SerializeToString() for make in SEEDS)


def graphs(proto: onnx.ModelProto) -> Iterator[Graph]:
    """The main graph and those inside it."""
    stack = [proto.graph]
    while stack:
        graph = stack.pop()
        yield graph
        stack += [a.g for node in graph.node for a in node.attribute if a.HasField("g")]


def drop(proto: onnx.ModelProto, graph: Graph, rng: random.Random) -> None:
    """A node, weight, input or output is missing."""
    items = rng.choice(
        [graph.node, graph.node, graph.initializer, graph.input, graph.output, proto.opset_import]
    )
    del items[rng.randrange(len(items))]


def double(proto: onnx.ModelProto, graph: Graph, rng: random.Random) -> None:
    """Something stands twice."""
    items = rng.choice([graph.node, graph.initializer, graph.input, graph.output, proto.opset_import])
    items.append(rng.choice(items))


def rewire(proto: onnx.ModelProto, graph: Graph, rng: random.Random) -> None:
    """A node reads any tensor, perhaps its own, or one more, or one less."""
    node, source = rng.choice(graph.node), rng.choice(graph.node)
    kind = rng.randrange(4)
    if kind == 0:
        del node.input[rng.randrange(len(node.input)) :]
    elif kind == 1:
        node.input.append(rng.choice(source.output))
    else:
        node.input[rng.randrange(len(node.input))] = rng.choice([*source.output, *source.input])


def rename(proto: onnx.ModelProto, graph: Graph, rng: random.Random) -> None:
    """An operator, a domain, a node or a tensor is called otherwise, everywhere or in one place."""
    node = rng.choice(graph.node)
    kind = rng.randrange(5)
    if kind == 0:
        node.op_type = rng.choice(OPERATORS)
    elif kind == 1:
        node.domain = rng.choice(["com.microsoft", "ai.onnx.ml", "nowhere", "\n", "own"])
    elif kind == 2:
        node.name = rng.choice(NAMES)
    elif kind == 3:
        node.output[rng.randrange(len(node.output))] = rng.choice(NAMES)
    else:
        old, new = rng.choice(node.output), rng.choice(NAMES)
        for one in graph.node:
            one.input[:] = [new if name == old else name for name in one.input]
            one.output[:] = [new if name == old else name for name in one.output]


def resize(proto: onnx.ModelProto, graph: Graph, rng: random.Random) -> None:
    """A weight, an input or an inner tensor has other dimensions, more, or none."""
    size = rng.choice(SIZES)
    if graph.initializer and rng.random() < 0.5:
        tensor = rng.choice(graph.initializer)
        kind = rng.randrange(4)
        if kind == 0:
            tensor.dims.append(size)
        elif kind == 1:
            del tensor.dims[:]
        elif tensor.dims:
            tensor.dims[rng.randrange(len(tensor.dims))] = size
        if rng.random() < 0.3 and 0 in tensor.dims:
            tensor.ClearField("raw_data")
        return
    shape = rng.choice([*graph.input, *graph.output, *graph.value_info]).type.tensor_type.shape
    if rng.random() < 0.3:
        shape.dim.add().dim_param = rng.choice(NAMES)
    else:
        rng.choice(shape.dim).dim_value = size


def retype(proto: onnx.ModelProto, graph: Graph, rng: random.Random) -> None:
    """A weight, an input or an output has another type, also one that ONNX does not define."""
    kind = rng.choice([*range(28), 99, -1, 2**31 - 1])
    if graph.initializer and rng.random() < 0.5:
        rng.choice(graph.initializer).data_type = kind
        return
    value = rng.choice([*graph.input, *graph.output, *graph.value_info])
    if rng.random() < 0.2:
        value.type.sequence_type.elem_type.tensor_type.elem_type = 1
    else:
        value.type.tensor_type.elem_type = kind


def revalue(proto: onnx.ModelProto, graph: Graph, rng: random.Random) -> None:
    """A weight's bytes are too few, too many, in another field, or no numbers."""
    tensor = rng.choice(graph.initializer)
    data = tensor.raw_data
    kind = rng.randrange(6)
    if kind == 0:
        tensor.raw_data = data[: rng.randrange(len(data) + 1)]
    elif kind == 1:
        tensor.raw_data = data + bytes(rng.randrange(1, 40))
    elif kind == 2:
        tensor.ClearField("raw_data")
        tensor.float_data.extend([1.0] * rng.randrange(40))
    elif kind == 3:
        tensor.string_data.append(b"\xff")
    elif kind == 4:
        tensor.raw_data = bytes([rng.choice([0, 255, 127])]) * len(data)
    else:
        tensor.int32_data.extend([2**31 - 1] * rng.randrange(1, 40))


def attribute(proto: onnx.ModelProto, graph: Graph, rng: random.Random) -> None:
    """An attribute is gone, holds something else, or is of another type."""
    node = rng.choice([node for node in graph.node if node.attribute])
    k = rng.randrange(len(node.attribute))
    item = node.attribute[k]
    kind = rng.randrange(5)
    if kind == 0:
        del node.attribute[k]
    elif kind == 1:
        item.ints[:] = [rng.choice([-(2**62), -1, 0, 1, 7, 2**40]) for _ in range(rng.randrange(6))]
    elif kind == 2:
        item.i = rng.choice([-1, 0, 2, 2**40, -(2**63)])
    elif kind == 3:
        item.type = rng.randrange(16)
    else:
        item.name = rng.choice(["axis", "to", "value", "body", "perm", "", "then_branch"])


def outside(proto: onnx.ModelProto, graph: Graph, rng: random.Random) -> None:
    """A weight lies in another file."""
    tensor = rng.choice(graph.initializer)
    if rng.random() < 0.8:
        tensor.ClearField("raw_data")
    tensor.data_location = rng.choice([TensorProto.EXTERNAL, TensorProto.EXTERNAL, 7])
    tensor.external_data.add(key="location", value=rng.choice(PLACES))
    if rng.random() < 0.5:
        numbers = ["0", "-5", "x", "9" * 30, "9" * 5000, "1e3", " 1", "\u0663"]
        tensor.external_data.add(key=rng.choice(["offset", "length", "checksum"]), value=rng.choice(numbers))


def nest(proto: onnx.ModelProto, graph: Graph, rng: random.Random) -> None:
    """Branches within branches."""
    for depth in range(rng.choice([2, 12])):
        inner = helper.make_graph([], f"g{depth}", [], [])
        node = helper.make_node("If", ["input"], [f"if{depth}"], then_branch=inner, else_branch=inner)
        if rng.random() < 0.9 and len(graph.node):
            node.attribute[0].g.node.append(graph.node[-1])
        graph.node.append(node)


def function(proto: onnx.ModelProto, graph: Graph, rng: random.Random) -> None:
    """A local function that calls itself, shadows an operator, lacks something, or is there twice."""
    node = rng.choice(graph.node)
    domain = rng.choice(["own", "", "ai.onnx", node.domain])
    name = rng.choice(["Block", node.op_type, "Relu", "If", ""])
    inputs = [f"i{k}" for k in range(rng.randrange(4))]
    inside = [
        helper.make_node(
            rng.choice([name, "Relu", "Block"]), inputs[:2], ["o"], domain=rng.choice([domain, ""])
        )
    ]
    if rng.random() < 0.5 and proto.functions:
        found = rng.choice(proto.functions)
        kind = rng.randrange(5)
        if kind == 0:
            found.node.extend(inside)
        elif kind == 1:
            found.name = name
        elif kind == 2:
            del found.input[:]
        elif kind == 3:
            del found.node[:]
        else:
            found.node[0].CopyFrom(helper.make_node(found.name, ["x", "w"], ["h"], domain=found.domain))
        return
    opsets = [helper.make_opsetid("", rng.choice([17, 1, 99])), helper.make_opsetid("own", 1)]
    proto.functions.append(helper.make_function(domain, name, inputs, ["o"], inside, opsets))
    if rng.random() < 0.5:
        node.op_type, node.domain = name, domain


def sparse(proto: onnx.ModelProto, graph: Graph, rng: random.Random) -> None:
    """A sparse weight has other sizes, indices or values."""
    found = graph.sparse_initializer.add()
    if len(graph.sparse_initializer) > 1 and rng.random() < 0.7:
        graph.sparse_initializer.pop()
        found = graph.sparse_initializer[0]
    kind = rng.randrange(4)
    found.dims[:] = [rng.choice(SIZES) for _ in range(rng.randrange(3))]
    if kind == 0:
        found.values.CopyFrom(helper.make_tensor("s", 1, [2], [1.0, 2.0]))
        found.indices.CopyFrom(helper.make_tensor("", 7, [2], [rng.choice(SIZES) % 2**62 for _ in range(2)]))
    elif kind == 1 and graph.initializer:
        found.values.name = rng.choice(graph.initializer).name
    elif kind == 2:
        found.indices.dims[:] = [rng.choice(SIZES)]
    else:
        found.indices.data_type = rng.randrange(20)


def version(proto: onnx.ModelProto, graph: Graph, rng: random.Random) -> None:
    """Another IR or operator set."""
    if rng.random() < 0.5:
        proto.ir_version = rng.choice([0, 1, 3, 4, 7, 10, 14, 99, -1, 2**40])
    else:
        rng.choice(proto.opset_import).version = rng.choice([-1, 0, 1, 6, 9, 13, 18, 21, 24, 99, 2**40])


MUTATIONS: tuple[Callable[[onnx.ModelProto, Graph, random.Random], None], ...] = (
    *(
        drop,
        double,
        rewire,
        rename,
        resize,
        retype,
        revalue,
        attribute,
        outside,
        nest,
        function,
        sparse,
        version,
    ),
)


def broken(number: int, seed: int) -> bytes:
    """The bytes of one broken model."""
    rng = random.Random(f"{seed}/model/{number}")
    data = rng.choice(valid())
    if rng.random() < 0.8:
        proto = onnx.ModelProto.FromString(data)
        for _ in range(rng.choice([1, 1, 1, 2, 4])):
            graph = rng.choice([*graphs(proto), proto.graph])
            try:
                rng.choice(MUTATIONS)(proto, graph, rng)
            except (IndexError, ValueError, TypeError, UnicodeError):
                continue  # there is nothing of that kind, or protobuf does not take it
        return bytes(proto.SerializeToString())
    kind = rng.random()
    if kind < 0.1:
        return rng.randbytes(rng.randrange(1, 3000))
    if kind < 0.3:
        return data[: rng.randrange(len(data))]
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 3, 30])):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)
