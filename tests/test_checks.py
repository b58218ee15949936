"""Wrong settings are refused where they are made: with the argument, the value, and what it can be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import redtest_onnx as rt
from redtest_onnx.data.images import ImageOptions
from redtest_onnx.engines.run import EngineOptions
from redtest_onnx.search.recipe import Recipe

WRONG: dict[str, tuple[Callable[[], Any], str, Any, str]] = {
    "kernel": (lambda: rt.AnalysisSettings(kernel="RBF"), "kernel", "RBF", "'rbf'"),  # type: ignore[arg-type]
    "estimator": (
        lambda: rt.AnalysisSettings(estimator="unbiased"),  # type: ignore[arg-type]
        "estimator",
        "unbiased",
        "'minibatch'",
    ),
    "pooling": (lambda: rt.AnalysisSettings(pooling=None), "pooling", None, "'mean'"),  # type: ignore[arg-type]
    "granularity": (
        lambda: rt.AnalysisSettings(granularity="blocks"),  # type: ignore[arg-type]
        "granularity",
        "blocks",
        "'block'",
    ),
    "samples": (lambda: rt.AnalysisSettings(samples=0), "samples", 0, "at least 1"),
    "alpha": (lambda: rt.AnalysisSettings(alpha=0), "alpha", 0, "more than 0"),
    "repair": (lambda: rt.PruneSettings(repair="foo"), "repair", "foo", "'refit'"),  # type: ignore[arg-type]
    "criterion": (lambda: rt.PruneSettings("redtst"), "criterion", "redtst", "'redtest'"),
    "similarity": (
        lambda: rt.PruneSettings(similarity="mean"),  # type: ignore[arg-type]
        "similarity",
        "mean",
        "AnalysisSettings",
    ),
    "remove": (lambda: rt.Budget(remove=-1), "remove", -1, "at least 0"),
    "remove a share": (lambda: rt.Budget(remove=0.5), "remove", 0.5, "a whole number"),  # type: ignore[arg-type]
    "target": (
        lambda: rt.Budget(targets=(("parameters", 0.5),)),  # type: ignore[arg-type]
        "target",
        "parameters",
        "'params'",
    ),
    "max_drop": (lambda: rt.Budget(max_drop=2), "max_drop", 2, "from 0 to 1"),
    "limit": (lambda: rt.Budget.of(removee=1), "limit", "removee", "'remove'"),
    "device": (lambda: rt.RunOptions(device="gpu"), "device", "gpu", "'cuda'"),  # type: ignore[arg-type]
    "threads": (lambda: rt.RunOptions(threads=-1), "threads", -1, "at least 0"),
    "epochs": (lambda: rt.TrainingSettings(epochs=True), "epochs", True, "a whole number"),
    "lr": (lambda: rt.TrainingSettings(lr=float("nan")), "lr", None, "a number"),
    "augment": (
        lambda: rt.TrainingSettings(augment=("crop", "rotate")),  # type: ignore[arg-type]
        "augment",
        ("crop", "rotate"),
        "'flip'",
    ),
    "size": (lambda: ImageOptions(size=(0, 8)), "size", (0, 8), "at least 1"),
    "engine": (lambda: EngineOptions(engine="dask"), "engine", "dask", "'ray'"),  # type: ignore[arg-type]
    "batch": (lambda: Recipe(batch=0), "batch", 0, "at least 1"),
    "cost": (lambda: rt.RankingSettings(cost="time"), "cost", "time", "'latency'"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_setting_is_named_with_its_value_and_what_is_allowed(name: str) -> None:
    make, argument, value, allowed = WRONG[name]
    with pytest.raises(rt.SettingError) as caught:
        make()
    assert isinstance(caught.value, ValueError)
    assert caught.value.argument == argument
    assert value is None or caught.value.value == value
    assert f"`{argument}`" in str(caught.value)
    assert allowed in str(caught.value)


def test_the_nearest_word_is_suggested() -> None:
    with pytest.raises(rt.SettingError, match="try: kernel='rbf'"):
        rt.AnalysisSettings(kernel="RBF")  # type: ignore[arg-type]


def test_a_budget_without_limits_is_guarded() -> None:
    assert rt.Budget().max_drop == 0.01
    assert rt.Budget(protect=("a",)).max_drop == 0.01
    assert rt.Budget(remove=3).max_drop is None
    with pytest.raises(rt.InputError, match="exclude each other"):
        rt.Budget(remove=3, threshold=0.9)


def test_the_command_line_names_flags(capsys: pytest.CaptureFixture[str]) -> None:
    from redtest_onnx.cli.main import run

    assert run(["inspect", "models/vgg_digits.onnx", "--data", "nowhere.npz"]) == 2
    assert "check --data" in capsys.readouterr().err
    with pytest.raises(rt.InputError, match="check `data`"):
        rt.find_layers("models/vgg_digits.onnx", "nowhere.npz")
