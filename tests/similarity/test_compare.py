"""Similarity between two models, two data sets and two sets of arrays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nets import Net
from references import activations, song_hsic

import redtest_onnx as rt
from redtest_onnx.cli.main import run
from redtest_onnx.data import affordable
from redtest_onnx.data.splits import sample_indices
from redtest_onnx.errors import InputError
from redtest_onnx.metrics.cka import Estimator
from redtest_onnx.similarity.analyze import AnalysisSettings
from redtest_onnx.similarity.compare import Workbench, compare, compare_arrays
from redtest_onnx.similarity.files import compare_files

MODELS = Path(__file__).parents[2] / "models"
RESNET, VIT, DATA = MODELS / "resnet_digits.onnx", MODELS / "vit_digits.onnx", MODELS / "digits.npz"
CPU = rt.RunOptions("cpu")


def side(path: Path) -> Workbench:
    model = rt.load(path)
    return Workbench(model, rt.open_data(DATA, model), CPU)


def gram(x: np.ndarray, kernel: str = "linear") -> np.ndarray:
    x = x.reshape(len(x), -1).astype(np.float64)
    x = x - x.mean(axis=0)
    k = x @ x.T
    if kernel == "linear":
        return k
    squared = np.maximum(np.diag(k)[:, None] + np.diag(k) - 2 * k, 0)
    median = np.median(np.sqrt(squared[~np.eye(len(k), dtype=bool)]))
    return np.exp(-squared / (2 * median**2))


def biased_hsic(k: np.ndarray, l: np.ndarray) -> float:  # noqa: E741
    centring = np.eye(len(k)) - 1 / len(k)
    return float((centring @ k @ centring * l).sum())


def slow_cross(xs: list[np.ndarray], ys: list[np.ndarray], kernel: str, biased: bool) -> np.ndarray:
    hsic = biased_hsic if biased else song_hsic
    a, b = [gram(x, kernel) for x in xs], [gram(y, kernel) for y in ys]
    return np.array([[hsic(k, l) / np.sqrt(hsic(k, k) * hsic(l, l)) for l in b] for k in a])  # noqa: E741


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
@pytest.mark.parametrize("estimator", ["minibatch", "biased"])
@pytest.mark.parametrize("pooling", ["none", "mean"])
def test_two_models_agree_with_a_float64_reference(kernel: Any, estimator: Estimator, pooling: Any) -> None:
    one, two = side(RESNET), side(VIT)
    settings = AnalysisSettings(
        pooling=pooling, layers="*", samples=40, batches=1, kernel=kernel, estimator=estimator
    )
    found = compare(one, two, settings)
    indices = sample_indices(one.data, 40, 0)
    features = []
    for place in (one, two):
        analysis = rt.analyze(place.model, place.data, AnalysisSettings(samples=8, batches=1), CPU)
        values = activations(
            place.model, [layer.tensor for layer in analysis.layers], place.data.inputs(indices)
        )
        if pooling == "mean":
            axes = [None if v.ndim < 3 else (1,) if v.ndim == 3 else (2, 3) for v in values]
            values = [v if axis is None else v.mean(axis=axis) for v, axis in zip(values, axes, strict=True)]
        features.append(values)
    expected = slow_cross(*features, kernel, estimator == "biased")
    np.testing.assert_allclose(found.similarity, expected, atol=1e-5 if kernel == "rbf" else 2e-6)


def test_a_model_beside_itself_is_its_own_analysis() -> None:
    one = side(VIT)
    settings = AnalysisSettings(samples=32, batches=3)
    crossed = compare(one, one, settings)
    np.testing.assert_allclose(
        crossed.similarity, rt.analyze(one.model, one.data, settings, CPU).similarity, atol=1e-12
    )
    assert crossed.best == tuple(range(len(crossed.rows)))


def test_exact_is_one_batch_of_everything() -> None:
    one, two = side(RESNET), side(VIT)
    exact = compare(one, two, AnalysisSettings(samples=16, batches=5, estimator="exact"))
    batch = compare(one, two, AnalysisSettings(samples=80, batches=1))
    np.testing.assert_allclose(exact.similarity, batch.similarity, atol=1e-6)


@pytest.mark.parametrize("pooling", ["mean", "none"])
def test_exact_analysis_is_one_batch_of_everything(pooling: Any) -> None:
    one = side(RESNET)
    exact = AnalysisSettings(pooling=pooling, samples=16, batches=5, estimator="exact")
    batch = AnalysisSettings(pooling=pooling, samples=80, batches=1)
    found, expected = (rt.analyze(one.model, one.data, s, CPU) for s in (exact, batch))
    np.testing.assert_allclose(found.similarity, expected.similarity, atol=1e-6)
    assert found.redundancy.std is None


def test_exact_knows_the_linear_kernel_only() -> None:
    one = side(VIT)
    with pytest.raises(InputError, match="'linear' with the estimator 'exact'"):
        rt.analyze(one.model, one.data, AnalysisSettings(estimator="exact", kernel="rbf"), CPU)


def test_tokens_of_sequences() -> None:
    one = side(VIT)
    found = {}
    for pooling in ("mean", "cls", "token"):
        settings = AnalysisSettings(pooling=pooling, samples=64, batches=1)  # type: ignore[arg-type]
        found[pooling] = rt.analyze(one.model, one.data, settings, CPU)
    layers = found["cls"].layers
    values = activations(
        one.model, [layer.tensor for layer in layers], one.data.inputs(sample_indices(one.data, 64, 0))
    )
    first = [v[:, 0] if v.ndim == 3 else v.mean((2, 3)) if v.ndim == 4 else v for v in values]
    np.testing.assert_allclose(found["cls"].similarity, slow_cross(first, first, "linear", False), atol=1e-5)
    assert np.abs(found["token"].similarity - found["mean"].similarity).max() > 0.01
    assert np.isfinite(found["token"].similarity).all()


def test_arrays() -> None:
    rng = np.random.default_rng(0)
    a = {"x": rng.standard_normal((50, 7)), "y": rng.standard_normal((50, 3, 4, 4)).astype(np.float32)}
    b = {"z": a["x"] @ rng.standard_normal((7, 5)), "t": rng.standard_normal((50, 6, 9)), "s": rng.random(50)}
    found = compare_arrays(a, b, AnalysisSettings(pooling="none"))
    expected = slow_cross(list(a.values()), list(b.values()), "linear", False)
    np.testing.assert_allclose(found.similarity, expected, atol=1e-6)
    exact = compare_arrays(a, b, AnalysisSettings(pooling="none", estimator="exact"))
    np.testing.assert_allclose(exact.similarity, expected, atol=1e-6)
    pooled = compare_arrays(a, b)
    xs, ys = [a["x"], a["y"].mean((2, 3))], [b["z"], b["t"].mean(1), b["s"][:, None]]
    np.testing.assert_allclose(pooled.similarity, slow_cross(xs, ys, "linear", False), atol=1e-6)
    assert (found.rows, found.columns) == (("x", "y"), ("z", "t", "s"))


def test_arrays_that_do_not_fit_are_refused() -> None:
    good = {"x": np.random.default_rng(0).random((9, 3))}
    for bad in ({}, {"x": np.ones((8, 3))}, {"x": np.array(["a"] * 9)}, {"x": np.full((9, 2), np.nan)}):
        with pytest.raises(InputError):
            compare_arrays(good, bad)


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--data", str(DATA), "--samples", "32", "--batches", "2"]
    picture = tmp_path / "cross.png"
    assert run(["compare", str(RESNET), str(VIT), *arguments, "--png", str(picture), "--json", "-"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "redtest-onnx/compare/1"
    assert np.array(document["cka"]).shape == tuple(len(side["layers"]) for side in document["sides"])
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert run(["compare", str(VIT), *arguments, "--other-data", str(DATA)]) == 0
    shown = capsys.readouterr().out
    assert "1.0000" in shown
    assert "2 x 32 samples" in shown
    np.savez(tmp_path / "a.npz", x=np.random.default_rng(0).random((20, 4)))
    assert run(["compare", str(tmp_path / "a.npz"), "--kernel", "rbf", "--estimator", "biased"]) == 0


def test_command_explains_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compare", str(VIT), "--data", str(DATA)]) == 2
    assert "--other-data" in capsys.readouterr().err
    np.savez(tmp_path / "a.npz", x=np.ones((20, 4)))
    assert run(["compare", str(tmp_path / "a.npz"), str(VIT)]) == 2


def test_a_saved_analysis_is_planned_on_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = tmp_path / "analysis.json"
    arguments = ["--data", str(DATA), "--samples", "32", "--batches", "2"]
    assert run(["analyze", str(RESNET), *arguments, "--json", str(saved)]) == 0
    plans = []
    for extra in ([], ["--analysis", str(saved)]):
        command = ["prune", str(RESNET), *arguments, "--remove", "3", "--dry-run", "--json", "-", *extra]
        assert run(command) == 0
        captured = capsys.readouterr()
        plans.append(json.loads(captured.out[captured.out.index("{") :])["plan"])
        assert ("measuring" in captured.err) == (not extra)
    assert plans[0] == plans[1]
    assert run(["prune", str(VIT), "--data", str(DATA), "--dry-run", "--analysis", str(saved)]) == 2
    assert "another model" in capsys.readouterr().err
    saved.write_text('{"schema": "redtest-onnx/analyze/1"}')
    assert run(["prune", str(RESNET), "--dry-run", "--analysis", str(saved)]) == 2
    assert "damaged" in capsys.readouterr().err


def chain(length: int) -> rt.Model:
    net = Net(x=["N", 16])
    x = "x"
    for _ in range(length):
        x = net("Relu", net("MatMul", x, net.weight(16, 16)))
    net("MatMul", x, net.weight(16, 3), name="y")
    return net.model("y")


def test_synthetic_samples_are_as_many_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(affordable, "_BUDGET", 10**6)
    options, small = rt.RunOptions("cpu", 1), AnalysisSettings(samples=32, batches=1)
    sides = [Workbench(chain(n), rt.open_data(None, chain(n)), options) for n in (6, 4)]
    assert len(sides[0].data) < len(sides[1].data)
    found = compare(*sides, small)
    assert found.similarity.shape == (6, 4)
    assert compare_files(*sides, small).files.samples > 0
