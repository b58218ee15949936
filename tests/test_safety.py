"""Hostile and broken files: one clear message, exit code 2, little time and memory."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import process_time

import numpy as np
import onnx
import pytest
from nets import Net, branch
from onnx import TensorProto, helper

from redtest_onnx.cli.main import run

resource = pytest.importorskip("resource", reason="memory is measured with it")

SECONDS, MEBIBYTES = 10, 512
UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss


def chain(length: int = 3) -> onnx.ModelProto:
    net = Net(x=["n", 4])
    h = "x"
    for _ in range(length):
        h = net("Relu", net("MatMul", h, net.weight(4, 4)))
    return net.model(net("MatMul", h, net.weight(4, 2), name="y")).proto


def blown_up(size: int) -> onnx.ModelProto:
    """A layer whose values are repeated beyond reason in the middle of the network."""
    net = Net(x=["n", 4])
    h = net("Unsqueeze", net("MatMul", "x", net.weight(4, 4)), net.store([1], np.int64))
    h = net("ReduceMax", net("Expand", h, net.store([1, size, 4], np.int64)), axes=[1], keepdims=0)
    for _ in range(2):
        h = net("Relu", net("MatMul", h, net.weight(4, 4)))
    return net.model(net("MatMul", h, net.weight(4, 4), name="y")).proto


def filled(size: int) -> onnx.ModelProto:
    """Constants made on the way, beyond reason."""
    net = Net(x=["n", 4])
    h = net("Relu", net("MatMul", "x", net.weight(4, 4)))
    huge = net("ReduceMax", net("ConstantOfShape", net.store([size], np.int64)), keepdims=0)
    h = net("Relu", net("MatMul", net("Add", h, huge), net.weight(4, 4)))
    return net.model(net("MatMul", h, net.weight(4, 4), name="y")).proto


def external(location: str, *, constant: bool = False) -> onnx.ModelProto:
    proto = chain()
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    if constant:
        node = helper.make_node("Constant", [], [tensor.name], value=tensor)
        del proto.graph.initializer[0]
        proto.graph.node.insert(0, node)
    return proto


def nested(depth: int) -> bytes:
    """An If within an If within ..., deeper than protobuf itself would write."""
    graph = branch("b", [helper.make_node("Relu", ["x"], ["r"])]).SerializeToString()
    for _ in range(depth):
        attribute = field(6, graph) + helper.make_attribute("then_branch", 0).SerializeToString()
        graph = field(1, field(5, attribute) + onnx.NodeProto(op_type="If").SerializeToString())
    proto = chain()
    proto.ClearField("graph")
    return proto.SerializeToString() + field(7, graph)


def field(number: int, content: bytes) -> bytes:
    size, length = [], len(content)
    while length > 127:
        size.append(length & 127 | 128)
        length >>= 7
    return bytes([number << 3 | 2, *size, length]) + content


def changed(change: Callable[[onnx.GraphProto], object]) -> Callable[[], onnx.ModelProto]:
    def make() -> onnx.ModelProto:
        proto = chain()
        change(proto.graph)
        return proto

    return make


def branches(results: int) -> onnx.ModelProto:
    """An If of two outputs whose branches give that many."""
    value = helper.make_tensor_value_info
    made = [value(f"b{k}", TensorProto.FLOAT, ["n", 4]) for k in range(results)]
    nodes = [helper.make_node("Relu", ["x"], [one.name]) for one in made]
    branch = helper.make_graph(nodes, "branch", [], made)
    condition = helper.make_tensor("c", TensorProto.BOOL, [], [True])
    choice = helper.make_node("If", ["c"], ["y", "z"], "choice", then_branch=branch, else_branch=branch)
    outputs = [value("y", TensorProto.FLOAT, ["n", 4])]
    inputs = [value("x", TensorProto.FLOAT, ["n", 4])]
    return helper.make_model(helper.make_graph([choice], "g", inputs, outputs, [condition]))


def dimension(graph: onnx.GraphProto, axis: int, size: int) -> None:
    graph.input[0].type.tensor_type.shape.dim[axis].dim_value = size


CASES: dict[str, tuple[Callable[[], onnx.ModelProto | bytes], str]] = {
    "external data above": (lambda: external("../secret.bin"), "outside the model's folder"),
    "external data anywhere": (lambda: external("/etc/passwd"), "outside the model's folder"),
    "external data of a constant": (lambda: external("../s", constant=True), "outside the model's folder"),
    "external data through a link": (lambda: external("link/secret.bin"), "outside the model's folder"),
    "huge weight": (changed(lambda g: g.initializer[0].dims.extend([2**40, 2**40])), "the file holds 64"),
    "negative weight": (changed(lambda g: g.initializer[0].dims.append(-4)), "Negative dimension"),
    "huge input": (changed(lambda g: dimension(g, 1, 2**40)), "would take 4096.0 GiB"),
    "huge batch": (changed(lambda g: dimension(g, 0, 2**62)), "fixes a batch of"),
    "blown up": (lambda: blown_up(2**31), "would take 32.0 GiB"),
    "blown up beyond counting": (lambda: blown_up(2**45), "GiB"),
    "filled": (lambda: filled(2**33), "would take 32.0 GiB"),
    "deeply nested": (lambda: nested(500), "nested too deeply"),
    "cycle": (changed(lambda g: g.node[0].input.__setitem__(0, g.node[2].output[0])), "its own output"),
    "dangling": (changed(lambda g: g.node[2].input.__setitem__(0, "nowhere")), "which nothing makes"),
    "tensor made twice": (
        changed(lambda g: g.node[2].output.__setitem__(0, g.node[0].output[0])),
        "two nodes make",
    ),
    "output made twice": (
        changed(lambda g: g.node.append(helper.make_node("Relu", ["x"], ["y"]))),
        "two nodes make",
    ),
    "two nodes of one name": (
        changed(lambda g: setattr(g.node[1], "name", g.node[0].name)),
        "two nodes are called",
    ),
    "weight stored twice": (changed(lambda g: g.initializer.append(g.initializer[0])), "not unique"),
    "input listed twice": (changed(lambda g: g.input.append(g.input[0])), "SSA"),
    "input without shape": (changed(lambda g: g.input[0].type.tensor_type.ClearField("shape")), "shape"),
    "input without type": (changed(lambda g: g.input[0].ClearField("type")), "type"),
    "wrong input shape": (changed(lambda g: dimension(g, 1, 5)), "ncompatible dimensions"),
    "branches of other outputs": (lambda: branches(1), "it has 2 outputs, its"),
    "not UTF-8": (lambda: chain().SerializeToString().replace(b"Relu", b"R\xfflu"), "not UTF-8"),
}


@pytest.fixture
def bounded() -> Iterator[None]:
    """Holds the CPU time a test takes, and what it adds to the memory of the process."""
    begin, before = process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert process_time() - begin < SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * UNIT < MEBIBYTES << 20


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("name", CASES)
def test_one_message_and_exit_code_two(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, message = CASES[name]
    (tmp_path / "secret.bin").write_bytes(bytes(64))
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    content = make()
    path = folder / "m.onnx"
    path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    for command in (["inspect"], ["prune", "--remove", "1", "--samples", "8", "--batches", "1"]):
        assert run([command[0], str(path), "--threads", "1", *command[1:]]) == 2
        found = capsys.readouterr().err
        assert found.count("error:") == 1
        assert message in found
        assert str(path) in found
        assert "Traceback" not in found
    assert sorted(p.name for p in folder.iterdir()) == ["link", "m.onnx"]


@pytest.mark.parametrize("which", ["output", "value_info"])
def test_wrong_declared_shapes_behind_the_inputs_are_not_believed(
    which: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    proto = chain()
    shape = getattr(proto.graph, which)[0].type.tensor_type.shape
    del shape.dim[:]
    shape.dim.add(dim_value=7)
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    command = ["prune", str(tmp_path / "m.onnx"), "--remove", "1", "--samples", "8", "--batches", "1"]
    assert run([*command, "--repair", "none", "-o", str(tmp_path / "out.onnx")]) == 0
    assert len(onnx.load(tmp_path / "out.onnx").graph.node) == len(proto.graph.node) - 2
    capsys.readouterr()


@pytest.mark.usefixtures("bounded")
def test_a_long_chain_takes_time_in_proportion(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(chain(1500).SerializeToString())
    assert run(["inspect", str(tmp_path / "m.onnx"), "-q"]) == 0
