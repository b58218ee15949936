from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from nets import Net

import redtest_onnx as rt
from redtest_onnx.graph import tensors, weights_file
from redtest_onnx.graph.probe.taps import expose
from redtest_onnx.graph.streaming import serialised_size
from redtest_onnx.graph.weights_file import sharing_weights
from redtest_onnx.runtime.session import RunOptions, Session

CPU = RunOptions(device="cpu", threads=1)


@pytest.fixture(autouse=True)
def small_models_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights_file, "_LARGE_MODEL", 1 << 9)
    monkeypatch.setattr(tensors, "LARGE_WEIGHT", 1 << 8)


def two_products() -> rt.Model:
    net = Net(x=["n", 32])
    net("MatMul", "x", net.weight(32, 32), name="a")
    net("Relu", "a", name="b")
    net("MatMul", "b", net.weight(32, 8), name="y")
    return net.model("y")


def changed(model: rt.Model, k: int) -> rt.Model:
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    tensor = proto.graph.initializer[k]
    value = onnx.numpy_helper.to_array(tensor, str(model.folder))
    tensor.CopyFrom(onnx.numpy_helper.from_array(2 * value, tensor.name))
    return model.edited(proto)


def test_models_made_of_each_other_share_the_values_they_have_in_common() -> None:
    model = two_products()
    other = changed(expose(model, ["a", "y"]), 1)
    files = {path for each in (model, other) for path in sharing_weights(each).external_files}
    assert len(files) == 1
    # Three matrices, each on a page of its own: one is the same in both, the other was changed.
    assert files.pop().stat().st_size == 2 * 4096 + 32 * 8 * 4
    x = np.random.default_rng(0).normal(size=(3, 32)).astype(np.float32)
    found = [Session(each, CPU).run({"x": x})["y"] for each in (model, other)]
    np.testing.assert_allclose(found[1], 2 * found[0], rtol=1e-5)
    assert not any(map(weights_file.is_external, model.graph.initializer))


def test_the_file_is_gone_with_the_models() -> None:
    model = two_products()
    folder = sharing_weights(model).folder
    assert folder.exists()
    del model
    assert not folder.exists()


def test_saved_and_small_models_stay_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = two_products()
    saved = rt.save(model, tmp_path / "m.onnx")
    assert sharing_weights(saved) is saved
    monkeypatch.setattr(weights_file, "_LARGE_MODEL", 1 << 20)
    assert sharing_weights(model) is model


def test_a_model_whose_weights_lie_beside_it_stays_as_it_is(tmp_path: Path) -> None:
    onnx.save(
        two_products().proto, tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0, location="d"
    )
    edited = expose(rt.load(tmp_path / "m.onnx"), ["a"])
    assert sharing_weights(edited) is edited


@pytest.mark.parametrize("sizes", [(1, 1), (64, 64), (64, 65), (200, 333)])
def test_sizes_are_those_of_the_serialised_model(sizes: tuple[int, int]) -> None:
    net = Net(x=["n", sizes[0]])
    net("MatMul", "x", net.weight(*sizes), name="y")
    model = net.model("y")
    assert serialised_size(model) == len(model.proto.SerializeToString())
    assert model.file_bytes == serialised_size(model)
