"""What a command will write is checked before it begins: against what it reads, and against itself."""

from __future__ import annotations

import os
import re
import stat
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from nets import Net

import redtest_onnx as rt
from redtest_onnx.cli.main import run
from redtest_onnx.graph.scratch import scratch_folder

_SUFFIXES = {"--png": ".png", "--html": ".html", "--json": ".json", "--output": ".onnx"}
FEW = ["--samples", "8", "--batches", "1", "--threads", "1", "-q"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Five products with weights in a file that a tool might call its own output's data."""
    net = Net(x=["n", 4])
    h = "x"
    for _ in range(5):
        h = net("Relu", net("MatMul", h, net.weight(4, 4)))
    proto = net.model(net("MatMul", h, net.weight(4, 2), name="y")).proto
    path = tmp_path / "m.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="m.pruned.onnx.data", size_threshold=0)
    np.savez(tmp_path / "d.npz", x=np.random.default_rng(0).random((16, 4), np.float32))
    return path


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_the_original_still_loads_where_its_data_has_the_name_of_an_output(model: Path) -> None:
    before = content(model.parent)
    for _ in range(2):
        assert (
            run(
                ["prune", str(model), "--data", str(model.parent / "d.npz"), "--remove", "1", "--force", *FEW]
            )
            == 0
        )
        assert before.items() <= content(model.parent).items()
    data = rt.open_data(model.parent / "d.npz", rt.load(model))
    assert rt.analyze(rt.load(model), data).layers
    assert len(rt.load(model.parent / "m.pruned.onnx").external_files) == 1


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("inspect", "--json"),
        ("analyze", "--json"),
        ("analyze", "--html"),
        ("analyze", "--png"),
        ("compare", "--json"),
        ("audit", "--output"),
        ("audit", "--write-operators"),
        ("sparsity", "--html"),
        ("rank", "--json"),
        ("prune", "--output"),
        ("prune", "--json"),
        ("finetune", "--output"),
        ("finetune", "--checkpoint"),
        ("finetune", "--log"),
    ],
)
@pytest.mark.parametrize("victim", ["m.onnx", "m.pruned.onnx.data", "d.npz", "link", "hard", "sub/../d.npz"])
def test_no_output_on_an_input(
    command: str, option: str, victim: str, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = model.parent
    (folder / "sub").mkdir()
    (folder / "link").symlink_to("m.pruned.onnx.data")
    os.link(folder / "d.npz", folder / "hard")
    target = folder / victim
    suffix = ".md" if command == "audit" else _SUFFIXES.get(option)
    if suffix and target.suffix != suffix:  # what has another suffix is refused for that already
        target = folder / f"alias{suffix}"
        target.symlink_to(folder / victim)
    before = content(folder)
    second = [str(model)] if command == "compare" else []
    data = [] if command == "sparsity" else ["--data", str(folder / "d.npz")]
    if not data and victim in ("d.npz", "hard", "sub/../d.npz"):
        pytest.skip("weights are measured without data")
    arguments = [command, str(model), *second, *data, option, str(target)]
    assert run([*arguments, "--force"]) == 2
    refused = rf"{option}( \S+)? would overwrite what is read|is where --output may put its weights"
    assert re.search(refused, capsys.readouterr().err)
    assert content(folder) == before
    assert sorted(p.name for p in folder.iterdir()) == sorted([*before, "sub"])


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["prune", "m.onnx", "-o", "m.onnx"], "--output"),
        (["finetune", "m.onnx", "--data", "d.npz", "-o", "m.onnx"], "--output"),
        (["finetune", "m.onnx", "--data", "d.npz", "--teacher", "t.onnx", "-o", "t.onnx"], "--output"),
        (["sparsity", "m.onnx", "--method", "one-shot", "-o", "m.onnx"], "--output"),
        (["expose", "m.onnx", "-o", "m.onnx"], "--output"),
        (["analyze", "saved.json", "--json", "saved.json"], "--json"),
        (["analyze", "m.onnx", "--data", "images", "--png", "images/a.png"], "--png"),
        (["audit", "m.onnx", "--baseline", "saved.json", "--json", "saved.json"], "--json"),
        (["inspect", "m.onnx", "--json", "config.json"], "--json"),
        (["compare", "m.onnx", "t.onnx", "--json", "config.json"], "--json"),
        (["rank", "m.onnx", "--json", "config.json"], "--json"),
    ],
)
def test_force_is_no_advice_where_it_does_not_help(
    arguments: list[str],
    option: str,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = model.parent
    monkeypatch.chdir(folder)
    (folder / "images").mkdir()
    (folder / "images" / "a.png").write_bytes(b"an image")
    (folder / "t.onnx").write_bytes(model.read_bytes())
    (folder / "saved.json").write_text("{}")
    if "saved.json" in arguments:
        assert run(["audit", "m.onnx", "--no-latency", "--json", "saved.json", "--force", "-q"]) in (0, 1)
    (folder / "config.json").write_text("{}")
    capsys.readouterr()
    before = content(folder)
    for force in ([], ["--force"]):
        assert run([*arguments, *force]) == 2
        said = capsys.readouterr().err
        assert f"{option} would overwrite what is read" in said
        assert "--force overwrites it" not in said
    assert content(folder) == before
    # Of what is no input it is the advice.
    (folder / "other.json").write_text("{}")
    assert run(["inspect", "m.onnx", "--json", "other.json"]) == 2
    assert "--force overwrites it" in capsys.readouterr().err


def test_no_output_on_another_output(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = model.parent
    (folder / "link.svg").symlink_to("out.svg")
    for one, two in (("out.svg", "out.svg"), ("out.svg", "./out.svg"), ("out.svg", "link.svg")):
        command = ["analyze", str(model), "--png", str(folder / one), "--sweep", f"{folder}/{two}", "--force"]
        assert run(command) == 2
        assert "is named by" in capsys.readouterr().err
    assert not (folder / "out.svg").exists()


@pytest.mark.parametrize("name", ["out.onnx.data", "out.onnx.2.data", "sub/../out.onnx.data"])
def test_no_output_where_a_model_may_put_its_weights(
    name: str, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = model.parent
    (folder / "sub").mkdir()
    command = ["finetune", str(model), "--data", str(folder / "d.npz"), "--threads", "1"]
    assert run([*command, "-o", str(folder / "out.onnx"), "--log", str(folder / name), "--force"]) == 2
    assert "is where --output may put its weights" in capsys.readouterr().err
    assert not [*folder.glob("out*")]


def test_a_series_over_the_weights_of_its_model_is_refused(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = model.parent
    proto = onnx.load(model)
    onnx.save(proto, model, save_as_external_data=True, location="m.removed-01.onnx", size_threshold=0)
    before = content(folder)
    command = ["prune", str(model), "--data", str(folder / "d.npz"), "--curve", str(folder), "--force", *FEW]
    assert run(command) == 2
    assert "m.removed-01.onnx: holds weights that the model reads" in capsys.readouterr().err
    with pytest.raises(rt.OutputError, match="holds weights that the model reads"):
        rt.save(rt.load(model), folder / "m.removed-01.onnx", force=True)
    assert content(folder) == before


def test_what_samples_are_made_with_is_read_too(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = model.parent
    code = "import numpy as np\n\ndef samples():\n    return {'x': np.ones((8, 4), np.float32)}\n"
    (folder / "loader.py").write_text(code)
    (folder / "loader.json").symlink_to("loader.py")
    (folder / "chosen.json").write_text('{"image_mean": [0.5]}')
    for name in ("config.json", "tokenizer.json", "words.json"):
        (folder / name).write_text("{}")
    before = content(folder)
    for options, name in (
        (["--data", f"{folder}/loader.py:samples"], "loader.json"),
        (["--preprocess", f"{folder}/chosen.json"], "chosen.json"),
        (["--tokenizer", f"{folder}/words.json"], "words.json"),
        ([], "config.json"),
        ([], "tokenizer.json"),
    ):
        for command in ("analyze", "inspect", "rank", "prune", "audit"):
            assert run([command, str(model), *options, "--json", str(folder / name), "--force"]) == 2
            assert f"{name}: --json would overwrite what is read" in capsys.readouterr().err
    assert content(folder) == before


def test_images_and_models_of_folders_are_inputs(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = model.parent
    (folder / "images").mkdir()
    (folder / "images" / "a.png").write_bytes(b"an image")
    (folder / "weights.json").symlink_to("m.pruned.onnx.data")
    (folder / "model.json").symlink_to("m.onnx")
    picture = ["analyze", str(model), "--png", str(folder / "images" / "a.png")]
    assert run([*picture, "--data", str(folder / "images"), "--force"]) == 2
    assert run(["rank", str(folder), "--json", str(folder / "weights.json"), "--force", *FEW]) == 2
    assert run(["analyze", str(folder), "--json", str(folder / "model.json"), "--force", *FEW]) == 2
    assert capsys.readouterr().err.count("would overwrite what is read") == 3
    # What an earlier run wrote there is no input.
    for _ in range(2):
        assert run(["analyze", str(folder), "--json", str(folder / "out.json"), "--force", *FEW]) == 0


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")
def test_devices_stay_what_they_are(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", str(model), "--json", "/dev/null", "--force", "-q"]) == 0
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    assert run(["inspect", str(model), "--json", "/dev/stdout", "-q"]) == 0
    assert '"schema": "redtest-onnx/inspect/1"' in capfd.readouterr().out
    os.mkfifo(model.parent / "pipe.json")
    assert run(["inspect", str(model), "--json", str(model.parent / "pipe.json"), "--force"]) == 2
    assert run(["inspect", str(model), "--json", "/dev/zero", "--force"]) == 2
    assert capfd.readouterr().err.count("a device, a pipe or a socket") == 2


def test_the_next_run_removes_what_killed_ones_left(model: Path, tmp_path: Path) -> None:
    with scratch_folder(tmp_path) as made:
        dead = tmp_path / made.name.replace(f"-{os.getpid()}-", "-999999999-")
        dead.mkdir()
        (dead / "half").write_text("written")
        assert run(["inspect", str(model), "--json", str(tmp_path / "i.json"), "-q"]) == 0
        assert made.exists()
    assert not dead.exists()
