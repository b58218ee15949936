"""The experiment of Table 1: rows by scale and data that no run overwrites, and classes of any folder."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("PIL")
EXPERIMENTS = Path(__file__).parents[1] / "tools" / "experiments"


@pytest.fixture(scope="module")
def table1() -> Iterator[Any]:
    """The script as a module."""
    sys.path.insert(0, str(EXPERIMENTS))
    try:
        import table1

        yield table1
    finally:
        sys.path.remove(str(EXPERIMENTS))


def call(table1: Any, monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["table1.py", *words])
    table1.main()


def test_rows_are_kept_by_scale_and_what_is_there_is_not_run_again(
    table1: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    base = ["--nets", "vgg_digits", "--seeds", "0", "--output", "t.jsonl", "--methods"]
    call(table1, monkeypatch, *base, "redtest:none", "--epochs", "0", "1")
    first = (tmp_path / "t.jsonl").read_text(encoding="utf-8")
    call(table1, monkeypatch, *base, "redtest:none", "--epochs", "0", "1")
    assert (tmp_path / "t.jsonl").read_text(encoding="utf-8") == first
    call(table1, monkeypatch, *base, "redtest:none", "--epochs", "0", "2")
    text = (tmp_path / "t.jsonl").read_text(encoding="utf-8")
    assert text.startswith(first)
    rows = [json.loads(line) for line in text.splitlines()]
    assert [row["scale"] for row in rows] == ["digits (0, 1 epochs)", "digits (0, 2 epochs)"]
    assert all(row["msrs_after"] < row["msrs"] for row in rows)
    assert rows[0]["macs"] < -0.5
    call(table1, monkeypatch, "--report", "--output", "t.jsonl", "--epochs", "0", "2", "--table", "t.md")
    table = (tmp_path / "t.md").read_text(encoding="utf-8")
    assert len(table.splitlines()) == 3
    assert {path.name for path in tmp_path.iterdir()} == {"t.jsonl", "t.md"}


def test_classes_are_those_of_the_folder(table1: Any, tmp_path: Path) -> None:
    from PIL import Image
    from table1_nets import NETS, SCALES, exported, open_images

    pixels = np.random.default_rng(0).integers(0, 255, (7, 9, 3), dtype=np.uint8)
    for part in ("any_train", "any_test"):
        for c in range(13):
            folder = tmp_path / part / f"class{c:02d}"
            folder.mkdir(parents=True)
            Image.fromarray(pixels).save(folder / "0.png")
    images = open_images(tmp_path, NETS["vgg19"], SCALES["minutes"])
    assert images.classes == 13
    build = NETS["vgg19"].build
    assert build is not None
    assert exported(build(images.classes, 16)).graph.node[-1].op_type == "Gemm"
    with pytest.raises(SystemExit, match="one is needed"):
        open_images(tmp_path / "any_train", NETS["vgg19"], SCALES["minutes"])


def test_an_unpruned_network_is_trained_once_for_all_seeds(table1: Any, tmp_path: Path) -> None:
    from PIL import Image
    from table1_nets import NETS, SCALES, base_network, open_images

    draw = np.random.default_rng(0)
    for part in ("train", "test"):
        for c in range(2):
            folder = tmp_path / "data" / part / str(c)
            folder.mkdir(parents=True)
            for k in range(8):
                pixels = draw.integers(0, 255, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{k}.png")
    scale = replace(SCALES["minutes"], base_epochs=1, batch=8, divisor=32)
    images = open_images(tmp_path / "data", NETS["vgg19"], scale)
    first = base_network("vgg19", 0, scale, images, tmp_path / "nets")
    written = (tmp_path / "nets" / "vgg19-0.onnx").stat()
    second = base_network("vgg19", 1, scale, images, tmp_path / "nets")
    assert second.sha256 == first.sha256
    assert [path.name for path in (tmp_path / "nets").iterdir()] == ["vgg19-0.onnx"]
    assert (tmp_path / "nets" / "vgg19-0.onnx").stat().st_mtime_ns == written.st_mtime_ns
    assert sum(node.op_type == "Conv" for node in first.graph.node) == 16
    other = base_network("vgg19", 1, replace(scale, one_base=False), images, tmp_path / "nets")
    assert other.sha256 != first.sha256
