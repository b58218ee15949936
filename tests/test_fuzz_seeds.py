"""Kinds of input that tools/fuzz.py once found to break something."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from nets import Net
from onnx import TensorProto, helper

from redtest_onnx.cli.main import run


def chain() -> onnx.ModelProto:
    net = Net(x=["n", 4])
    h = net("Relu", net("MatMul", "x", net.weight(4, 4)))
    return net.model(net("MatMul", h, net.weight(4, 2), name="y")).proto


def function(name: str, calls: str, *, domain: str = "own") -> onnx.ModelProto:
    proto = chain()
    nodes = [helper.make_node(calls, ["a"], ["b"], domain=domain)]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    proto.functions.append(helper.make_function(domain, name, ["a"], ["b"], nodes, opsets))
    proto.opset_import.append(helper.make_opsetid("own", 1))
    node = next(node for node in proto.graph.node if node.op_type == "Relu")
    node.op_type, node.domain = name, domain
    return proto


def changed(change: Callable[[onnx.TensorProto], object]) -> onnx.ModelProto:
    proto = chain()
    change(proto.graph.initializer[0])
    return proto


def external(tensor: onnx.TensorProto, location: str, **entries: str) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=value)


def typed(proto: onnx.ModelProto, kind: int) -> onnx.ModelProto:
    proto.graph.input[0].type.tensor_type.elem_type = kind
    return proto


def sparse() -> onnx.ModelProto:
    proto = chain()
    found = proto.graph.sparse_initializer.add(dims=[2**31])
    found.values.CopyFrom(helper.make_tensor("s", 1, [1], [1.0]))
    found.indices.CopyFrom(helper.make_tensor("", 7, [1], [5]))
    return proto


def unfolding(depth: int) -> onnx.ModelProto:
    """Functions that each call the one before twice."""
    proto = function("F0", "Relu", domain="own")
    proto.functions[0].node[0].domain = ""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    for k in range(depth):
        nodes = [helper.make_node(f"F{k}", [a], [b], domain="own") for a, b in (("a", "m"), ("m", "b"))]
        proto.functions.append(helper.make_function("own", f"F{k + 1}", ["a"], ["b"], nodes, opsets))
    next(node for node in proto.graph.node if node.op_type == "F0").op_type = f"F{depth}"
    return proto


def called_with_too_much() -> onnx.ModelProto:
    proto = function("Block", "Relu", domain="own")
    proto.functions[0].node[0].domain = ""
    next(node for node in proto.graph.node if node.op_type == "Block").input.append("x")
    return proto


def elsewhere(*dims: int) -> onnx.TensorProto:
    tensor = TensorProto(name="t", data_type=TensorProto.FLOAT, dims=dims)
    external(tensor, "w.data")
    return tensor


def filling(*, inside: str = "") -> onnx.ModelProto:
    """A node other than Constant keeps an attribute's values in another file; in a branch, or a function."""
    proto = chain()
    nodes = [
        helper.make_node("Shape", ["x" if inside == "branch" else "a"], ["s"]),
        helper.make_node("ConstantOfShape", ["s"], ["b"], name="fill", value=elsewhere(1)),
    ]
    if inside == "function":
        proto = function("Block", "Relu")
        del proto.functions[0].node[:]
        proto.functions[0].node.extend(nodes)
        return proto
    nodes[0].input[0] = "x"
    if inside == "branch":
        graph = helper.make_graph(nodes, "g", [], [helper.make_tensor_value_info("b", 1, None)])
        proto.graph.initializer.append(helper.make_tensor("c", TensorProto.BOOL, [], [True]))
        nodes = [helper.make_node("If", ["c"], ["b"], then_branch=graph, else_branch=graph)]
    proto.graph.node.extend(nodes)
    return proto


def sparse_elsewhere(*, attribute: bool) -> onnx.ModelProto:
    proto, found = chain(), onnx.SparseTensorProto(dims=[4])
    found.values.CopyFrom(elsewhere(1))
    found.indices.CopyFrom(helper.make_tensor("", TensorProto.INT64, [1], [2]))
    if attribute:
        proto.graph.node.append(helper.make_node("Constant", [], ["c"], name="s", sparse_value=found))
    else:
        proto.graph.sparse_initializer.append(found)
    return proto


def looping(
    turns: int | None = None, condition: bool | None = None, again: str = "handed on"
) -> onnx.ModelProto:
    """A Loop of so many turns, and what tells it to go on: what it was told, a stored value, or its state."""
    proto = chain()
    value = helper.make_tensor_value_info
    nodes = [helper.make_node("Relu", ["state"], ["next"])]
    inside: list[onnx.TensorProto] = []
    if again == "handed on":
        nodes += [
            helper.make_node("Identity", ["going"], ["g"]),
            helper.make_node("Identity", ["g"], ["still"]),
        ]
    elif again == "stored":
        inside = [helper.make_tensor("still", TensorProto.BOOL, [], [True])]
    elif again == "constant":
        stored = helper.make_tensor("", TensorProto.BOOL, [], [True])
        nodes.append(helper.make_node("Constant", [], ["still"], value=stored))
    elif again == "outside":
        proto.graph.initializer.append(helper.make_tensor("yes", TensorProto.BOOL, [1], [True]))
        nodes.append(helper.make_node("Identity", ["yes"], ["still"]))
    else:
        nodes += [
            helper.make_node("ReduceSum", ["next"], ["sum"], keepdims=0),
            helper.make_node("Greater", ["zero", "sum"], ["still"]),
        ]
        proto.graph.initializer.append(helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0]))
    body = helper.make_graph(
        nodes,
        "body",
        [
            value("turn", TensorProto.INT64, []),
            value("going", TensorProto.BOOL, []),
            value("state", 1, ["n", 2]),
        ],
        [value("still", TensorProto.BOOL, []), value("next", 1, ["n", 2])],
        inside,
    )
    inputs = ["", "", "y"]
    if turns is not None:
        proto.graph.initializer.append(helper.make_tensor("turns", TensorProto.INT64, [], [turns]))
        inputs[0] = "turns"
    if condition is not None:
        proto.graph.initializer.append(helper.make_tensor("going", TensorProto.BOOL, [1], [condition]))
        inputs[1] = "going"
    proto.graph.node.append(helper.make_node("Loop", inputs, ["z"], name="again", body=body))
    proto.graph.output[0].name = "z"
    return proto


ENDLESS: dict[str, Callable[[], onnx.ModelProto]] = {
    "told nothing": looping,
    "told to go on": lambda: looping(condition=True),
    "beyond counting": lambda: looping(2**62),
    "stored in its body": lambda: looping(again="stored"),
    "a constant of its body": lambda: looping(again="constant"),
    "stored outside": lambda: looping(again="outside"),
}
ENDING: dict[str, Callable[[], onnx.ModelProto]] = {
    "turns": lambda: looping(3),
    "no turn": lambda: looping(condition=False),
    "computed": lambda: looping(again="computed"),
    "computed, with a limit": lambda: looping(2**63 - 1, again="computed"),
}


CASES: dict[str, tuple[Callable[[], onnx.ModelProto | bytes], str]] = {
    "no UTF-8": (lambda: chain().SerializeToString().replace(b"Relu", b"R\xfflu"), "not UTF-8"),
    "a function that calls itself": (lambda: function("Block", "Block"), "calls itself"),
    "a function like an operator": (lambda: function("Relu", "Tanh", domain=""), "called like an operator"),
    "functions that unfold": (lambda: unfolding(30), "'own::F30' unfolds to 1,073,741,824 nodes"),
    "functions that unfold beyond counting": (lambda: unfolding(3000), "the model to 1,000,000,000,000,000"),
    "too many operands of a function": (called_with_too_much, "can't be inlined"),
    "an unknown type of a weight": (lambda: changed(lambda t: setattr(t, "data_type", 99)), "none that onnx"),
    "an unknown type of an input": (lambda: typed(chain(), -2), "none that onnx"),
    "a place with a NUL": (lambda: changed(lambda t: external(t, "a\0b")), "no place for a file"),
    "a place too long": (lambda: changed(lambda t: external(t, "x" * 5000)), "no place for a file"),
    "an offset without end": (
        lambda: changed(lambda t: external(t, "m.onnx", offset="9" * 6000)),
        "no valid",
    ),
    "data longer than sizes": (
        lambda: changed(lambda t: external(t, "m.onnx", length="200")),
        "take 64 bytes",
    ),
    "too few bytes": (lambda: changed(lambda t: setattr(t, "raw_data", bytes(60))), "the file holds 60"),
    "too many bytes": (lambda: changed(lambda t: setattr(t, "raw_data", bytes(65))), "the file holds 65"),
    "a sparse weight that blows up": (sparse, "would take 8.0 GiB"),
    "a sparse weight elsewhere": (lambda: sparse_elsewhere(attribute=False), "in another file, 'w.data'"),
    "a sparse constant elsewhere": (
        lambda: sparse_elsewhere(attribute=True),
        "node 's' (Constant): its attribute 'sparse_value' keeps its values in another file, 'w.data'",
    ),
    "an attribute elsewhere": (
        filling,
        "node 'fill' (ConstantOfShape): its attribute 'value' keeps its values in another file, 'w.data'",
    ),
    "an attribute of a branch elsewhere": (lambda: filling(inside="branch"), "'fill' (ConstantOfShape): its"),
    "an attribute of a function elsewhere": (
        lambda: filling(inside="function"),
        "local function 'Block', node 'fill' (ConstantOfShape): its attribute",
    ),
    **{f"a loop without end, {name}": (make, "'again' (Loop)") for name, make in ENDLESS.items()},
}


@pytest.mark.parametrize("name", CASES)
def test_exit_code_two(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, message = CASES[name]
    content = make()
    (tmp_path / "m.onnx").write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    (tmp_path / "w.data").write_bytes(bytes(64))
    for command in ("inspect", "prune"):
        options = ["--remove", "1", "--samples", "8", "--batches", "1"] if command == "prune" else []
        assert run([command, str(tmp_path / "m.onnx"), *options]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", ENDING)
def test_loops_that_end_are_run(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "m.onnx").write_bytes(ENDING[name]().SerializeToString())
    assert run(["expose", str(tmp_path / "m.onnx"), "--all", "-o", str(tmp_path / "o.onnx"), "-q"]) in (0, 2)
    assert "never ends" not in capsys.readouterr().err


def test_files_of_ir_version_three_take_adapters(tmp_path: Path) -> None:
    """Initializers of such files are inputs, too; those of an adapter join them."""
    net = Net(8, x=["n", 3, 6, 6])
    h = net("Relu", net.conv("x", 3, 4))
    h = net("Relu", net.conv(h, 4, 6))  # an adapter of 1x1 is smaller than 3x3
    h = net("Relu", net.conv(h, 6, 6))
    h = net("Flatten", net("GlobalAveragePool", h))
    proto = net.model(net("MatMul", h, net.weight(6, 2), name="y")).proto
    proto.ir_version = 3
    for tensor in proto.graph.initializer:
        proto.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    command = ["prune", str(tmp_path / "m.onnx"), "--samples", "16", "--batches", "1", "--remove", "1"]
    assert run([*command, "--repair", "adapter", "-o", str(tmp_path / "out.onnx")]) == 0
    pruned = onnx.load(tmp_path / "out.onnx")
    onnx.checker.check_model(pruned, full_check=True)
    assert any("adapter" in tensor.name for tensor in pruned.graph.initializer)
    assert {t.name for t in pruned.graph.initializer} <= {v.name for v in pruned.graph.input}
