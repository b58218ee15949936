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


def called_with_too_much() -> onnx.ModelProto:
    proto = function("Block", "Relu", domain="own")
    proto.functions[0].node[0].domain = ""
    next(node for node in proto.graph.node if node.op_type == "Block").input.append("x")
    return proto


CASES: dict[str, tuple[Callable[[], onnx.ModelProto | bytes], str]] = {
    "no UTF-8": (lambda: chain().SerializeToString().replace(b"Relu", b"R\xfflu"), "not UTF-8"),
    "a function that calls itself": (lambda: function("Block", "Block"), "calls itself"),
    "a function like an operator": (lambda: function("Relu", "Tanh", domain=""), "called like an operator"),
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
}


@pytest.mark.parametrize("name", CASES)
def test_exit_code_two(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, message = CASES[name]
    content = make()
    (tmp_path / "m.onnx").write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    for command in ("inspect", "prune"):
        options = ["--remove", "1", "--samples", "8", "--batches", "1"] if command == "prune" else []
        assert run([command, str(tmp_path / "m.onnx"), *options]) == 2
        assert message in capsys.readouterr().err


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
