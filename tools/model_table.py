"""A table of what the tool finds in, and can remove from, every model at hand.

    python tools/model_table.py --output docs/models.md     # the page of the documentation

Models are those of models/, tests/fixtures/ and, where it is there, ../shared/models. All run on synthetic
inputs: the table is about graphs. Every removable layer is taken out alone, the result is verified against
the original and written, read and run again.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import redtest_onnx as rt
from redtest_onnx.errors import RedtestError
from redtest_onnx.layers.layer import Layer
from redtest_onnx.pruning.apply import apply_plan
from redtest_onnx.pruning.plan import Plan, Step
from redtest_onnx.pruning.verify import verify, verify_removal
from redtest_onnx.runtime.workbench import Workbench

ROOT = Path(__file__).parents[1]
CPU = rt.RunOptions("cpu", 1)
HEAD = """# What is found in models of many kinds

Written by `python tools/model_table.py`. Each file is inspected with synthetic inputs; then every removable
layer is taken out alone, and what comes out is verified: same signature, passes the full check of
onnx.checker if the original does, loads in ONNX Runtime at every optimisation level, and every tensor behind
the gap is what the original computes from what the gap hands on. *Analyzed* says whether similarities could
be measured on four samples.

| model | operator set | layers | removable | removed and verified | analyzed | what stays, and why |
| --- | --- | ---: | ---: | ---: | --- | --- |
"""
PACKAGES = "\n## Trained models of public packages\n"
"""Starts the section that tools/package_models.py writes; it stays."""


@dataclass(frozen=True)
class Row:
    """One model of the table."""

    name: str
    opsets: str
    layers: int
    removable: int
    verified: int
    analyzed: str
    reasons: str

    def __str__(self) -> str:
        cells = (
            self.name,
            self.opsets,
            self.layers,
            self.removable,
            self.verified,
            self.analyzed,
            self.reasons,
        )
        return f"| {' | '.join(str(cell).replace('|', '/') for cell in cells)} |"


def files() -> list[Path]:
    """All models at hand."""
    shared = ROOT.parent / "shared" / "models"
    folders = (ROOT / "models", ROOT / "tests" / "fixtures", shared)
    return [path for folder in folders for path in sorted(folder.rglob("*.onnx"))]


def row(path: Path) -> Row:
    """Everything about one model."""
    model = rt.load(path)
    data = rt.open_data(None, model, count=16)
    bench = Workbench(model, data, CPU)
    layers = bench.layers()
    verified = 0
    for layer in layers:
        if layer.removable:
            plan = Plan("table", model.sha256, (Step.of(layer),))
            pruned = apply_plan(bench.opened, plan)
            verify_removal(bench.opened, pruned, plan)
            closed = bench.view.close(pruned)
            verify(bench, bench.successor(closed))
            with tempfile.TemporaryDirectory() as folder:
                saved = rt.load(rt.save(closed, Path(folder) / "m.onnx").path or "")
                verify(bench, bench.successor(replace(saved, renamed=closed.renamed)))
            verified += 1
    opsets = ", ".join(f"{domain} {version}" for domain, version in model.opsets.items())
    removable = sum(layer.removable for layer in layers)
    reasons = _reasons(layers) or "no operator with weights lies in front of the predictions"
    name = path.relative_to(ROOT if path.is_relative_to(ROOT) else ROOT.parent).as_posix()
    return Row(f"`{name}`", opsets, len(layers), removable, verified, _analyzed(model, data), reasons)


def _analyzed(model: rt.Model, data: rt.Dataset) -> str:
    try:
        rt.analyze(model, data, rt.AnalysisSettings(samples=4, batches=1), CPU)
    except RedtestError as error:
        return f"no: {error.what}"
    return "yes"


def _reasons(layers: tuple[Layer, ...]) -> str:
    """Reasons in general words, each with the number of layers."""
    found: Counter[str] = Counter()
    for layer in layers:
        if layer.action is None:
            found[_general(layer.reason or "")] += 1
        elif layer.action == "adapter":
            found["with an adapter, since the shape changes"] += 1
    return "; ".join(f"{count} {reason}" for reason, count in found.most_common()) or (
        "all can go" if layers else ""
    )


def _general(reason: str) -> str:
    for mark, words in (
        ("model's input", "read the model's input"),
        ("which no adapter", "change the shape as no adapter can"),
        ("as large as the layer", "would need an adapter as large as themselves"),
        ("also read by", "have inner tensors that others read"),
        ("also an output", "have inner tensors that are outputs"),
        ("control-flow", "lie inside control flow that stays whole"),
    ):
        if mark in reason:
            return words
    return reason


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("models.md"))
    logging.disable(logging.WARNING)
    rows = []
    for path in files():
        rows.append(row(path))
        print(rows[-1], flush=True)
    page = parser.parse_args().output
    _, mark, packages = (page.read_text(encoding="utf-8") if page.exists() else "").partition(PACKAGES)
    page.write_text(HEAD + "\n".join(map(str, rows)) + f"\n{mark}{packages}", encoding="utf-8")


if __name__ == "__main__":
    main()
