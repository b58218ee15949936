"""Which layers to remove: criteria side by side, each with the same repair, on CIFAR-10 ResNets.

    python tools/experiments/layer_choice.py --cifar FOLDER
    python tools/experiments/layer_choice.py --cifar FOLDER --models resnet20 --repairs distil --seeds 0 1 2
    python tools/experiments/layer_choice.py --cifar FOLDER --criteria spread --judged 2000 --samples 768
    python tools/experiments/layer_choice.py --cifar FOLDER --criteria spread --width --repairs refit distil

FOLDER is that of depth_pruning.py. Unlabelled training images choose and fit, a fifth of them only to judge
repairs by; accuracy is that on the first --judged test images in an order drawn once, or on all of them. Rows
are added to --output (JSON lines) as soon as they are there, and those that are there already are not made
again; the table is made from that file, with the mean over seeds where there are several.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import mean, stdev
from time import process_time
from typing import Any

import numpy as np

import redtest_onnx as rt
from redtest_onnx.data.dataset import Subset
from redtest_onnx.pruning import prune as pruning
from redtest_onnx.pruning.budget import Budget
from redtest_onnx.pruning.plan import Step
from redtest_onnx.pruning.repair.fit import METHODS, Method
from redtest_onnx.runtime.evaluate import Evaluator
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analyze import analyze
from redtest_onnx.training.distil.settings import DistilSettings

CIFAR = rt.ImageOptions(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
CRITERIA = ("best-of", "spread", "every-other", "redtest", "recoverable", "random")
FILES = {"resnet20": "resnet20_cifar10.onnx", "resnet56": "resnet56_cifar10_bn.onnx"}
AMOUNTS = {
    "resnet56": {
        "params 0.75, MACs 0.6": Budget(targets=(("params", 0.75), ("macs", 0.6))),
        "params 0.55, MACs 0.5": Budget(targets=(("params", 0.55), ("macs", 0.5))),
    },
    "resnet20": {"2 layers": Budget(remove=2), "4 layers": Budget(remove=4)},
}
WIDTHS = {
    name: {
        "MACs 0.5, width": Budget(targets=(("macs", 0.5),), width=True),
        "params 0.55, MACs 0.5, width": Budget(targets=(("params", 0.55), ("macs", 0.5)), width=True),
    }
    for name in FILES
}
COLUMNS = (
    *("model", "amount", "criterion", "repair", "seeds", "layers", "channels", "parameters", "MACs"),
    *("accuracy before", "accuracy", "of original", "CPU seconds"),
)
SETTING = ("model", "amount", "criterion", "repair", "samples", "judged")
Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A network with the images of one seed.

    Attributes:
        name: of the network, in `FILES`.
        seed: draws the training images, and every other choice.
        samples: training images.
        judged: test images; None for all.
        folder: see the module.
        threads: of ONNX Runtime and PyTorch.
    """

    name: str
    seed: int
    samples: int
    judged: int | None
    folder: Path
    threads: int

    @cached_property
    def model(self) -> rt.Model:
        """The network."""
        return rt.load(self.folder / "models" / FILES[self.name])

    @cached_property
    def bench(self) -> Workbench:
        """The network with its training images."""
        data = self._images("train")
        chosen = np.random.default_rng(self.seed).permutation(len(data))[: self.samples]
        options = rt.RunOptions("cpu", self.threads)
        return Workbench(self.model, Subset(data, chosen), options, seed=self.seed)

    @cached_property
    def judge(self) -> Evaluator:
        """What tells accuracy on the test images."""
        data = self._images("test")
        chosen = np.random.default_rng(0).permutation(len(data))[: self.judged]
        return Workbench(self.model, data, rt.RunOptions("cpu", self.threads)).evaluator(np.sort(chosen))

    def _plan(self, amount: str, criterion: str, analysis: rt.Analysis) -> rt.Plan:
        if criterion[0].isdigit():
            blocks = [layer for layer in analysis.layers if layer.operators > 1]
            chosen = tuple(Step.of(blocks[int(number)]) for number in criterion.split(","))
            return rt.Plan("given", self.bench.digest, chosen)
        settings = pruning.PruneSettings(criterion, analysis.settings)
        budget = {**AMOUNTS[self.name], **WIDTHS[self.name]}[amount]
        return pruning.plan(self.bench, budget, settings, analysis=analysis)[0]

    def _images(self, split: str) -> rt.Dataset:
        path = self.folder / "data" / f"cifar10_jpeg_{split}.zip"
        return rt.open_data(path, self.model, images=CIFAR)

    def rows(self, wanted: Iterable[tuple[str, str, Method]]) -> Iterator[Row]:
        """Results by amount, criterion and repair; a plan serves all repairs that follow one another."""
        bench, judge = self.bench, self.judge
        similarity = rt.AnalysisSettings(seed=self.seed)
        analysis = analyze(bench, similarity)
        planned: dict[tuple[str, str], tuple[rt.Plan, float]] = {}
        for amount, criterion, repair in wanted:
            if (amount, criterion) not in planned:
                begin = process_time()
                planned[amount, criterion] = self._plan(amount, criterion, analysis), process_time() - begin
            plan, seconds = planned[amount, criterion]
            begin = process_time()
            distil = DistilSettings(mirror=True, seed=self.seed, precision="bfloat16")
            settings = pruning.PruneSettings(similarity=similarity, repair=repair, distil=distil)
            pruned, done = pruning.rewrite(bench, plan, settings)
            seconds += process_time() - begin
            accuracy, before = judge.evaluate(pruned.model).accuracy, judge.reference.accuracy
            assert bench.cost.macs is not None
            assert pruned.cost.macs is not None
            setting = (self.name, amount, criterion, repair, self.samples, self.judged)
            yield {
                **dict(zip(SETTING, setting, strict=True)),
                "seed": self.seed,
                "kept": done.method,
                "removed": [step.region for step in plan.steps],
                "channels": {width.width: width.removed for width in plan.widths},
                "parameters": pruned.cost.parameters / bench.cost.parameters - 1,
                "macs": pruned.cost.macs / bench.cost.macs - 1,
                "before": before,
                "after": accuracy,
                "seconds": seconds,
            }


def table(rows: list[Row]) -> str:
    """Rows as Markdown, seeds put together."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---|---|---|---|" + "---:|" * (len(COLUMNS) - 4)]
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in SETTING), []).append(row)
    for (model, amount, criterion, repair, *_), own in groups.items():
        found = {key: mean(row[key] for row in own) for key in ("parameters", "macs", "after", "seconds")}
        spread = f" ± {100 * stdev(row['after'] for row in own):.2f}" if len(own) > 1 else ""
        cells = (
            *(model, amount, criterion, repair, str(len(own))),
            f"{mean(len(row['removed']) for row in own):.3g}",
            f"{mean(sum(row.get('channels', {}).values()) for row in own):.4g}",
            *(f"{found[key]:+.1%}" for key in ("parameters", "macs")),
            *(f"{own[0]['before']:.2%}", f"{found['after']:.2%}{spread}"),
            *(f"{found['after'] / own[0]['before']:.1%}", f"{found['seconds']:.0f}"),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is not there yet and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cifar", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--models", nargs="+", choices=FILES, default=["resnet56"])
    parser.add_argument("--amounts", nargs="+", help="[default: all of a model]")
    parser.add_argument("--width", action="store_true", help="layers and channels, at half of the MACs")
    parser.add_argument("--criteria", nargs="+", default=list(CRITERIA), help="or blocks, such as 0,2,5")
    parser.add_argument("--repairs", nargs="+", choices=METHODS, default=["refit"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--samples", type=int, default=2048, help="training images")
    parser.add_argument("--judged", type=int, help="test images [default: all]")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("layer_choice.jsonl"))
    arguments = parser.parse_args()
    path: Path = arguments.output
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    known = {tuple(row[key] for key in (*SETTING, "seed")) for row in rows}
    for model in arguments.models:
        for seed in arguments.seeds:
            wanted = [
                (amount, criterion, repair)
                for amount in arguments.amounts or (WIDTHS if arguments.width else AMOUNTS)[model]
                for criterion in arguments.criteria
                for repair in arguments.repairs
                if (model, amount, criterion, repair, arguments.samples, arguments.judged, seed) not in known
            ]
            if not wanted:
                continue
            case = Case(model, seed, arguments.samples, arguments.judged, arguments.cifar, arguments.threads)
            for row in case.rows(wanted):
                rows.append(row)
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
                print(table([row]).splitlines()[-1], row["removed"], flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
