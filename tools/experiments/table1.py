"""Depth pruning with fine-tuning: the protocol of RedTest's Table 1 and Figure E2 (arXiv 2411.10507).

    python tools/experiments/table1.py --scale digits                    # minutes on one CPU core
    python tools/experiments/table1.py --scale minutes --data FOLDER --base resnet56=FILE   # 22 minutes
    python tools/experiments/table1.py --scale full --data FOLDER        # the paper's recipe, a GPU
    python tools/experiments/table1.py --scale digits --report --table table1.md --figure table1.svg

FOLDER holds one folder, .zip or .tar each whose name ends in "train" and "test"; subfolders are classes, of
CIFAR-10, CIFAR-100 or others. ResNet56 and VGG19 are written as ONNX files with random weights and trained
through the bridge, once per seed (at the scale `minutes` once for all), unless `--base NET=FILE` gives a
trained one. Each criterion then chooses layers, they are removed, the rest is repaired with unlabelled images
and fine-tuned. A tenth of the training images chooses the epoch; the test images are looked at once, at the
end. `redtest-paper` is the set of layers that the paper publishes, without a repair as in the paper and with
one; `modularity` is the method of Lu et al. (ECCV 2022) and `probe` that of Chen and Zhao, on which DBP
builds. Rows are added to --output (JSON lines) under their scale and data; what is there is not run again,
and networks in --scratch are not trained again. Nothing else is written unless asked for.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from table1_nets import NETS, SCALES, Images, Scale, base_network, open_images
from table1_report import draw, table

import redtest_onnx as rt
from redtest_onnx.data.dataset import Subset
from redtest_onnx.data.splits import sample_indices
from redtest_onnx.pruning.plan import Plan, Step
from redtest_onnx.pruning.prune import compare, rewrite
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.training.finetune import finetune
from redtest_onnx.training.loop import Watch
from redtest_onnx.training.settings import TrainingSettings

METHODS = (
    *("none", "redtest-paper:none", "redtest-paper", "redtest:none", "redtest", "random", "tail"),
    *("modularity", "probe", "recoverable", "output-effect"),
)
"""Criteria, with their repair behind a colon; "refit" without one."""


@dataclass(frozen=True)
class Job:
    """One network and seed at one scale.

    Attributes:
        net: its name.
        seed: of training, of the choice of images and of random criteria.
        scale: how much is computed.
        images: what it is trained and tested on.
        base: a trained network to start from; None to train one.
        scratch: folder of the networks trained here.
    """

    net: str
    seed: int
    scale: Scale
    images: Images
    base: Path | None
    scratch: Path

    def model(self) -> rt.Model:
        """The unpruned network."""
        if self.base is not None:
            return rt.load(self.base)
        return base_network(self.net, self.seed, self.scale, self.images, self.scratch)

    def training_images(self, count: int | None) -> Subset:
        """The first so many of the seed's order."""
        train = self.images.train
        return Subset(train, sample_indices(train, count or len(train), self.seed))


def tuned(model: rt.Model, job: Job) -> rt.Model:
    """The model after the paper's fine-tuning: SGD 0.01, weight decay 0.005, a tenth twice."""
    settings = TrainingSettings(
        epochs=job.scale.tune_epochs,
        batch_size=job.scale.batch,
        optimizer="sgd",
        lr=0.01,
        weight_decay=0.005,
        schedule="steps",
        warmup=0.0,
        augment=job.scale.augment,
        seed=job.seed,
    )
    bench = Workbench(model, job.training_images(job.scale.images))
    return finetune(bench, settings, watch=Watch(report=print)).model


def chosen(job: Job, criterion: str, bench: Workbench, analysis: rt.Analysis) -> Plan | None:
    """What a criterion takes out; None where it can't be applied."""
    net = NETS[job.net]
    if criterion == "none":
        return Plan("none", bench.digest, ())
    if criterion == "redtest-paper":
        indices = (net.paper or {}).get(job.images.classes)
        if indices is None:
            return None
        return Plan(criterion, bench.digest, tuple(Step.of(analysis.layers[k]) for k in indices))
    budget = rt.Budget(targets=(("macs", net.macs),))
    return rt.plan(bench, settings=rt.PruneSettings(criterion), budget=budget, analysis=analysis)


def rows(job: Job, methods: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Results of one network and seed, the unpruned one fine-tuned alike first."""
    calibration = job.training_images(job.scale.calibration)
    bench = Workbench(job.model(), calibration, seed=job.seed, evaluation=job.images.test)
    similarity = rt.AnalysisSettings(threshold=NETS[job.net].threshold, seed=job.seed)
    analysis = rt.analyze(bench, settings=similarity)
    for method in methods:
        criterion, _, repair = method.partition(":")
        plan = chosen(job, criterion, bench, analysis)
        if plan is None:
            continue
        settings = rt.PruneSettings(criterion="redtest", repair=repair or "refit")  # type: ignore[arg-type]
        pruned, repaired = rewrite(bench, plan, settings)
        untrained = bench.evaluator().evaluate(pruned.model).accuracy
        final = bench.successor(tuned(pruned.model, job))
        result = compare(bench, final, plan, analysis, repaired)
        a, b = result.before, result.after
        yield {
            "net": job.net,
            "seed": job.seed,
            "method": method,
            "criterion": criterion,
            "repair": "-" if criterion == "none" else repaired.method,
            "removed": [step.region for step in plan.steps],
            "parameters": b.cost.parameters / a.cost.parameters - 1,
            "macs": (b.cost.macs or 0) / (a.cost.macs or 1) - 1,
            "latency": b.latency.p50 / a.latency.p50 - 1,
            "msrs": a.msrs,
            "msrs_after": b.msrs,
            "base": a.accuracy,
            "repaired": untrained,
            "tuned": b.accuracy,
        }


def main() -> None:
    """Run what is missing, then write what is asked for."""
    options = _parser().parse_args()
    scale, label = SCALES[options.scale], options.scale
    if options.epochs:
        base, tune = options.epochs
        scale, label = replace(scale, base_epochs=base, tune_epochs=tune), f"{label} ({base}, {tune} epochs)"
    if not options.report:
        _run(options, scale, label)
    results = _read(options.output)
    if options.table:
        options.table.write_text(table(results, label), encoding="utf-8")
    if options.figure:
        draw(results, label, options.figure)


def _run(options: argparse.Namespace, scale: Scale, label: str) -> None:
    given = dict(pair.partition("=")[::2] for pair in options.base)
    name = "digits" if options.scale == "digits" else options.dataset or (options.data and options.data.name)
    if name is None:
        raise SystemExit(f"--scale {options.scale} needs --data FOLDER")
    for seed in options.seeds:
        for net in options.nets or scale.nets:
            key = {"scale": label, "data": name, "net": net, "seed": seed}
            done = {r["method"] for r in _read(options.output) if all(r[k] == v for k, v in key.items())}
            missing = [method for method in options.methods if method not in done]
            if not missing:
                continue
            images = open_images(None if name == "digits" else options.data, NETS[net], scale)
            base = Path(given[net]) if net in given else None
            scratch = options.scratch or options.output.with_suffix("")
            job = Job(net, seed, scale, images, base, scratch / name / label)
            for row in rows(job, missing):
                with options.output.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"scale": label, "data": name, **row}) + "\n")
                print(net, seed, row["method"], flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with the images; `--scale digits` needs none")
    parser.add_argument("--dataset", help="what the results call the data [default: the folder's name]")
    parser.add_argument("--scale", choices=SCALES, default="digits")
    parser.add_argument("--nets", nargs="+", choices=NETS, help="[default: those of the scale]")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), help="CRITERION or CRITERION:REPAIR")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--base", nargs="+", default=[], metavar="NET=FILE", help="trained networks")
    parser.add_argument(
        "--epochs", type=int, nargs=2, metavar=("BASE", "TUNE"), help="instead of the scale's"
    )
    parser.add_argument(
        "--scratch", type=Path, help="for unpruned networks trained here [default: beside --output]"
    )
    parser.add_argument("--output", type=Path, default=Path("table1.jsonl"))
    parser.add_argument("--report", action="store_true", help="run nothing")
    parser.add_argument("--table", type=Path, help="write the results of the scale as Markdown")
    parser.add_argument("--figure", type=Path, help="draw MSRS before and after (.png, .svg, .pdf)")
    return parser


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    main()
