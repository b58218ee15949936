"""Distillation of models whose samples are not in front, or whose runs take one sample."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="distillation needs PyTorch")

import redtest_onnx as rt  # noqa: E402
from redtest_onnx.graph.masks import Mask  # noqa: E402
from redtest_onnx.training.axes import SampleAxes  # noqa: E402
from redtest_onnx.training.distil.distil import Distillation, distil  # noqa: E402
from redtest_onnx.training.distil.loss import DistilTarget, TensorKind, feature_error  # noqa: E402
from redtest_onnx.training.distil.samples import DistilSamples  # noqa: E402
from redtest_onnx.training.distil.settings import DistilSettings  # noqa: E402
from redtest_onnx.training.distil.teacher import Teacher  # noqa: E402
from tests.training.test_axes import (  # noqa: E402
    CPU,
    STEPS,
    disturbed,
    graph_model,
    graphs,
    recurrent,
    series,
)


def distilled(bench: rt.Workbench, kind: TensorKind, axis: int = -1) -> Distillation:
    indices = np.arange(len(bench.data))
    samples = DistilSamples(bench.data, indices[6:], indices[:6], axes=SampleAxes.of(bench))
    target = DistilTarget(bench.model.outputs[0].name, kind, axis)
    settings = DistilSettings(steps=60, batch_size=STEPS, moment_samples=24, lr=3e-3)
    return distil(bench.model, disturbed(bench.model), samples, [target], settings, CPU)


@pytest.mark.parametrize("batch", ["n", 1, 4])
@pytest.mark.parametrize("kind", ["values", "classes"])
def test_time_first_is_distilled_as_samples_first(kind: TensorKind, batch: int | str) -> None:
    x = series(36)
    models = (recurrent(batch, first=False), recurrent(batch, first=True))
    benches = [
        rt.Workbench(model, rt.open_data({"x": values}, model), CPU)
        for model, values in zip(models, (x, x.swapaxes(0, 1)), strict=True)
    ]
    one, other = (distilled(bench, kind) for bench in benches)
    assert other.loss_before == pytest.approx(one.loss_before, rel=1e-4)
    assert other.loss_after < 0.7 * other.loss_before
    assert other.loss_after == pytest.approx(one.loss_after, rel=0.3)


def test_answers_that_are_kept_are_those_of_the_samples() -> None:
    model = recurrent("n", first=True)
    data = rt.open_data({"x": series(20).swapaxes(0, 1)}, model)
    axes, name = SampleAxes.of(rt.Workbench(model, data, CPU)), model.outputs[0].name
    teacher = Teacher(model, (name,), CPU, 20, axes)
    rows = np.arange(STEPS)  # as many as steps
    teacher.answers(data.inputs(rows), rows)
    for k in (0, 3):
        kept = teacher.answers({}, np.array([k]))[name]
        fresh = Teacher(model, (name,), CPU, 20, axes).answers(data.inputs([k]), None)[name]
        torch.testing.assert_close(kept, fresh)


@pytest.mark.parametrize("output", ["graph", "node"])
def test_graphs_of_different_sizes_are_distilled(output: str, tmp_path: Path) -> None:
    model = graph_model(output)
    bench = rt.Workbench(model, rt.open_data(graphs(tmp_path, 30), model), CPU)
    found = distilled(bench, "values")
    assert found.loss_before < 10  # the single number of a graph has no variance of its own
    assert found.loss_after < 0.8 * found.loss_before


def test_classes_of_nodes_are_found_from_both_ends(tmp_path: Path) -> None:
    model = graph_model("node", classes=3)
    bench = rt.Workbench(model, rt.open_data(graphs(tmp_path, 20), model), CPU)
    one, other = (distilled(bench, "classes", axis) for axis in (1, -1))
    assert one.loss_before == other.loss_before
    assert one.loss_after == other.loss_after


def test_a_variance_that_is_known_takes_the_place_of_the_values_own() -> None:
    ours, theirs = torch.zeros(1, 2), torch.tensor([[1.0, 3.0]])
    assert float(feature_error(ours, theirs, 2.0)) == pytest.approx(2.5)
    assert float(feature_error(ours, theirs)) > 1e9


def test_samples_turn_a_time_first_mask() -> None:
    class Masked:
        labelled = synthetic = False
        source = "masked"

        def __len__(self) -> int:
            return 4

        def inputs(self, indices: np.ndarray) -> dict[str, np.ndarray]:
            lengths = np.array([3, 1, 2, 4])[indices]
            return {"mask": (np.arange(4)[:, None] < lengths[None]).astype(np.int64)}

        def labels(self, indices: np.ndarray) -> None:
            return None

    everything = np.arange(4)
    samples = DistilSamples(Masked(), everything, everything, Mask("mask"), axes=SampleAxes({"mask": 1}))
    assert samples.by_length(everything, 2).tolist() == [1, 2, 0, 3]
