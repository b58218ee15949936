"""Where sizes come from: reshapes to several sizes of a tensor at once."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from redtest_onnx.graph.index import index_of
from redtest_onnx.graph.size_origins import SizeOrigins
from redtest_onnx.graph.sizes import move_sizes
from redtest_onnx.runtime.session import Session
from tests.nets import Net


def _patches(how: str) -> Net:
    """A convolution whose first sizes are kept while its last two are merged, and a reader of the batch."""
    net = Net(x=["n", 3, 8, 8])
    conv = net.conv("x", 3, 4, name="conv")
    shape = net("Shape", conv)
    if how == "slice":
        kept = net("Slice", shape, net.store([0], np.int64), net.store([2], np.int64))
    else:
        kept = net("Gather", shape, net.store([0, 1], np.int64))
    flat = net("Reshape", conv, net("Concat", kept, net.store([-1], np.int64), axis=0), name="flat")
    batch = net("Gather", net("Shape", flat), net.store(0, np.int64))
    target = net(
        "Concat", net("Unsqueeze", batch, net.store([0], np.int64)), net.store([-1], np.int64), axis=0
    )
    net("Reshape", net("Relu", flat), target, name="rows")
    return net


@pytest.mark.parametrize("how", ["slice", "gather"])
def test_sizes_that_are_taken_together_keep_their_places(how: str) -> None:
    model = _patches(how).model("rows")
    origins = SizeOrigins(model, index_of(model))
    assert origins.of("flat", 0) == origins.of("conv", 0)
    assert origins.of("flat", 1) == origins.of("conv", 1)
    assert origins.of("flat", 2) == (("flat", 2),)


@pytest.mark.parametrize("how", ["slice", "gather"])
def test_a_list_of_sizes_is_no_origin_of_a_size(how: str) -> None:
    model = _patches(how).model("rows")
    moved, _ = move_sizes(model)
    onnx.checker.check_model(moved.proto)
    feeds = {"x": np.random.default_rng(0).normal(size=(5, 3, 8, 8)).astype(np.float32)}
    before, after = Session(model).run(feeds)["rows"], Session(moved).run(feeds)["rows"]
    np.testing.assert_array_equal(before, after)


def test_what_follows_an_unknown_number_of_sizes_has_no_place() -> None:
    net = Net(x=["n", 4], k=[])
    net.inputs["target"] = (onnx.TensorProto.INT64, ["m"])
    rows = net("MatMul", "x", net.weight(4, 4))
    net("Reshape", rows, net("Concat", "target", net.store([-1], np.int64), axis=0), name="free")
    model = net.model("free")
    assert SizeOrigins(model, index_of(model)).of("free", 1) == (("free", 1),)
