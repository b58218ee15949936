"""Dominators as another implementation finds them."""

from __future__ import annotations

import networkx as nx
from hypothesis import given
from hypothesis import strategies as st

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
