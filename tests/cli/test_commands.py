"""The command line as a person or a CI job uses it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from redtest_onnx.cli.main import run

MODELS = Path(__file__).parents[2] / "models"
RESNET, VIT, DATA = MODELS / "resnet_digits.onnx", MODELS / "vit_digits.onnx", MODELS / "digits.npz"


def call(*arguments: object) -> int:
    return run([str(argument) for argument in arguments])


def document(*arguments: object, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert call(*arguments, "--json", "-") == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def test_inspect_lists_layers_with_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    found = document("inspect", RESNET, capsys=capsys)
    assert found["schema"] == "redtest-onnx/inspect/1"
    assert set(found["tool"]) == {"name", "version"}
    wanted = "path sha256 ir_version opsets producer inputs outputs parameters parameter_bytes macs"
    assert set(wanted.split()) <= set(found["model"])
    assert len(found["layers"]) == 28
    wanted = "index name kind input tensor shape parameters macs removable reason"
    for layer in found["layers"]:
        assert set(wanted.split()) <= set(layer)
        assert layer["removable"] or layer["reason"]


def test_analyze_is_reproducible_and_complete(capsys: pytest.CaptureFixture[str]) -> None:
    one, two = (document("analyze", VIT, "--data", DATA, "--samples", 32, capsys=capsys) for _ in range(2))
    for found in (one, two):
        assert set(found.pop("timing")) == {"forward_s", "metric_s", "total_s"}
        assert found.pop("memory")["peak_rss_bytes"] > 0
    assert one == two
    size = len(one["layers"])
    assert np.array(one["cka"]).shape == (size, size)
    assert len(one["adjacent"]) == size - 1
    assert set(one["msrs"]) >= {"value", "std", "per_batch", "pairs", "alpha", "threshold"}
    assert one["data"] == {
        "source": f"{DATA}:calibration",
        "samples": 32,
        "batches": 10,
        "synthetic": False,
        "labels": True,
    }


def test_analyze_without_data_says_so_loudly(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("analyze", VIT, "--samples", 8, "--batches", 1) == 0
    captured = capsys.readouterr()
    assert "Synthetic (random) inputs" in captured.err
    assert "MSRS" in captured.out


def test_pictures_and_pages_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, picture = tmp_path / "page.html", tmp_path / "map.png"
    assert call("analyze", RESNET, "--data", DATA, "--samples", 16, "--html", page, "--png", picture) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    text = page.read_text(encoding="utf-8")
    assert ">blocks.26</td>" in text
    assert "default-src 'none'" in text
    assert 'src="http' not in text


def test_main_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "small.onnx"
    found = document("prune", RESNET, "--data", DATA, "--repair", "none", "-o", out, capsys=capsys)
    before, after = found["before"], found["after"]
    assert after["parameters"] <= 0.8 * before["parameters"]
    assert after["accuracy"] >= before["accuracy"] - 0.02
    assert set(after["latency_ms"]) >= {"p50", "p90", "p99"}
    assert set(found["agreement"]) == {"value", "interval95", "top1", "cosine", "relative_l2"}
    assert found["agreement"]["value"] == found["agreement"]["top1"]
    assert found["output"] == str(out)
    assert found["evaluation"]["source"].endswith(":test")
    assert out.stat().st_size == after["file_bytes"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["small.onnx"]


def test_default_output_stands_beside_the_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "net.onnx"
    model.write_bytes(RESNET.read_bytes())
    assert call("prune", model, "--data", DATA, "--remove", 1, "--repair", "none", "--samples", 16) == 0
    assert (tmp_path / "net.pruned.onnx").exists()
    assert model.read_bytes() == RESNET.read_bytes()


def test_removing_no_layer_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "same.onnx"
    assert call("prune", VIT, "--data", DATA, "--remove", 0, "--samples", 16, "-o", out) == 1
    assert "nothing is written: 0 layers were asked for" in capsys.readouterr().out
    assert not out.exists()


def test_a_plan_is_written_edited_and_applied(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = tmp_path / "plan.json"
    common = ("--data", DATA, "--samples", 16)
    assert call("prune", RESNET, *common, "--remove", 3, "--dry-run", "--plan", plan) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["plan.json"]
    edited = json.loads(plan.read_text())
    edited["steps"] = edited["steps"][:2]
    plan.write_text(json.dumps(edited))
    for name in ("a.onnx", "b.onnx"):
        assert call("prune", RESNET, *common, "--plan", plan, "-o", tmp_path / name) == 0
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    capsys.readouterr()
    assert call("prune", VIT, *common, "--plan", plan, "-o", tmp_path / "c.onnx") == 2
    assert "another model" in capsys.readouterr().err


def test_target_out_of_reach_is_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "x.onnx"
    assert call("prune", RESNET, "--data", DATA, "--samples", 16, "--target", "params=0.001", "-o", out) == 1
    assert not out.exists()
    assert "can't be reached" in capsys.readouterr().err


def test_more_layers_than_can_go_is_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "x.onnx"
    assert call("prune", RESNET, "--data", DATA, "--samples", 16, "--remove", "99", "-o", out) == 1
    assert "99 layers can't be removed: 27 of 28 can go" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--version") == 0
    assert capsys.readouterr().out.startswith("redtest-onnx, version")


def bad_files(folder: Path) -> None:
    (folder / "empty.onnx").touch()
    (folder / "text.onnx").write_text("this is no protocol buffer at all\n" * 20)
    (folder / "cut.onnx").write_bytes(RESNET.read_bytes()[:5000])
    (folder / "folder.onnx").mkdir()
    (folder / "taken.onnx").touch()
    (folder / "taken.json").touch()
    images = np.random.default_rng(0).random((40, 1, 8, 8), np.float32)
    np.savez(folder / "name.npz", other=images)
    np.savez(folder / "shape.npz", input=images[:, :, :4])
    np.savez(folder / "type.npz", input=(images * 16).astype(np.int64))
    np.savez(folder / "few.npz", input=images[:3])
    images[7, 0, 0, 0] = np.nan
    np.savez(folder / "nan.npz", input=images)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.onnx"], "no such file"),
        (["folder.onnx"], "no ONNX file in the folder"),
        (["empty.onnx"], "empty"),
        (["text.onnx"], "not an ONNX model"),
        (["cut.onnx"], "not an ONNX model"),
        ([RESNET, "--data", "missing.npz"], "no such file"),
        ([RESNET, "--data", "name.npz"], "no array 'input'"),
        ([RESNET, "--data", "shape.npz"], "the data is float32[40, 1, 4, 8]"),
        ([RESNET, "--data", "type.npz"], "the data is int64"),
        ([RESNET, "--data", "few.npz"], "at least 4"),
        ([RESNET, "--data", "nan.npz"], "NaN or infinity in sample 7"),
        ([RESNET, "--data", DATA, "-o", "nowhere/out.onnx"], "folder does not exist"),
        ([RESNET, "--data", DATA, "-o", "taken.onnx"], "exists already"),
        ([RESNET, "--data", DATA, "--json", "taken.json"], "exists already"),
        ([RESNET, "--data", DATA, "--protect", "nope*"], "matches no layer"),
        ([RESNET, "--data", DATA, "--remove", "1", "--threshold", "0.9"], "exclude each other"),
        ([RESNET, "--data", DATA, "--target", "speed=2"], "not understood"),
        (
            [RESNET, "--data", DATA, "--criterion", "guess"],
            "--criterion is 'guess'; it must be one of 'redtest',",
        ),
        ([RESNET, "--data", DATA, "--plan", "missing.json"], "no such file"),
        ([RESNET, "--data", DATA, "--plan", DATA], "digits.npz: is not UTF-8 text (at byte "),
        ([RESNET, "--input-shape", "foo:1,2"], "--input-shape names foo"),
    ],
    ids=lambda value: " ".join(map(str, value)).replace(str(MODELS), "") if isinstance(value, list) else None,
)
def test_bad_input_gets_one_message_and_leaves_nothing(
    arguments: list[object],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bad_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    if "-o" not in arguments:
        arguments = [*arguments, "-o", "out.onnx"]
    assert call("prune", *arguments, "--samples", 16) == 2
    error = capsys.readouterr().err
    assert error.count("error:") == 1
    assert message in error
    assert "Traceback" not in error
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def edited(tmp_path: Path, change: Callable[[onnx.GraphProto], None]) -> Path:
    proto = onnx.load(RESNET)
    change(proto.graph)
    path = tmp_path / "edited.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def huge_batch(graph: onnx.GraphProto) -> None:
    graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2**31


def huge_weights(graph: onnx.GraphProto) -> None:
    """Features near the end of float32, which overflow without a layer that divides them."""
    tensor = graph.initializer[2]
    tensor.raw_data = np.full(tuple(tensor.dims), 1e37, np.float32).tobytes()


def cycle(graph: onnx.GraphProto) -> None:
    graph.node[5].input[0] = graph.node[40].output[0]


def twice(graph: onnx.GraphProto) -> None:
    graph.node.append(graph.node[3])


@pytest.mark.parametrize("change", [huge_batch, cycle, twice])
@pytest.mark.parametrize("command", ["inspect", "analyze", "prune"])
def test_broken_graphs_get_one_message(
    change: Callable[[onnx.GraphProto], None],
    command: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = edited(tmp_path, change)
    assert call(command, path) == 2
    error = capsys.readouterr().err
    assert error.count("error:") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["edited.onnx"]


def test_values_that_overflow_end_in_a_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = edited(tmp_path, huge_weights)
    common = ("prune", path, "--data", DATA, "--samples", 16, "--remove", 2)
    assert call(*common) == 1
    assert "similarity is undefined for 27 layers" in capsys.readouterr().err
    assert call(*common, "--criterion", "tail") in (0, 2)
    assert "internal" not in capsys.readouterr().err


def test_undefined_similarities_are_said_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    path = edited(tmp_path, huge_weights)
    assert call("analyze", path, "--data", DATA, "--samples", 16, "--html", page) == 0
    shown = capsys.readouterr().out
    assert "MSRS is undefined: no pair of layers has a similarity" in shown
    assert "MSRS is undefined: no pair of layers has a similarity" in page.read_text(encoding="utf-8")
    assert "nan" not in shown.lower().split()
