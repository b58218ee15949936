"""Costs of layers that overlap: every value is counted once, and the sum is the file's."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

from redtest_onnx.graph.cost import model_cost
from redtest_onnx.layers.claims import claimed
from redtest_onnx.layers.elsewhere import elsewhere
from redtest_onnx.layers.layer import find_layers
from redtest_onnx.layers.regions import Region
from tests.nets import Net


def embeddings() -> Net:
    """Ids of atoms and of their neighbours are looked up and added; a bias by distance joins later."""
    net = Net()
    tables = (net.weight(9, 8), net.weight(5, 8))
    found = [
        net("Gather", table, net.add_input(name, TensorProto.INT64, [1, 4]), name=f"{name}_rows")
        for name, table in zip(("atoms", "neighbours"), tables, strict=True)
    ]
    x = net("Add", *found)
    bias = net("Gather", net.weight(6, 4), net.add_input("distances", TensorProto.INT64, [1, 4]))
    x = net("Relu", net("MatMul", x, net.weight(8, 8)))
    x = net("Add", net("MatMul", x, net.weight(8, 4)), bias)
    net("MatMul", net("Relu", x), net.weight(4, 3), name="y")
    return net


def lstm_states() -> Net:
    """An LSTM whose hidden and whose cell state go on; its weights are put together in the graph."""
    net = Net(x=[3, 1, 8])
    x = net("Relu", net("MatMul", "x", net.weight(8, 8)))
    gates = net("Concat", net.weight(1, 16, 8), net.weight(1, 16, 8), axis=1)
    net("LSTM", x, gates, net.weight(1, 32, 8), outputs=3, hidden_size=8)
    _, hidden, cell = net.nodes[-1].output
    net("MatMul", net("Relu", hidden), net.weight(8, 3), name="y")
    net("Concat", net("Relu", hidden), net("Relu", cell), axis=0, name="state")
    return net


def sliced_weights() -> Net:
    """One layer reads its stored weights in two pieces."""
    net = Net(x=[1, 8])
    x = net("Relu", net("MatMul", "x", net.weight(8, 8)))
    stored = net.weight(16, 8)
    ends = [net.store([k], np.int64) for k in (0, 8, 16)]
    whole = net("Concat", net("Slice", stored, *ends[:2]), net("Slice", stored, *ends[1:]), axis=0)
    net("MatMul", net("Relu", net("Gemm", x, whole, transB=1)), net.weight(16, 3), name="y")
    return net


@pytest.mark.parametrize(
    ("net", "outputs"), [(embeddings(), "y"), (lstm_states(), "y state"), (sliced_weights(), "y")]
)
def test_layers_and_elsewhere_sum_up_to_the_file(net: Net, outputs: str) -> None:
    index, shapes = net.measured(*outputs.split())
    layers, cost = find_layers(index, shapes), model_cost(index, shapes)
    others = elsewhere(index, layers, cost)
    assert others.parameters >= 0
    assert (others.shared, others.shared_names) == (0, ())
    assert sum(layer.parameters for layer in layers) + others.parameters == cost.parameters
    assert sum(layer.macs or 0 for layer in layers) <= (cost.macs or 0)


def test_two_joined_embeddings_are_one_layer_and_a_looked_up_bias_is_none() -> None:
    layers = find_layers(*embeddings().measured("y"))
    assert [layer.tensor for layer in layers] == ["Add2", "Gather3", "MatMul4", "MatMul6"]
    assert layers[0].kind == "embedding"
    assert layers[0].parameters == 72 + 40


def region(*core: int) -> Region:
    return Region("x", "y", "y", frozenset(core), frozenset())


def test_nodes_go_to_what_can_go_then_to_cores_then_to_the_first() -> None:
    regions = [region(0, 1), region(2, 3), region(4)]
    parts = [frozenset({0, 1, 2, 9}), frozenset({2, 3, 9, 8}), frozenset({4, 8, 0})]
    assert claimed(regions, parts, [False, False, False]) == [{0, 1, 9}, {2, 3, 8}, {4}]
    assert claimed(regions, parts, [False, False, True]) == [{1, 9}, {2, 3}, {0, 4, 8}]
    assert claimed(regions, parts, [True, True, True]) == parts
    for short in ((regions[:2], parts, [False] * 3), (regions, parts, [False] * 2)):
        with pytest.raises(ValueError, match="zip"):
            claimed(*short)
