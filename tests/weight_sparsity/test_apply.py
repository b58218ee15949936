"""Masks in the file: exact zeros where weights are gone, everything else byte for byte."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from nets import Net
from onnx import TensorProto, numpy_helper

import redtest_onnx as rt
from redtest_onnx.errors import InputError
from redtest_onnx.graph.model import Model
from redtest_onnx.runtime.session import Session
from redtest_onnx.weight_sparsity.apply import apply_masks, chosen_weights, one_shot_masks
from redtest_onnx.weight_sparsity.masks import SCOPES, Amount, Scope
from redtest_onnx.weight_sparsity.weights import find_weights

MODELS = Path(__file__).parents[2] / "models"


def half(model: Model, scope: Scope = "global", folder: Path | None = None) -> Model:
    weights = chosen_weights(model)
    return apply_masks(model, weights, one_shot_masks(model, weights, scope, Amount(0.5)), folder)


def zeros(model: Model) -> list[float]:
    return [float(np.mean(weight.values(model) == 0)) for weight in find_weights(model)[0]]


@pytest.mark.parametrize("scope", SCOPES)
def test_one_shot_zeroes_the_smallest_and_nothing_else(scope: Scope) -> None:
    model = rt.load(MODELS / "vgg_digits.onnx")
    before = model.proto.SerializeToString(deterministic=True)
    result = half(model, scope)
    assert model.proto.SerializeToString(deterministic=True) == before
    shares = zeros(result)
    total = sum(weight.elements for weight in find_weights(model)[0])
    zeroed = sum(int(np.sum(weight.values(result) == 0)) for weight in find_weights(result)[0])
    assert zeroed == pytest.approx(total / 2, rel=0.01)
    if scope != "global":
        assert all(0.4 < share <= 0.5 for share in shares)
    for weight, old in zip(find_weights(result)[0], find_weights(model)[0], strict=True):
        new, values = weight.values(result), old.values(model)
        kept = new != 0
        np.testing.assert_array_equal(new[kept], values[kept])
        assert not np.signbit(new[~kept]).any()
        old.tensor.CopyFrom(weight.tensor)
    # With the weights put in, nothing else differs.
    assert model.proto.SerializeToString(deterministic=True) == result.proto.SerializeToString(
        deterministic=True
    )


def test_quantised_weights_go_to_their_zero_point() -> None:
    net = Net(x=[4, 4])
    stored = net.store(np.random.default_rng(0).integers(-128, 128, size=(4, 3)), np.int8)
    made = net("DequantizeLinear", stored, net.store(0.1), net.store(7, np.int8))
    result = half(net.model(net("MatMul", "x", made)))
    assert np.sum(numpy_helper.to_array(result.graph.initializer[0]) == 7) >= 6
    assert np.sum(Session(result).run({"x": np.eye(4, dtype=np.float32)})["MatMul1"] == 0) >= 6


def test_half_precision_stays_half_precision() -> None:
    net = Net(x=[4, 4])
    net.weights.append(numpy_helper.from_array(np.ones((4, 4), np.float16), "w"))
    result = half(net.model(net("MatMul", "x", net("Cast", "w", to=TensorProto.FLOAT))))
    assert result.graph.initializer[0].data_type == TensorProto.FLOAT16
    assert zeros(result) == [0.5]


def test_external_data_is_written_beside(tmp_path: Path) -> None:
    net = Net(x=[1, 64])
    hidden = net("MatMul", "x", net.weight(64, 64))
    proto = net.model(net("Add", net("MatMul", hidden, net.weight(64, 32)), net.weight(32))).proto
    inline = half(Model(proto))
    large = onnx.ModelProto()
    large.CopyFrom(proto)
    onnx.save(large, tmp_path / "large.onnx", save_as_external_data=True, size_threshold=0)
    model = rt.load(tmp_path / "large.onnx")
    folder = tmp_path / "work"
    folder.mkdir()
    result = half(model, folder=folder)
    assert result.proto.ByteSize() < 1500
    saved = rt.save(result, tmp_path / "sparse.onnx")
    feeds = {"x": np.random.default_rng(0).normal(size=(1, 64)).astype(np.float32)}
    for name, value in Session(inline).run(feeds).items():
        np.testing.assert_array_equal(Session(saved).run(feeds)[name], value)
        np.testing.assert_array_equal(Session(result).run(feeds)[name], value)
    assert zeros(rt.load(tmp_path / "sparse.onnx")) == zeros(inline)


def test_protected_tensors_stay() -> None:
    model = rt.load(MODELS / "vgg_digits.onnx")
    names = [weight.name for weight in chosen_weights(model, ["features.0.*", "head*"])]
    assert "features.0.weight" not in names
    assert "features.3.weight" in names
    with pytest.raises(InputError, match="matches no"):
        chosen_weights(model, ["nothing*"])
    with pytest.raises(InputError, match="no weights to prune"):
        chosen_weights(model, ["*"])
