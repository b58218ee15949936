"""Criterion x repair x amount: what depth pruning without training costs, as a table and a figure.

    python tools/experiments/depth_pruning.py                          # the embedded models
    python tools/experiments/depth_pruning.py --cases resnet56 --cifar FOLDER
    python tools/experiments/depth_pruning.py --cases decoder --granularity sub-layer  # trains it first

FOLDER holds models/ (resnet20_cifar10.onnx, resnet56_cifar10_bn.onnx) and data/ with CIFAR-10 as JPEG. Its
runs see 2,048 training images without their labels and are judged on the whole test zip. Each row is added to
--output (JSON lines) as soon as it is there; the table and the figure are made from that file.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np

import redtest_onnx as rt
from redtest_onnx.data.splits import sample_indices
from redtest_onnx.runtime.session import Session

ROOT = Path(__file__).parents[2]
CIFAR = rt.ImageOptions(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
CIFAR_CALIBRATION = 2048
CRITERIA = ("redtest", "recoverable", "output-effect", "block-influence", "angular", "segment")
LABELLED = ("modularity", "probe")
BASELINES = ("random", "tail")
REPAIRS = ("none", "adapter", "refit", "auto")
COLUMNS = (
    *("model", "amount", "criterion", "repair", "layers", "parameters", "MACs", "time of a run"),
    *("same answer", "quality", "seconds"),
)


@dataclass(frozen=True)
class Part:
    """Some samples of a dataset, with or without their labels."""

    whole: rt.Dataset
    indices: Any
    labelled: bool

    @property
    def source(self) -> str:
        """Where the samples come from."""
        return f"{len(self)} samples of {self.whole.source}"

    @property
    def synthetic(self) -> bool:
        """Whether they are synthetic (random)."""
        return self.whole.synthetic

    def __len__(self) -> int:
        return len(self.indices)

    def inputs(self, indices: Any) -> Any:
        """Arrays for the model's inputs."""
        return self.whole.inputs(self.indices[np.asarray(indices)])

    def labels(self, indices: Any) -> Any:
        """Their labels, if they are to be seen."""
        return self.whole.labels(self.indices[np.asarray(indices)]) if self.labelled else None


@dataclass(frozen=True)
class Case:
    """A model with its data, the amounts to remove, and how its quality is told.

    `quality` takes a model and returns a number: accuracy, or perplexity where `lower_is_better`.
    """

    name: str
    model: rt.Model
    calibration: rt.Dataset
    test: rt.Dataset
    amounts: Sequence[tuple[str, rt.Budget]]
    quality: Callable[[rt.Model], float] | None = None


def removing(*counts: int) -> list[tuple[str, rt.Budget]]:
    """Amounts by number of layers."""
    return [(f"{count} layers", rt.Budget(remove=count)) for count in counts]


def embedded(name: str, counts: Sequence[int]) -> Case:
    """A model of this repository."""
    model = rt.load(ROOT / "models" / f"{name}_digits.onnx")
    data = ROOT / "models" / "digits.npz"
    test = rt.open_data(data, model, split="test")
    return Case(name, model, rt.open_data(data, model), test, removing(*counts))


def cifar(name: str, file: str, shared: Path, amounts: Sequence[tuple[str, rt.Budget]]) -> Case:
    """A network on CIFAR-10 JPEGs, calibrated with unlabelled images."""
    model = rt.load(shared / "models" / file)
    train, test = (
        rt.open_data(shared / "data" / f"cifar10_jpeg_{split}.zip", model, images=CIFAR)
        for split in ("train", "test")
    )
    chosen = sample_indices(train, CIFAR_CALIBRATION, 0)
    return Case(name, model, Part(train, chosen, labelled=False), test, amounts)


def decoder(folder: Path) -> Case:
    """A byte-level language model, trained here on the sources of the standard library."""
    from small_decoder import train

    path = train(folder)
    model = rt.load(path)
    data, test = (rt.open_data(folder / f"{split}.npz", model) for split in ("calibration", "test"))
    return Case("decoder", model, data, test, removing(2, 4, 6), lambda m: perplexity(m, test))


def perplexity(model: rt.Model, data: rt.Dataset) -> float:
    """exp of the mean negative log-likelihood of the next byte."""
    session = Session(model)
    total, count = 0.0, 0
    for start in range(0, len(data), 16):
        tokens = data.inputs(np.arange(start, min(start + 16, len(data))))["tokens"]
        logits = session.run({"tokens": tokens})["logits"].astype(np.float64)[:, :-1]
        top = logits.max(axis=-1, keepdims=True)
        normed = logits - top - np.log(np.exp(logits - top).sum(axis=-1, keepdims=True))
        total -= float(np.take_along_axis(normed, tokens[:, 1:, None], axis=-1).sum())
        count += tokens[:, 1:].size
    return float(np.exp(total / count))


def cases(names: Sequence[str], shared: Path | None, scratch: Path) -> Iterator[Case]:
    """The cases asked for."""
    targets = [
        ("params 0.75, MACs 0.6", rt.Budget(targets=(("params", 0.75), ("macs", 0.6)))),
        ("params 0.55, MACs 0.5", rt.Budget(targets=(("params", 0.55), ("macs", 0.5)))),
    ]
    made: dict[str, Callable[[], Case]] = {
        "resnet": lambda: embedded("resnet", (9, 14, 18)),
        "vgg": lambda: embedded("vgg", (2, 4, 6)),
        "vit": lambda: embedded("vit", (2, 4, 6)),
        "decoder": lambda: decoder(scratch),
    }
    if shared is not None:
        made["resnet20"] = lambda: cifar("resnet20", "resnet20_cifar10.onnx", shared, removing(2, 4))
        made["resnet56"] = lambda: cifar("resnet56", "resnet56_cifar10_bn.onnx", shared, targets)
    for name in names:
        yield made[name]()


def rows(
    case: Case,
    criteria: Sequence[str],
    repairs: Sequence[str],
    amounts: Sequence[str] | None,
    similarity: rt.AnalysisSettings,
    threads: int,
) -> Iterator[dict[str, Any]]:
    """Results of one model, by criterion, repair and the amounts of these names, or all."""
    options = rt.RunOptions("cpu", threads)
    analysis = rt.analyze(case.model, case.calibration, similarity, options=options)
    before = case.quality(case.model) if case.quality else None
    for amount, budget in case.amounts:
        if amounts is not None and amount not in amounts:
            continue
        for criterion in criteria:
            start = process_time()
            bench = rt.Workbench(case.model, case.calibration, options, evaluation=case.test)
            settings = rt.PruneSettings(criterion, similarity)
            plan = rt.plan(bench, settings=settings, budget=budget, analysis=analysis)
            planned = process_time() - start
            for repair in repairs:
                start = process_time()
                settings = rt.PruneSettings(criterion, similarity, repair=repair)  # type: ignore[arg-type]
                result = rt.prune(bench, settings=settings, plan=plan, analysis=analysis)
                found = row(case, amount, criterion, repair, result)
                if case.quality:
                    found |= {"before": before, "after": case.quality(result.model), "unit": "perplexity"}
                yield found | {"seconds": planned + process_time() - start}


def row(case: Case, amount: str, criterion: str, repair: str, result: rt.Pruning) -> dict[str, Any]:
    """One result: shares of what was there before, quality before and after."""
    a, b = result.before, result.after
    return {
        "model": case.name,
        "amount": amount,
        "criterion": criterion,
        "repair": repair,
        "kept": result.repair.method,
        "removed": [step.region for step in result.plan.steps],
        "parameters": b.cost.parameters / a.cost.parameters - 1,
        "macs": (b.cost.macs or 0) / (a.cost.macs or 1) - 1,
        # The processor's time, since other work may share the machine.
        "latency": b.latency.cpu / a.latency.cpu - 1,
        "agreement": result.agreement.top1,
        "before": a.accuracy,
        "after": b.accuracy,
        "unit": "accuracy",
    }


def table(results: Sequence[dict[str, Any]]) -> str:
    """All results as Markdown."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---|---|---|---|---:|---:|---:|---:|---:|---:|---:|"]
    for r in results:
        form = "{:.2%}" if r["unit"] == "accuracy" else "{:.2f}"
        kept = f" ({r['kept']})" if r["repair"] == "auto" else ""
        cells = [
            *(r["model"], r["amount"], r["criterion"], r["repair"] + kept, str(len(r["removed"]))),
            *(f"{r[key]:+.1%}" for key in ("parameters", "macs")),
            "" if r["latency"] is None else f"{r['latency']:+.0%}",
            "" if r["agreement"] is None else f"{r['agreement']:.2%}",
            f"{form.format(r['before'])} -> {form.format(r['after'])}",
            f"{r['seconds']:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def figure(results: Sequence[dict[str, Any]], path: Path) -> None:
    """Quality against the parameters that are left, a panel per model, a colour per repair."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = list(dict.fromkeys(r["model"] for r in results))
    columns = min(len(names), 3)
    lines = -(-len(names) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(4 * columns, 3.4 * lines), squeeze=False)
    colours = dict(zip(REPAIRS, ("#999999", "#0072b2", "#d55e00", "#009e73"), strict=True))
    for axis in axes.flat[len(names) :]:
        axis.remove()
    for axis, name in zip(axes.flat, names, strict=False):
        own = [r for r in results if r["model"] == name]
        for repair in REPAIRS:
            points = [(1 + r["parameters"], r["after"]) for r in own if r["repair"] == repair]
            if points:
                axis.scatter(*zip(*points, strict=True), s=22, color=colours[repair], label=repair, alpha=0.8)
        axis.axhline(own[0]["before"], color="black", linewidth=0.8, linestyle=":")
        if own[0]["unit"] == "perplexity":
            axis.set_yscale("log")
            axis.yaxis.set_minor_formatter("{x:.0f}")
            axis.yaxis.set_major_formatter("{x:.0f}")
        axis.set(title=name, xlabel="parameters left", ylabel=own[0]["unit"])
    pairs = (zip(*axis.get_legend_handles_labels(), strict=True) for axis in axes.flat)
    by_label = {label: handle for panel in pairs for handle, label in panel}
    shown = [repair for repair in REPAIRS if repair in by_label]
    figure.legend(
        [by_label[repair] for repair in shown],
        shown,
        title="repair",
        loc="lower center",
        ncols=len(shown),
        fontsize=9,
    )
    figure.tight_layout(rect=(0, 0.09 if lines > 1 else 0.16, 1, 1))
    figure.savefig(path, dpi=110)


def main() -> None:
    """Run the experiment, or only write the table and the figure of an earlier one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cases", nargs="*", default=["resnet", "vgg", "vit"])
    parser.add_argument("--cifar", type=Path, help="folder with models/ and data/ of the CIFAR-10 runs")
    parser.add_argument("--criteria", nargs="+", help="[default: all that the data has labels for]")
    parser.add_argument("--repairs", nargs="+", default=list(REPAIRS))
    parser.add_argument("--amounts", nargs="+", help="such as '4 layers' [default: all of a case]")
    parser.add_argument(
        "--granularity", default="auto", help="sub-layer counts attention and feed-forward one by one"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--scratch", type=Path, default=Path("decoder"), help="where the decoder is trained")
    parser.add_argument("--output", type=Path, default=Path("depth_pruning.jsonl"))
    parser.add_argument("--table", type=Path, help="write all results of --output as Markdown")
    parser.add_argument("--figure", type=Path, help="write all results of --output as a figure")
    options = parser.parse_args()
    similarity = rt.AnalysisSettings(granularity=options.granularity)
    for case in cases(options.cases, options.cifar, options.scratch):
        labelled = case.calibration.labels(np.arange(1)) is not None
        criteria = options.criteria or [*CRITERIA, *(LABELLED if labelled else ()), *BASELINES]
        for result in rows(case, criteria, options.repairs, options.amounts, similarity, options.threads):
            with options.output.open("a", encoding="utf-8") as file:
                file.write(json.dumps(result) + "\n")
            print(table([result]).splitlines()[-1], flush=True)
    lines = options.output.read_text(encoding="utf-8").splitlines() if options.output.exists() else []
    results = [json.loads(line) for line in lines]
    if options.table:
        options.table.write_text(table(results), encoding="utf-8")
    if options.figure:
        figure(results, options.figure)


if __name__ == "__main__":
    main()
