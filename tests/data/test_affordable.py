"""As many synthetic samples as a model is worth, also where the sizes of a part are known in a run only."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from nets import Net

import redtest_onnx as rt
from redtest_onnx.data.affordable import LEAST, MOST


def images(side: int, *, sizes_read: bool) -> rt.Model:
    """Convolutions of an image; what follows is flattened to sizes that the graph reads, or to fixed ones."""
    net = Net(opset=18, x=["N", 16, side, side])
    x = "x"
    for _ in range(6):
        x = net("Relu", net.conv(x, 16, 16))
    if sizes_read:
        batch = net("Slice", net("Shape", x), *(net.store([k], np.int64) for k in (0, 1)))
        shape = net("Concat", batch, net("Div", net.store([16 * side * side], np.int64), batch), axis=0)
        # No inference follows this; only a run tells the sizes.
        x = net("Reshape", x, net("Where", net("Greater", batch, shape), shape, shape))
        return net.model(net("MatMul", net("ReduceMean", x, net.store([1], np.int64)), net.weight(1, 4)))
    return net.model(net("ReduceMean", x, net.store([1, 2, 3], np.int64)))


@pytest.mark.parametrize("sizes_read", [False, True])
def test_what_is_known_of_a_model_counts(sizes_read: bool) -> None:
    """Six convolutions of 2,304 weights at 224 x 224; a linear operator of unknown size hardly counts."""
    model = images(224, sizes_read=sizes_read)
    assert len(rt.open_data(None, model)) == pytest.approx(5e11 / (6 * 2304 * 224**2), rel=0.01)


def test_weights_of_unknown_use_are_used_as_often_as_those_before_them() -> None:
    """A transformer on patches of images whose number is read off a tensor, as exporters write it."""
    net = Net(opset=18, x=["N", 3, 224, 224])
    patches = net("Conv", "x", net.weight(64, 3, 16, 16), strides=[16, 16])
    front = net("Slice", net("Shape", patches), *(net.store([k], np.int64) for k in (0, 2)))
    tokens = net("Reshape", patches, net("Cast", net("Cast", front, to=1), to=onnx.TensorProto.INT64))
    h = net("Reshape", tokens, net("Concat", front, net.store([-1], np.int64), axis=0))
    for _ in range(8):
        h = net("MatMul", h, net.weight(64, 4096))
        h = net("MatMul", h, net.weight(4096, 64))
    count = len(rt.open_data(None, net.model(h)))
    assert LEAST < count < MOST
    assert count == pytest.approx(5e11 / (16 * 64 * 4096 * 196), rel=0.3)
