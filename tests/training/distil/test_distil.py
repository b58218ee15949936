"""Distillation without labels: better on samples it has not seen, the same twice, or nothing at all."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="distillation needs PyTorch")

from output_graph import Graph, floats  # noqa: E402

import redtest_onnx as rt  # noqa: E402
from redtest_onnx.pruning.apply import apply_plan  # noqa: E402
from redtest_onnx.pruning.plan import Plan, Step  # noqa: E402
from redtest_onnx.runtime.workbench import Workbench  # noqa: E402
from redtest_onnx.training.augment import image_inputs  # noqa: E402
from redtest_onnx.training.distil.distil import distil, moved_images, schedule_position  # noqa: E402
from redtest_onnx.training.distil.loss import DistilTarget, divergence, feature_error  # noqa: E402
from redtest_onnx.training.distil.samples import DistilSamples  # noqa: E402
from redtest_onnx.training.distil.settings import DistilSettings  # noqa: E402

MODELS = Path(__file__).parents[3] / "models"
CPU = rt.RunOptions("cpu", 1)


@cache
def case(name: str):
    model = rt.load(MODELS / f"{name}_digits.onnx")
    bench = Workbench(model, rt.open_data(MODELS / "digits.npz", model), CPU)
    removable = [layer for layer in bench.layers() if layer.action == "bypass"]
    plan = Plan("manual", model.sha256, tuple(Step.of(layer) for layer in removable[1:9:2]))
    return bench, apply_plan(bench.opened, plan)


def run(name: str, kind: str = "classes", **changes: object):
    bench, pruned = case(name)
    samples = DistilSamples(bench.data, bench.splits.fit, bench.splits.judge)
    output = bench.model.outputs[0].name
    settings = DistilSettings(**{"steps": 40, "moment_samples": 64, **changes})
    target = DistilTarget(output, kind, 1)  # type: ignore[arg-type]
    return distil(bench.model, pruned, samples, [target], settings, CPU)


@pytest.mark.parametrize("name", ["resnet", "vgg", "vit"])
def test_it_comes_nearer_on_samples_it_has_not_seen(name: str) -> None:
    bench, pruned = case(name)
    result = run(name)
    assert result.steps == 40
    assert result.loss_after < 0.7 * result.loss_before
    evaluator = bench.evaluator()
    before, after = (evaluator.evaluate(m).agreement.relative_l2 for m in (pruned, result.model))
    assert after < before
    assert [t.name for t in result.model.graph.initializer] == [t.name for t in pruned.graph.initializer]


def test_embeddings_come_nearer_on_samples_it_has_not_seen() -> None:
    result = run("vit", "embedding")
    assert result.loss_after < 0.5 * result.loss_before


@pytest.mark.parametrize("kind", ["classes", "embedding"])
def test_twice_gives_the_same_bytes(kind: str) -> None:
    one, two = (
        run("resnet", kind, steps=5).model.proto.SerializeToString(deterministic=True) for _ in range(2)
    )
    assert one == two


def test_weights_that_are_not_finite_are_not_written() -> None:
    _, pruned = case("resnet")
    result = run("resnet", lr=1e30, steps=3)
    assert not np.isfinite(result.loss_after)
    assert result.model is pruned


def test_time_ends_it() -> None:
    assert run("resnet", seconds=1e-9).steps == 0


@pytest.mark.parametrize("changes", [{"mirror": True}, {"crop": True}, {"precision": "bfloat16"}])
def test_options_run(changes: dict[str, object]) -> None:
    assert np.isfinite(run("resnet", steps=3, **changes).loss_after)


@pytest.mark.parametrize("shift", [(0, 0), (1, 0), (-1, 1)])
def test_images_move_alike_in_both_layouts(shift: tuple[int, int]) -> None:
    images = np.random.default_rng(0).normal(size=(2, 3, 8, 16))
    mirrored = np.array([True, False])
    first = moved_images(images, mirrored, np.array(shift), True)
    last = moved_images(images.transpose(0, 2, 3, 1), mirrored, np.array(shift), False)
    np.testing.assert_array_equal(first.transpose(0, 2, 3, 1), last)
    rows, columns = shift[0], 2 * shift[1]  # an eighth each
    expected = np.stack([images[0, :, :, ::-1], images[1]])
    padded = np.pad(expected, ((0, 0), (0, 0), (2, 2), (2, 2)))
    np.testing.assert_array_equal(first, padded[:, :, 2 - rows : 10 - rows, 2 - columns : 18 - columns])


def test_what_takes_no_images_can_not_be_mirrored() -> None:
    g = Graph(0)
    g("MatMul", g.feed("x", 4), g.store(np.eye(4)), to="y")
    with pytest.raises(rt.InputError, match="no input takes images"):
        image_inputs(g.model(floats("y", "N", 4)))


@pytest.mark.parametrize(
    "changes", [{"steps": 0}, {"lr": -1.0}, {"warmup": 1.0}, {"seconds": 0.0}, {"precision": "half"}]
)
def test_wrong_settings_name_the_argument(changes: dict[str, object]) -> None:
    with pytest.raises(rt.InputError, match=next(iter(changes))):
        DistilSettings(**changes)  # type: ignore[arg-type]


def test_divergence_is_softened_and_scaled() -> None:
    student, teacher = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    p, q = ((v / 2).softmax(1) for v in (teacher, student))
    expected = 4 * (p * (p / q).log()).sum(1).mean()
    torch.testing.assert_close(divergence(student, teacher, 1, 2.0), expected)
    assert float(divergence(teacher, teacher, 1, 2.0)) == pytest.approx(0, abs=1e-12)


def test_feature_error_is_relative_to_the_spread_of_channels() -> None:
    teacher = torch.randn(6, 3, 4, 4, dtype=torch.float64) + 100 * torch.arange(3)[:, None, None]
    error = torch.randn_like(teacher)
    spread = (teacher - teacher.mean((0, 2, 3), keepdim=True)).square().mean()
    torch.testing.assert_close(feature_error(teacher + error, teacher), error.square().mean() / spread)


@pytest.mark.parametrize(
    ("step", "seconds", "elapsed", "position"),
    [(7, None, 99.0, 7), (7, 10.0, 0.0, 7), (7, 10.0, 5.0, 20), (30, 10.0, 5.0, 30), (0, 10.0, 25.0, 40)],
)
def test_the_learning_rate_falls_by_the_end_of_the_time(
    step: int, seconds: float | None, elapsed: float, position: int
) -> None:
    assert schedule_position(step, DistilSettings(steps=40, seconds=seconds), elapsed) == position
