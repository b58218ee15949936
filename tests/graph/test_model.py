from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import redtest_onnx as rt
from redtest_onnx.graph.surgery import Removal, remove_regions
from redtest_onnx.graph.validity import full_check
from redtest_onnx.graph.writing import writable, write_atomic
from redtest_onnx.runtime.session import Session


def big(folder: Path) -> Path:
    """Three products with external weights."""
    weights = [numpy_helper.from_array(np.full((4, 4), k, np.float32), f"w{k}") for k in (1, 2, 3)]
    nodes = [
        helper.make_node("MatMul", [a, f"w{k}"], [b])
        for k, a, b in ((1, "x", "a"), (2, "a", "b"), (3, "b", "y"))
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in "xy"]
    graph = helper.make_graph(nodes, "big", values[:1], values[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "big.onnx", save_as_external_data=True, location="big.data", size_threshold=0)
    return folder / "big.onnx"


def test_external_weights_stay_outside(tmp_path: Path) -> None:
    model = rt.load(big(tmp_path))
    assert not any(t.raw_data for t in model.graph.initializer)
    assert model.value(model.initializers["w2"])[0, 0] == 2
    full_check(model)


def test_only_used_external_weights_are_written(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    model = rt.load(big(source))
    pruned = remove_regions(model, [Removal("a", "b")])
    full_check(pruned)
    saved = rt.save(pruned, tmp_path / "small.onnx")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["small.onnx", "small.onnx.data", "source"]
    assert (tmp_path / "small.onnx.data").stat().st_size == 2 * 64
    x = np.ones((2, 4), np.float32)
    expected = x @ np.full((4, 4), 1) @ np.full((4, 4), 3)
    np.testing.assert_allclose(Session(rt.load(tmp_path / "small.onnx")).run({"x": x})["y"], expected)
    np.testing.assert_allclose(Session(pruned).run({"x": x})["y"], expected)
    assert saved.file_bytes == sum(p.stat().st_size for p in tmp_path.glob("small.*"))


@pytest.mark.parametrize(
    ("location", "message"),
    [("../outside.data", "outside the model's folder"), ("gone.data", "missing"), ("", "outside")],
)
def test_external_data_elsewhere_is_refused(tmp_path: Path, location: str, message: str) -> None:
    path = big(tmp_path)
    (tmp_path.parent / "outside.data").write_bytes(bytes(1000))
    proto = onnx.load(path, load_external_data=False)
    next(e for e in proto.graph.initializer[0].external_data if e.key == "location").value = location
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(rt.InputError, match=message):
        rt.load(path)


def test_short_external_data_is_refused(tmp_path: Path) -> None:
    path = big(tmp_path)
    (tmp_path / "big.data").write_bytes(bytes(100))
    with pytest.raises(rt.InputError, match="too short"):
        rt.load(path)


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    def fail(target: Path) -> None:
        target.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "out.txt", fail)
    assert list(tmp_path.iterdir()) == []


def test_existing_outputs_are_spared(tmp_path: Path) -> None:
    (tmp_path / "out.onnx").touch()
    with pytest.raises(rt.OutputError, match="exists already"):
        writable(tmp_path / "out.onnx", force=False)
    writable(tmp_path / "out.onnx", force=True)


def test_a_model_without_a_graph_is_refused(tmp_path: Path) -> None:
    (tmp_path / "none.onnx").write_bytes(onnx.ModelProto(ir_version=8).SerializeToString())
    with pytest.raises(rt.InputError, match="holds no graph"):
        rt.load(tmp_path / "none.onnx")


def test_an_invalid_graph_is_refused(tmp_path: Path) -> None:
    node = helper.make_node("Relu", ["nowhere"], ["y"])
    value = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    proto = helper.make_model(helper.make_graph([node], "g", [], [value]), ir_version=8)
    (tmp_path / "bad.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(rt.InputError, match="which nothing makes"):
        rt.load(tmp_path / "bad.onnx")


def test_weights_listed_as_inputs_are_none(tmp_path: Path) -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "w", "y")]
    weight = numpy_helper.from_array(np.ones(1, np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])], "g", values[:2], values[2:], [weight]
    )
    model = rt.Model(helper.make_model(graph, ir_version=8))
    assert [spec.name for spec in model.inputs] == ["x"]
