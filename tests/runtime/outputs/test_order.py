"""Choices inside a network, whose order is summed up, and choices that an output gives in order."""

from __future__ import annotations

from pathlib import Path

from output_models import CASES
from picking_models import experts_and_best

from redtest_onnx.runtime.outputs.order import orderless_picks
from tests.runtime.outputs.test_kinds import bench_of


def test_layers_behind_a_choice_of_experts_count(tmp_path: Path) -> None:
    bench = bench_of(CASES["experts inside"].build(0), tmp_path)
    (output,) = bench.outputs
    assert [tensor.name for tensor in output.tensors] == ["y"]
    assert len(orderless_picks(bench)["y"]) == 2


def test_nodes_may_be_called_like_what_they_make(tmp_path: Path) -> None:
    """As TensorFlow's are; ONNX Runtime takes no name twice."""
    model = CASES["experts inside"].build(0)
    for node in model.proto.graph.node:
        node.name = node.output[0]
    assert orderless_picks(bench_of(model, tmp_path))


def test_the_choice_at_the_end_is_told_from_the_one_inside(tmp_path: Path) -> None:
    bench = bench_of(experts_and_best(0), tmp_path)
    (output,) = bench.outputs
    last = [node for node in bench.view.model.graph.node if node.op_type == "TopK"][-1]
    assert [tensor.name for tensor in output.tensors] == [last.input[0]]


def test_best_rows_in_order_are_no_sum(tmp_path: Path) -> None:
    assert not orderless_picks(bench_of(CASES["best boxes"].build(0), tmp_path))


def test_layers_behind_chosen_rows_count(tmp_path: Path) -> None:
    """Queries of a detector that are chosen by value: what its decoder does to them is judged."""
    (output,) = bench_of(CASES["queries chosen inside"].build(0), tmp_path).outputs
    assert output.kind == "detections"
    assert (output.tensors[-1].name, output.tensors[-1].reader) == ("y", None)
    assert len(output.tensors) > 1
