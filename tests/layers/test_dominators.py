"""Dominators as another implementation finds them, and which steps between them are looked into."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nets import Net

from redtest_onnx.layers.dominators import immediate_dominators

Steps = list[tuple[list[str], list[str]]]


@st.composite
def graphs(draw: st.DrawFn) -> Steps:
    """Steps that read what earlier ones made, the source, or what nothing makes."""
    made = [""]
    steps: Steps = []
    for k in range(draw(st.integers(1, 14))):
        sources = draw(st.lists(st.sampled_from([*made, "unknown"]), min_size=1, max_size=4))
        targets = [f"{k}/{j}" for j in range(draw(st.integers(0, 2)))]
        steps.append((sources, targets))
        made.extend(targets)
    return steps


@given(graphs())
def test_dominators_are_those_of_networkx(steps: Steps) -> None:
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_node("")
    graph.add_edges_from((a, b) for sources, targets in steps for a in sources for b in targets)
    expected = dict(nx.immediate_dominators(graph, ""))
    expected[""] = ""  # which newer versions give as None, or leave out
    assert immediate_dominators(steps) == expected


def test_a_skip_leaves_out_what_lies_between() -> None:
    steps = [([""], ["a"]), (["a"], ["b"]), (["b"], ["c"]), (["a", "c"], ["sum"])]
    assert immediate_dominators(steps) == {"": "", "a": "", "b": "a", "c": "b", "sum": "a"}


def test_paths_back_begin_at_another_tensor() -> None:
    back = [(["sum"], ["c"]), (["c"], ["b"]), (["b", "sum"], ["a"])]
    assert immediate_dominators(back, "sum") == {"sum": "sum", "c": "sum", "b": "c", "a": "sum"}


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_blocks_behind_a_branch_of_a_detector_are_layers(blocks: int) -> None:
    """However few there are on the second scale: what two heads read does not go as a whole."""
    net = Net(x=[1, 3, 8, 8])

    def residual(h: str, width: int, name: str) -> str:
        return net(
            "Relu", net("Add", net.conv(net("Relu", net.conv(h, width, width)), width, width), h), name=name
        )

    fine = residual(net("Relu", net.conv("x", 3, 4)), 4, "fine")
    coarse = net("Relu", net.conv(fine, 4, 8, stride=2), name="down")
    for k in range(blocks):
        coarse = residual(coarse, 8, f"coarse{k}")
    heads = []
    for width in (4, 3):
        shape = net.store([1, width, -1], np.int64)
        parts = [net("Reshape", net.conv(h, c, width), shape) for h, c in ((fine, 4), (coarse, 8))]
        heads.append(net("Concat", *parts, axis=2))
    scores = net("Softmax", heads[1], axis=1)
    layers = net.layers(heads[0], scores)
    found = [name for name, layer in layers.items() if layer.action == "bypass"]
    assert found == ["fine", *(f"coarse{k}" for k in range(blocks))]
