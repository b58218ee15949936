"""Situations in a network, not in the mathematics, in which other tools for CKA print wrong numbers."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from references import activations, slow_cka

import redtest_onnx as rt
from redtest_onnx.data.arrays import ArrayData
from redtest_onnx.errors import InputError
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analyze import AnalysisSettings
from redtest_onnx.similarity.compare import compare

CPU = rt.RunOptions("cpu")
EVERYTHING = AnalysisSettings(pooling="none", layers="all", samples=30, batches=1)


def data(count: int = 30, seed: int = 0) -> ArrayData:
    values = np.random.default_rng(seed).standard_normal((count, 3, 6, 6)).astype(np.float32)
    return ArrayData.in_memory(f"{count} random images", {"x": values})


def network() -> rt.Model:
    """Convolutions with ReLU, one called twice with the same weights, and a second output."""
    rng = np.random.default_rng(1)
    make, value = helper.make_node, helper.make_tensor_value_info
    sizes = {"first": (4, 3, 3, 3), "shared": (4, 4, 3, 3), "aside": (2, 4, 1, 1), "last": (5, 4, 3, 3)}
    weights = [
        numpy_helper.from_array(rng.standard_normal(size).astype(np.float32) / 3, name)
        for name, size in sizes.items()
    ]
    nodes = [
        make("Conv", ["x", "first"], ["conv1"], pads=[1] * 4),
        make("Relu", ["conv1"], ["relu1"]),
        make("Conv", ["relu1", "shared"], ["call1"], pads=[1] * 4),
        make("Relu", ["call1"], ["relu2"]),
        make("Conv", ["relu2", "shared"], ["call2"], pads=[1] * 4),
        make("Conv", ["relu2", "aside"], ["head"]),
        make("Relu", ["call2"], ["relu3"]),
        make("Conv", ["relu3", "last"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", TensorProto.FLOAT, ["n", 3, 6, 6])],
        [value("y", TensorProto.FLOAT, None), value("head", TensorProto.FLOAT, None)],
        weights,
    )
    return rt.Model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def test_every_tensor_is_its_own_row_under_its_own_name() -> None:
    """Hooks alias what ReLU overwrites, keep one call of a module, and order rows unlike their labels."""
    model, images = network(), data()
    analysis = rt.analyze(model, images, EVERYTHING, CPU)
    tensors = [layer.tensor for layer in analysis.layers]
    assert {"conv1", "relu1", "call1", "relu2", "call2", "relu3", "y", "head"} <= set(tensors)
    order = np.random.default_rng(0).permutation(30)
    values = activations(model, tensors, images.inputs(order))
    expected = slow_cka([value.reshape(30, -1) for value in values])
    np.testing.assert_allclose(analysis.similarity, expected, atol=2e-6)
    place = {name: k for k, name in enumerate(tensors)}
    for before, after in (("conv1", "relu1"), ("call1", "call2"), ("call2", "relu3")):
        assert analysis.similarity[place[before], place[after]] < 0.999


@pytest.mark.parametrize("count", [33, 35, 61])
def test_a_last_batch_of_few_samples_is_left_out(count: int) -> None:
    analysis = rt.analyze(network(), data(count), AnalysisSettings(layers="all", samples=16), CPU)
    assert analysis.batches == count // 16
    assert np.isfinite(analysis.similarity).all()


def test_two_data_sets_of_different_length_are_refused() -> None:
    model = network()
    with pytest.raises(InputError, match="must belong"):
        compare(Workbench(model, data(30), CPU), Workbench(model, data(20), CPU), EVERYTHING)


def test_the_model_is_left_as_it_was() -> None:
    model = network()
    before = model.proto.SerializeToString(deterministic=True)
    rt.analyze(model, data(), EVERYTHING, CPU)
    assert model.proto.SerializeToString(deterministic=True) == before


def test_data_is_read_once() -> None:
    class Counting(ArrayData):
        reads = 0

        def inputs(self, indices: object) -> dict[str, np.ndarray]:
            Counting.reads += len(indices)  # type: ignore[arg-type]
            return super().inputs(indices)  # type: ignore[arg-type]

    images = Counting(**vars(data(64)))
    rt.analyze(network(), images, AnalysisSettings(samples=16, batches=4), CPU)
    assert Counting.reads <= 64 + 3  # one or two more samples tell the shapes
