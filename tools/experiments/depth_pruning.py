"""Criterion x repair x amount: what depth pruning without training costs, as a table.

    python tools/experiments/depth_pruning.py                 # the embedded models, about two minutes
    python tools/experiments/depth_pruning.py --cifar FOLDER  # also ResNet20 and ResNet56 on CIFAR-10

The CIFAR-10 runs fit to 2,048 unlabelled images of the train zip and are judged on the whole test zip. Prints
the table as it grows and writes it as Markdown (--output).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import redtest_onnx as rt

ROOT = Path(__file__).parents[2]
CIFAR = rt.ImageOptions(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
COLUMNS = [
    *("model", "criterion", "repair", "layers removed", "parameters", "MACs", "p50 latency"),
    *("same answer", "accuracy", "seconds"),
]
HEADER = f"| {' | '.join(COLUMNS)} |"
RULE = "|---|---|---|---:|---:|---:|---:|---:|---:|---:|"


@dataclass(frozen=True)
class Case:
    """A model with its data and the amounts to remove."""

    name: str
    model: rt.Model
    calibration: rt.Dataset
    test: rt.Dataset
    amounts: tuple[int, ...]


def embedded() -> Iterator[Case]:
    """The models of this repository."""
    for name, amounts in (("resnet", (9, 14, 18)), ("vgg", (2, 4, 6)), ("vit", (2, 4, 6))):
        model = rt.load(ROOT / "models" / f"{name}_digits.onnx")
        data = ROOT / "models" / "digits.npz"
        yield Case(name, model, rt.open_data(data, model), rt.open_data(data, model, split="test"), amounts)


def cifar(shared: Path) -> Iterator[Case]:
    """ResNet20 and ResNet56 on CIFAR-10 JPEGs."""
    for name, amounts in (("resnet20_cifar10", (2, 4)), ("resnet56_cifar10_bn", (6, 11, 12, 14))):
        model = rt.load(shared / "models" / f"{name}.onnx")
        train, test = (
            rt.open_data(shared / "data" / f"cifar10_jpeg_{split}.zip", model, images=CIFAR)
            for split in ("train", "test")
        )
        yield Case(name, model, train, test, amounts)


def rows(case: Case, criteria: list[str], repairs: list[str]) -> Iterator[str]:
    """Table rows of one model."""
    analysis = rt.analyze(case.model, case.calibration)
    for criterion in criteria:
        for amount in case.amounts:
            for repair in repairs:
                start = perf_counter()
                plan, _ = rt.plan(
                    case.model,
                    case.calibration,
                    rt.Budget(remove=amount),
                    criterion=criterion,
                    analysis=analysis,
                )
                result = rt.prune(
                    case.model, case.calibration, plan, analysis, evaluation=case.test, method=repair
                )
                yield row(case.name, criterion, repair, amount, result, perf_counter() - start)


def row(name: str, criterion: str, repair: str, amount: int, result: rt.Pruning, seconds: float) -> str:
    """One row: shares of what was there before, accuracy before and after."""
    a, b = result.before, result.after
    cells = [
        name,
        criterion,
        repair,
        str(amount),
        f"{b.cost.parameters / a.cost.parameters - 1:+.1%}",
        f"{(b.cost.macs or 0) / (a.cost.macs or 1) - 1:+.1%}",
        f"{b.latency.p50 / a.latency.p50 - 1:+.0%}",
        f"{result.agreement.top1 or 0:.2%}",
        f"{a.accuracy or 0:.2%} -> {b.accuracy or 0:.2%}",
        f"{seconds:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Run the experiment."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cifar", type=Path, help="folder with models/ and data/ of the CIFAR-10 runs")
    parser.add_argument(
        "--criteria", nargs="+", default=["redtest", "block-influence", "output-effect", "random"]
    )
    parser.add_argument("--repairs", nargs="+", default=["none", "refit"])
    parser.add_argument("--output", type=Path, help="write the table to this Markdown file")
    options = parser.parse_args()
    lines = [HEADER, RULE]
    print("\n".join(lines), flush=True)
    for case in (*embedded(), *(cifar(options.cifar) if options.cifar else ())):
        for line in rows(case, options.criteria, options.repairs):
            print(line, flush=True)
            lines.append(line)
    if options.output:
        options.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
