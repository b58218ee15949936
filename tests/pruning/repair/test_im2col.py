from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from redtest_onnx.pruning.repair.im2col import Window, patches, values_at


@pytest.mark.parametrize(
    ("kernel", "strides", "dilations", "pads"),
    [
        ((3, 3), (1, 1), (1, 1), (1, 1, 1, 1)),
        ((1, 1), (2, 2), (1, 1), (0, 0, 0, 0)),
        ((3, 2), (2, 1), (1, 1), (0, 1, 2, 0)),
        ((3, 3), (1, 2), (2, 2), (2, 2, 2, 2)),
    ],
)
def test_patches_times_weights_are_the_convolution(
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
    pads: tuple[int, int, int, int],
) -> None:
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, 3, 9, 8)).astype(np.float32)
    weight = rng.normal(size=(4, 3, *kernel)).astype(np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"], strides=strides, dilations=dilations, pads=pads)
    graph = helper.make_graph(
        [node],
        "conv",
        [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in ("x", "w")],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
    )
    expected = ReferenceEvaluator(helper.make_model(graph)).run(None, {"x": images, "w": weight})[0]
    height, width = expected.shape[2:]
    rows, columns = np.divmod(np.arange(height * width), width)
    found = patches(images, Window(kernel, strides, dilations, pads[:2]), rows, columns)
    product = np.einsum("rtc,mct->rm", found, weight.reshape(4, 3, -1))
    np.testing.assert_allclose(product, values_at(expected, rows, columns), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "places", [[0, 1, 2], [0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [1, 3], [0, 2, 4, 1, 3, 5], []]
)
def test_values_are_those_of_the_places_in_their_order(places: list[int]) -> None:
    images = np.arange(24.0).reshape(2, 2, 2, 3)
    rows, columns = np.divmod(np.array(places, np.int64), 3)
    expected = [images[n, :, place // 3, place % 3] for n in range(2) for place in places]
    np.testing.assert_array_equal(values_at(images, rows, columns), np.reshape(expected, (-1, 2)))
