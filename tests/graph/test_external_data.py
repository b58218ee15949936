"""Weights outside the model's file: which are refused, and what is kept when they are saved again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from external_models import edit, external
from nets import Net, branch
from onnx import TensorProto, helper, numpy_helper

import redtest_onnx as rt
from redtest_onnx.graph.index import index_of
from redtest_onnx.graph.size_origins import constant
from redtest_onnx.graph.validity import full_check
from redtest_onnx.runtime.outputs.trace import constant_axes
from redtest_onnx.runtime.session import Session


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [("offset", "-4", "too short"), ("length", "8", "too short"), ("offset", "far", "no valid offset")],
)
def test_wrong_ranges_of_external_data(tmp_path: Path, key: str, value: str, message: str) -> None:
    path = external(tmp_path)
    edit(path, key, value)
    with pytest.raises(rt.InputError, match=message):
        rt.load(path)


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    path = external(folder)
    (folder / "big.data").rename(tmp_path / "elsewhere")
    (folder / "big.data").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(rt.InputError, match="outside"):
        rt.load(path)


def test_external_weights_of_a_branch(tmp_path: Path) -> None:
    net = Net(x=[2, 4])
    product = helper.make_node("MatMul", ["x", "inner"], ["then"])
    inner = numpy_helper.from_array(np.eye(4, dtype=np.float32), "inner")
    net(
        "If",
        net.store(True, np.bool_),
        name="y",
        then_branch=branch("then", [product], [inner]),
        else_branch=branch("else", [helper.make_node("Relu", ["x"], ["else"])]),
    )
    path = tmp_path / "if.onnx"
    onnx.save(net.model("y").proto, path, save_as_external_data=True, location="w", size_threshold=0)
    model = rt.load(path)
    full_check(model)
    assert model.external_files == (tmp_path / "w",)
    saved = rt.load(rt.save(model, tmp_path / "copy.onnx").path or "")
    then = next(a.g for a in saved.graph.node[0].attribute if a.name == "then_branch").initializer[0]
    np.testing.assert_array_equal(saved.value(then), np.eye(4))


def test_half_bytes_of_external_data_are_kept(tmp_path: Path) -> None:
    four_bits = helper.make_tensor("w", TensorProto.INT4, [3], bytes([0x21, 0x03]), raw=True)
    net = Net(21, x=[3])
    net.weights.append(four_bits)
    net("Add", "x", net("DequantizeLinear", "w", net.store(1.0)), name="y")
    path = tmp_path / "four.onnx"
    onnx.save(net.model("y").proto, path, save_as_external_data=True, location="four.data", size_threshold=0)
    proto = onnx.load(path, load_external_data=False)
    entries = proto.graph.initializer[0].external_data
    entries.remove(next(e for e in entries if e.key == "length"))
    path.write_bytes(proto.SerializeToString())
    saved = rt.save(rt.load(path), tmp_path / "copy.onnx")
    np.testing.assert_array_equal(saved.value(saved.graph.initializer[0]).astype(int), [1, 2, 3])


def test_external_weights_of_constant_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = np.random.default_rng(0).random((4, 4), np.float32)
    (tmp_path / "w.bin").write_bytes(weight.tobytes())
    tensor = onnx.TensorProto(name="w", data_type=1, dims=[4, 4], data_location=1)
    tensor.external_data.add(key="location", value="w.bin")
    net = Net(x=[2, 4])
    net.nodes.append(helper.make_node("Constant", [], ["w"], value=tensor))
    path = tmp_path / "m.onnx"
    path.write_bytes(net.model(net("MatMul", "x", "w", name="y")).proto.SerializeToString())
    monkeypatch.chdir(Path(__file__).parent)
    model = rt.load(path)
    full_check(model)
    saved = rt.save(model, tmp_path / "copy.onnx")
    x = np.ones((2, 4), np.float32)
    for one in (model, saved):
        np.testing.assert_allclose(Session(one).run({"x": x})["y"], x @ weight, rtol=1e-6)


def test_small_constants_outside_of_the_file_are_read_or_unknown(tmp_path: Path) -> None:
    """Constant nodes whose values an exporter put beside the graph."""
    net = Net(x=[2, 4])
    net.nodes.append(
        helper.make_node("Constant", [], ["pad"], value=numpy_helper.from_array(np.int64([7]), "pad"))
    )
    net.nodes.append(
        helper.make_node("Constant", [], ["axes"], value=numpy_helper.from_array(np.int64([1]), "axes"))
    )
    total = net("ReduceSum", "x", "axes")
    model = net.model(total)
    path = tmp_path / "m.onnx"
    onnx.save(
        model.proto,
        path,
        save_as_external_data=True,
        location="m.data",
        size_threshold=0,
        convert_attribute=True,
    )
    loaded = rt.load(path)
    index = index_of(loaded)
    assert constant(loaded, index, "pad") == [7]
    reduction = next(node for node in loaded.graph.node if node.op_type == "ReduceSum")
    assert constant_axes(index, reduction) == ()
