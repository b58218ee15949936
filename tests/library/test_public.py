"""Every public function runs on models and data as users have them: in memory, or by path."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from nets import Net

import redtest_onnx as rt

QUICK = rt.AnalysisSettings(samples=16, batches=1)
HOW = rt.PruneSettings(similarity=QUICK, repair="none")
CPU = rt.RunOptions("cpu", 1)
KINDS = ("path", "array", "dictionary")
NOT_FUNCTIONS = {"__version__", "load", "save", "open_data", "to_torch", "from_torch"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network whose hidden layers all have six values, and data for it."""
    folder = tmp_path_factory.mktemp("public")
    net = Net(x=["n", 6])
    hidden = "x"
    for _ in range(4):
        hidden = net("Relu", net("MatMul", hidden, net.weight(6, 6)))
    onnx.save(net.model(net("MatMul", hidden, net.weight(6, 3), name="y")).proto, folder / "m.onnx")
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(48, 6)).astype(np.float32), rng.integers(0, 3, 48)
    np.savez(folder / "data.npz", x=x, labels=labels)
    return folder


def samples(folder: Path, kind: str) -> Any:
    arrays = dict(np.load(folder / "data.npz"))
    return {"path": folder / "data.npz", "array": arrays["x"], "dictionary": arrays}[kind]


WORK: dict[str, Callable[[Path, Any], Any]] = {
    "activations": lambda model, data: list(rt.activations(model, data, options=CPU)),
    "analyze": lambda model, data: rt.analyze(model, data, QUICK, CPU),
    "audit": lambda model, data: rt.audit(model, data, timed=False, options=CPU),
    "compare": lambda model, data: rt.compare(model, model, data, settings=QUICK, options=CPU),
    "compare_files": lambda model, data: rt.compare_files(model, model, data, settings=QUICK, options=CPU),
    "expose": lambda model, data: rt.expose(model, "all", data, options=CPU),
    "find_layers": lambda model, data: rt.find_layers(model, data, options=CPU),
    "open_workbench": lambda model, data: rt.open_workbench(model, data).shapes,
    "plan": lambda model, data: rt.plan(model, data, HOW, remove=1, options=CPU),
    "prune": lambda model, data: rt.prune(model, data, HOW, remove=1, options=CPU),
    "rank": lambda model, data: rt.rank({"a": model}, data, similarity=QUICK, options=CPU),
    "sparsity": lambda model, data: rt.sparsity(model),
    "verify": lambda model, data: rt.verify(model, model, data, CPU),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", WORK)
def test_functions_take_data_as_users_have_it(name: str, kind: str, folder: Path) -> None:
    if (name, kind) == ("rank", "array"):
        with pytest.raises(rt.InputError, match="its accuracy is unknown"):
            WORK[name](folder / "m.onnx", samples(folder, kind))
        return
    result = WORK[name](folder / "m.onnx", samples(folder, kind))
    if hasattr(result, "to_dict"):
        json.dumps(result.to_dict(), allow_nan=False)
        assert len(repr(result)) < 400
        assert result._repr_html_().count("<tr>") == len(result.records()) + 1


def test_every_public_function_is_tried() -> None:
    functions = {name for name in rt.__all__ if name.islower()} - NOT_FUNCTIONS
    assert functions - {"finetune", "load_plan"} == set(WORK)


@pytest.mark.parametrize("kind", KINDS)
def test_finetune(kind: str, folder: Path) -> None:
    pytest.importorskip("torch")
    data, settings = samples(folder, kind), rt.TrainingSettings(epochs=1)
    tuned = rt.finetune(folder / "m.onnx", data, settings, teacher=folder / "m.onnx", options=CPU)
    json.dumps(tuned.to_dict(), allow_nan=False)
    assert len(tuned.records()) == 1


def test_models_may_be_paths_bytes_protos_and_loaded(folder: Path) -> None:
    path = folder / "m.onnx"
    kinds = (str(path), path.read_bytes(), onnx.load(path), rt.load(path), rt.open_workbench(path))
    found = [[layer.name for layer in rt.find_layers(model)] for model in kinds]
    assert all(names == found[0] for names in found)
    with pytest.raises(rt.InputError, match="no ONNX model"):
        rt.find_layers(b"none")
    with pytest.raises(rt.InputError, match="belongs to the workbench"):
        rt.find_layers(rt.open_workbench(path), folder / "data.npz")


@pytest.mark.parametrize("call", [rt.plan, rt.prune])
def test_settings_with_a_seed_go_with_a_workbench(folder: Path, call: Callable[..., object]) -> None:
    """It has a seed already, and none was given beside it."""
    bench = rt.open_workbench(folder / "m.onnx", folder / "data.npz", options=CPU, seed=5)
    seeded = rt.AnalysisSettings(samples=16, batches=1, seed=5)
    call(bench, settings=rt.PruneSettings(similarity=seeded, repair="none"), remove=1)


def test_one_model_alone_is_ranked(folder: Path) -> None:
    """A path is a sequence, too: of letters."""
    path = folder / "m.onnx"
    for one in (str(path), path, path.read_bytes(), rt.load(path)):
        found = rt.rank(one, folder / "data.npz", similarity=QUICK, options=CPU)
        assert len(found.rows) == 1
    several = rt.rank(folder.glob("m.onnx"), folder / "data.npz", similarity=QUICK, options=CPU)
    assert len(several.rows) == 1


@pytest.mark.parametrize(
    ("limits", "why"),
    [
        ({"targets": ("params", 0.5)}, "`targets` is"),
        ({"targets": [("params",)]}, "`targets` is"),
        ({"targets": "params=0.5"}, "`targets` is"),
        ({"targets": 0.5}, "`targets` is"),
        ({"targets": {"size_": 0.5}}, "`target` is 'size_'"),
        ({"remove": 1, "protect": 3}, "`protect` is 3"),
        ({"budget": "params=0.5"}, "`budget` is"),
    ],
)
def test_limits_of_another_form_are_refused(folder: Path, limits: dict[str, Any], why: str) -> None:
    with pytest.raises(rt.SettingError) as error:
        rt.plan(folder / "m.onnx", folder / "data.npz", HOW, **limits)
    assert why in str(error.value)


@pytest.mark.parametrize("call", [rt.analyze, rt.plan, rt.prune, rt.finetune, rt.rank])
def test_settings_of_another_kind_are_refused(folder: Path, call: Callable[..., object]) -> None:
    other = HOW if call in (rt.analyze, rt.rank) else QUICK
    with pytest.raises(rt.SettingError, match=r"`settings` is .*; it must be a .*Settings or None"):
        call(folder / "m.onnx", folder / "data.npz", other)
    with pytest.raises(rt.SettingError, match="`options` is 'cpu'; it must be a RunOptions or None"):
        call(folder / "m.onnx", folder / "data.npz", options="cpu")


@pytest.mark.parametrize("call", [rt.open_workbench, rt.finetune])
def test_keywords_that_do_nothing_are_refused(folder: Path, call: Callable[..., object]) -> None:
    """They were ignored without a word, `epochs` of a training too."""
    with pytest.raises(rt.SettingError, match="`keyword` is 'epochs'"):
        call(folder / "m.onnx", folder / "data.npz", epochs=3)


@pytest.mark.parametrize("call", [rt.plan, rt.prune])
def test_a_setting_among_the_limits_says_where_it_belongs(folder: Path, call: Callable[..., object]) -> None:
    with pytest.raises(rt.InputError, match="`repair` is a setting, not a limit") as error:
        call(folder / "m.onnx", folder / "data.npz", repair="refit", options=CPU)
    assert "settings=PruneSettings(repair='refit')" in str(error.value)


def test_a_plan_is_saved_edited_and_loaded(folder: Path, tmp_path: Path) -> None:
    plan = rt.plan(folder / "m.onnx", folder / "data.npz", HOW, remove=2, options=CPU)
    plan.save(tmp_path / "plan.json")
    found = rt.load_plan(tmp_path / "plan.json", folder / "m.onnx", folder / "data.npz")
    assert found == plan
    pruned = rt.prune(folder / "m.onnx", folder / "data.npz", HOW, plan=found, options=CPU)
    assert pruned.plan == plan
    with pytest.raises(rt.InputError, match="exclude each other"):
        rt.prune(folder / "m.onnx", plan=found, remove=1)


def test_arrays_that_do_not_fit_are_refused(folder: Path) -> None:
    with pytest.raises(rt.InputError, match="has no array 'x'"):
        rt.analyze(folder / "m.onnx", {"z": np.zeros((8, 6), np.float32), "q": np.zeros(8)})
    with pytest.raises(rt.InputError, match="the data is float32"):
        rt.analyze(folder / "m.onnx", np.zeros((8, 7), np.float32))


def test_a_result_becomes_a_data_frame(folder: Path) -> None:
    pytest.importorskip("pandas")
    frame = rt.analyze(folder / "m.onnx", folder / "data.npz", QUICK, CPU).to_frame()
    assert "similarity" in frame.columns
