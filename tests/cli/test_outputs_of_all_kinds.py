"""Commands on models with outputs of every kind: none ends as a bug, exit codes and files tell the truth."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from output_models import CASES, Graph, floats, samples

import redtest_onnx as rt
from redtest_onnx.cli.main import run

MODELS = Path(__file__).parents[2] / "models"
FAST = ["--threads", "1", "--device", "cpu"]
SMALL = [*FAST, "--samples", "16", "--batches", "2"]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return tmp_path / "m.onnx"


def write(model: rt.Model, path: Path, **more: np.ndarray) -> list[str]:
    """Save a model and samples for it; returns the option that names them."""
    rt.save(model, path)
    np.savez(path.with_name("d.npz"), **samples(model, 60), **more)
    return ["--data", str(path.with_name("d.npz"))]


def longer(name: str) -> rt.Model:
    """A model of that kind with two removable layers more behind its input, so that there is a choice."""
    model = CASES[name].build(0, "N")
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    random = np.random.default_rng(0)
    for spec in model.inputs:
        if spec.dtype != onnx.TensorProto.FLOAT or not isinstance((spec.shape or (0,))[-1], int):
            continue
        if len(spec.shape or ()) == 4:
            continue
        width, before = int((spec.shape or (0,))[-1]), spec.name  # type: ignore[arg-type]
        for node in proto.graph.node:
            node.input[:] = [f"{before}/3" if read == before else read for read in node.input]
        for k in range(4):
            source = before if k == 0 else f"{before}/{k - 1}"
            weight = (np.eye(width) + random.normal(size=(width, width)) * 0.05).astype(np.float32)
            proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, f"{before}/w{k}"))
            names = [source, f"{before}/w{k}"]
            proto.graph.node.insert(k, onnx.helper.make_node("MatMul", names, [f"{before}/{k}"]))
    return rt.Model(proto)


def numbers(document: object) -> list[float]:
    if isinstance(document, dict):
        return [value for item in document.values() for value in numbers(item)]
    if isinstance(document, list):
        return [value for item in document for value in numbers(item)]
    return [float(document)] if isinstance(document, int | float) else []


@pytest.mark.parametrize("name", CASES)
def test_no_command_ends_as_a_bug(name: str, saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write(longer(name), saved)
    result = saved.with_name("j.json")
    assert run(["inspect", str(saved), *data, *FAST]) == 0
    code = run(["prune", str(saved), *data, *SMALL, "--remove", "1", "--json", str(result), "--force"])
    pruned = saved.with_suffix(".pruned.onnx")
    assert code in (0, 1)
    assert pruned.exists() is (code == 0)
    if code == 0:
        document = json.loads(result.read_text())
        assert all(map(math.isfinite, numbers(document)))
        assert document["after"]["parameters"] <= document["before"]["parameters"]
        named = [part["name"] for part in document["outputs"]]
        assert named == [
            spec.name for spec in rt.load(saved).outputs if "present" not in spec.name or len(named) > 1
        ]
        assert run(["compare", str(saved), str(pruned), *data, *SMALL]) == 0
    shown = capsys.readouterr()
    assert "nan" not in shown.out.lower().split()
    assert "internal error" not in shown.err


@pytest.mark.parametrize("name", ["suppressed boxes", "compressed boxes", "gathered boxes", "best boxes"])
def test_detectors_go_through_everything(name: str, saved: Path) -> None:
    data = write(longer(name), saved)
    pruned = saved.with_suffix(".pruned.onnx")
    assert run(["prune", str(saved), *data, *SMALL, "--remove", "1"]) == 0
    assert run(["prune", str(saved), *data, *SMALL, "--force"]) in (0, 1)
    assert run(["sparsity", str(saved), *data, *FAST, "--method", "one-shot"]) == 0
    teacher = ["--teacher", str(saved), "--epochs", "1"]
    assert run(["finetune", str(pruned), *data, *FAST, *teacher]) == 0


def test_nothing_removed_writes_nothing(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write(longer("regression"), saved)
    plan = saved.with_name("plan.json")
    strict = ["--max-drop", "0", "--repair", "none"]
    assert run(["prune", str(saved), *data, *SMALL, *strict]) == 1
    said = capsys.readouterr().out
    assert "nothing is written" in said
    assert "which costs least of what was tried" in said
    assert "--remove 1" in said
    assert run(["prune", str(saved), *data, *SMALL, *strict, "--dry-run", "--plan", str(plan)]) == 1
    assert run(["prune", str(saved), *data, *SMALL, "--remove", "50"]) == 1
    g = Graph(0)
    g.dense(g.feed("x", 8), 8, 3, to="y")
    data = write(g.model(floats("y")), saved.with_name("one.onnx"))
    assert run(["prune", str(saved.with_name("one.onnx")), *data, *SMALL]) == 1
    left = {path.name for path in saved.parent.iterdir()}
    assert left == {"m.onnx", "d.npz", "one.onnx"}


def test_other_sizes_are_no_advice_for_a_model_that_is_refused(
    saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    g = Graph(0)
    h = g("Add", g.conv(g.feed("x", 3, 8, "width"), 3, 8), g.store(np.ones((5, 8, 1))))  # 8 channels and 5
    g("Identity", g.conv(h, 8, 4), to="y")
    rt.save(g.model(floats("y")), saved)
    assert run(["inspect", str(saved), "--threads", "1"]) == 0
    said = capsys.readouterr().err
    assert "refuses the model" in said
    assert "Give sizes that it takes" not in said
    assert "update onnxruntime" in said


def test_inlined_functions_are_said(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    block = onnx.helper.make_function(
        *("own", "Block", ["a", "w"], ["b"]),
        [onnx.helper.make_node("MatMul", ["a", "w"], ["m"]), onnx.helper.make_node("Relu", ["m"], ["b"])],
        [onnx.helper.make_opsetid("", 18)],
    )
    g = Graph(0)
    h = g.feed("x", 8)
    for _ in range(4):
        h = g("Block", h, g.matrix(8, 8), domain="own")
    g.dense(h, 8, 4, to="y")
    proto = g.model(floats("y")).proto
    proto.functions.append(block)
    proto.opset_import.append(onnx.helper.make_opsetid("own", 1))
    onnx.save(proto, saved)
    target = saved.with_name("pruned.onnx")
    command = ["prune", str(saved), "--remove", "1", "--samples", "16", "--batches", "1", "--threads", "1"]
    assert run([*command, "-o", str(target)]) == 0
    assert "1 local function is inlined where the graph called it." in capsys.readouterr().out
    assert len(onnx.load(target).functions) == 0


def test_missed_targets_end_with_1_and_write_nothing(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write(longer("tokens"), saved)
    assert run(["prune", str(saved), *data, *SMALL, "--target", "params=0.05"]) == 1
    assert "is left" in capsys.readouterr().err
    assert not saved.with_suffix(".pruned.onnx").exists()


def test_rounds_reach_the_target_of_the_whole(saved: Path) -> None:
    g = Graph(0)
    x = g.feed("x", 16)
    for _ in range(8):
        x = g("Tanh", g("MatMul", x, g.store(np.eye(16) * 0.9 + g.random.normal(size=(16, 16)) * 0.1)))
    g("Identity", x, to="y")
    data = write(g.model(floats("y")), saved)
    result = saved.with_name("j.json")
    rounds = ["--target", "params=0.6", "--iterations", "2", "--finetune", "1"]
    assert run(["prune", str(saved), *data, *SMALL, *rounds, "--json", str(result)]) == 0
    document = json.loads(result.read_text())
    assert document["after"]["parameters"] <= 0.6 * document["before"]["parameters"]


@pytest.mark.parametrize("text", ["y=boxes", "y", "z=values", "y=dense:9", "y=values:1"])
@pytest.mark.parametrize("command", ["inspect", "prune"])
def test_wrong_kinds_are_refused(
    command: str, text: str, saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(CASES["segmentation"].build(0, "N"), saved)
    assert run([command, str(saved), *data, *FAST, "--output-kind", text]) == 2
    assert "try:" in capsys.readouterr().err


def test_kinds_are_shown_and_can_be_said(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write(CASES["segmentation, channels last"].build(0, "N"), saved)
    assert run(["inspect", str(saved), *data, *FAST]) == 0
    assert "class scores per position along axis 3" in capsys.readouterr().out
    assert run(["inspect", str(saved), *data, *FAST, "--output-kind", "y=values", "--json", "-"]) == 0
    (output,) = json.loads(capsys.readouterr().out)["outputs"]
    assert (output["kind"], output["why"]) == ("values", "the user says so")


def test_labels_outside_the_classes_end_with_2(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write(longer("logits"), saved, labels=np.arange(60) % 7)
    assert run(["prune", str(saved), *data, *SMALL]) == 2
    assert "labels go from" in capsys.readouterr().err


def test_labels_worse_than_chance_are_said(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = np.random.default_rng(1).integers(0, 6, 60)
    data = write(longer("logits"), saved, labels=labels)
    assert run(["prune", str(saved), *data, *SMALL, "--remove", "1"]) == 0
    assert "no better than chance" in capsys.readouterr().err


def test_compare_names_where_a_change_begins(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = longer("tokens")
    data = write(model, saved)
    other = onnx.ModelProto()
    other.CopyFrom(model.proto)
    stored = next(t for t in other.graph.initializer if t.name == "x/w2")
    values = onnx.numpy_helper.to_array(stored)
    stored.raw_data = (
        (values + np.random.default_rng(0).normal(size=values.shape)).astype(np.float32).tobytes()
    )
    second = saved.with_name("other.onnx")
    rt.save(rt.Model(other), second)
    result = saved.with_name("j.json")
    assert run(["compare", str(saved), str(second), *data, *SMALL, "--json", str(result)]) == 0
    assert "diverges (below 20 dB) is x/2 (MatMul)" in capsys.readouterr().out
    document = json.loads(result.read_text())
    assert document["first_divergent"] == "x/2"
    assert {"before", "after", "outputs", "tensors", "cka", "best"} <= document.keys()


@pytest.mark.parametrize("file", ["resnet_digits", "vgg_digits", "vit_digits"])
def test_shipped_models_are_equal_to_themselves(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(MODELS / f"{file}.onnx")
    data = ["--data", str(MODELS / "digits.npz")]
    assert run(["compare", path, path, *data, *SMALL]) == 0
    shown = capsys.readouterr().out
    assert "All of them are equal." in shown
    assert "largest error" not in shown  # a header without rows
    assert "100.00%" in shown


def test_no_percentage_of_nearly_nothing() -> None:
    from redtest_onnx.report.tables import row_of

    assert row_of("MSRS", 0.0001, 3.0, lambda v: f"{v:.1f}", 0.05)[3].text == ""
    assert row_of("MSRS", 2.0, 3.0, lambda v: f"{v:.1f}", 0.05)[3].text == "+50.0%"
