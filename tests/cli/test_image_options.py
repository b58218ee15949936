"""Options for images are refused where they would do nothing; what was not asked for is said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from redtest_onnx.cli.main import run

MODELS = Path(__file__).parents[2] / "models"
MODEL, DATA = str(MODELS / "resnet_digits.onnx"), str(MODELS / "digits.npz")
FEW = ["--samples", "16", "--batches", "1", "--threads", "1"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images of the model's size, others, arrays and texts."""
    image = pytest.importorskip("PIL.Image")
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for name, shape in (("same", (8, 8)), ("large", (16, 12))):
        (tmp_path / name).mkdir()
        for k in range(20):
            pixels = random.integers(0, 256, shape, np.uint8)
            image.fromarray(pixels).save(tmp_path / name / f"{k}.png")
    values = random.random((20, 1, 8, 8), np.float32)
    np.save(tmp_path / "d.npy", values)
    (tmp_path / "arrays").mkdir()
    for k in range(20):
        np.save(tmp_path / "arrays" / f"{k}.npy", values[k])
    (tmp_path / "texts.txt").write_text("one text\n" * 20)
    (tmp_path / "loader.py").write_text(
        "import numpy as np\n\n\ndef samples():\n    return {'input': np.ones((20, 1, 8, 8), np.float32)}\n"
    )
    told = {"image_mean": [0.5], "image_std": [0.5], "rescale_factor": 1 / 255}
    (tmp_path / "p.json").write_text(json.dumps(told))
    return tmp_path


@pytest.mark.parametrize(
    "options",
    [
        *(["--mean", "0.5"], ["--std", "0.5"], ["--scale", "1"], ["--size", "8"], ["--resize", "8x8"]),
        *(["--crop", "8"], ["--pad"], ["--interpolation", "bicubic"], ["--resampler", "torch"]),
        *(["--layout", "nchw"], ["--preprocess", "p.json"]),
    ],
    ids=lambda options: options[0],
)
@pytest.mark.parametrize("data", [DATA, "d.npy", "texts.txt", "arrays"])
def test_options_for_images_are_refused_without_images(
    data: str, options: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["inspect", MODEL, "--data", data, *options]) == 2
    assert f"{data}: {options[0]} is for images, and it holds none" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["analyze", "prune", "audit", "expose", "finetune", "compare", "rank"])
def test_every_command_refuses_them(command: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = {"expose": ["--save", "v.npz"], "prune": ["-o", "o.onnx"], "finetune": ["-o", "o.onnx"]}
    more = [MODEL] if command == "compare" else written.get(command, [])
    assert run([command, MODEL, *more, "--data", DATA, "--mean", "0.5", "--std", "0.5"]) == 2
    assert "--mean, --std are for images, and it holds none" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("data", "option", "value", "kind"),
    [
        (DATA, "--sample-rate", "8000", "sounds"),
        ("texts.txt", "--sample-rate", "8000", "sounds"),
        ("d.npy", "--tokenizer", "none.json", "texts and tables"),
        (DATA, "--max-length", "8", "texts and tables"),
        (DATA, "--label-column", "label", "texts and tables"),
        ("d.npy", "--input-shape", "input:2,1,8,8", "synthetic inputs"),
    ],
)
def test_options_for_other_kinds_of_samples_are_refused(
    data: str, option: str, value: str, kind: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["inspect", MODEL, "--data", data, option, value]) == 2
    assert f"{data}: {option} is for {kind}" in capsys.readouterr().err


def test_a_search_refuses_them(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["search", "--data", DATA, "--crop", "8"]) == 2
    assert "--crop is for images" in capsys.readouterr().err
    assert not (folder / "search.sqlite").exists()


def test_they_may_be_for_the_other_samples(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--data", "d.npy", "--other-data", "same", "--mean", "0.5", "--std", "0.5"]
    assert run(["compare", MODEL, *options, *FEW]) == 0
    assert capsys.readouterr().err.count("d.npy: it holds no images, --mean, --std have no effect on it") == 1


@pytest.mark.parametrize("data", [[], ["--data", "loader.py:samples"], ["--data", "same"]])
def test_they_pass_where_they_may_do_something(data: list[str], folder: Path) -> None:
    assert run(["inspect", MODEL, *data, "--mean", "0.5", "--threads", "1"]) == 0
    assert run(["inspect", MODEL, "--data", DATA, "--layout", "auto", "--threads", "1"]) == 0


def test_means_of_unscaled_pixels_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mean, std = ["--mean", "123.675"], ["--std", "58.395"]
    assert run(["inspect", MODEL, "--data", "same", *mean, *std]) == 2
    said = capsys.readouterr().err
    assert "--mean is up to 123.675, and pixels are scaled to 0..1 before it is taken off" in said
    assert "--scale 1 if mean" in said
    for scale in ("1", "1/255"):
        assert run(["inspect", MODEL, "--data", "same", *mean, *std, "--scale", scale, "--threads", "1"]) == 0
    assert run(["inspect", MODEL, "--data", "same", "--mean", "1", *std, "--threads", "1"]) == 0
    # The scale of a file was not given either.
    assert run(["inspect", MODEL, "--data", "same", "--preprocess", "p.json", *mean]) == 2
    assert run(["inspect", MODEL, "--data", "same", "--preprocess", "p.json", *mean, "--scale", "1"]) == 0


@pytest.mark.parametrize(
    ("data", "options", "said"),
    [
        ("same", ["--mean", "0.5", "--std", "0.5"], False),
        ("large", ["--mean", "0.5", "--std", "0.5", "--resize", "8x8"], False),
        ("large", ["--mean", "0.5", "--std", "0.5"], True),
        ("same", ["--mean", "0.5"], True),
        ("same", [], True),
    ],
)
def test_what_was_assumed_is_said(
    data: str, options: list[str], said: bool, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["inspect", MODEL, "--data", data, *options, "--threads", "1"]) == 0
    assert (f"WARNING: {data}: " in capsys.readouterr().err) is said
    assert run(["inspect", MODEL, "--data", data, *options, "--threads", "1", "-v"]) == 0
    assert f"{data}: re" in capsys.readouterr().err  # whoever asks is told in any case
