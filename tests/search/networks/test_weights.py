"""Weights under other names."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="networks need PyTorch: pip install 'redtest-onnx[nas]'")

from redtest_onnx.errors import InputError  # noqa: E402
from redtest_onnx.search.networks.weights import load_in_order  # noqa: E402
from redtest_onnx.search.space import ImageTask  # noqa: E402
from redtest_onnx.search.topology import TopologySpace  # noqa: E402

CELL = "|nor_conv_3x3~0|+|none~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_1x1~1|nor_conv_3x3~2|"


def test_weights_of_the_same_layers_fit_under_other_names() -> None:
    space, task = TopologySpace(4, 1), ImageTask(size=8)
    torch.manual_seed(0)
    first, second = space.build(CELL, task).eval(), space.build(CELL, task).eval()
    state = {
        f"module.{k}.{name.rpartition('.')[2]}": v for k, (name, v) in enumerate(first.state_dict().items())
    }
    load_in_order(second, state)
    images = torch.rand(2, 3, 8, 8)
    assert torch.equal(first(images), second(images))


def test_weights_of_another_network_are_refused() -> None:
    space, task = TopologySpace(4, 1), ImageTask(size=8)
    network = space.build(CELL, task)
    with pytest.raises(InputError, match=r"tensors, the network has"):
        load_in_order(network, space.build(CELL.replace("nor_conv_1x1", "none"), task).state_dict())
    with pytest.raises(InputError, match=r"do not fit: stem\.0\.weight"):
        load_in_order(network, TopologySpace(8, 1).build(CELL, task).state_dict())
