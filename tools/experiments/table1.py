"""Depth pruning with fine-tuning on CIFAR-10: the protocol of RedTest's Table 1 (arXiv 2411.10507).

    python tools/experiments/table1.py --data FOLDER --scale minutes     # a trial, two CPU cores
    python tools/experiments/table1.py --data FOLDER --scale full        # the paper's recipe, a GPU
    python tools/experiments/table1.py --table docs/table1.md            # the table of what has been run

FOLDER holds cifar10_jpeg_train.zip and cifar10_jpeg_test.zip (folders are classes). ResNet56 and VGG19 are
written as ONNX files with random weights and trained through the bridge, once per seed. Each criterion then
chooses layers, they are removed, the rest is repaired with unlabelled images and fine-tuned. A tenth of the
training images chooses the epoch; the test images are looked at once, at the end. `redtest-paper` is the set
of layers that the paper publishes; `modularity` is the method of Lu et al. (ECCV 2022) and `probe` that of
Chen and Zhao, on which DBP builds. Rows are added to --output (JSON lines); what is there is not run again.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import onnx
import torch
from blocks import ResidualBlock
from torch import nn

import redtest_onnx as rt
from redtest_onnx.data.dataset import Subset
from redtest_onnx.data.splits import sample_indices
from redtest_onnx.pruning.plan import Plan, Step
from redtest_onnx.pruning.prune import compare, rewrite
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.training.finetune import finetune
from redtest_onnx.training.loop import Watch
from redtest_onnx.training.settings import TrainingSettings

NORMALISED = rt.ImageOptions(mean=(0.4914, 0.4822, 0.4465), std=(0.247, 0.2435, 0.2616))
CRITERIA = (
    *("redtest-paper", "redtest", "recoverable", "output-effect", "modularity", "probe"),
    *("random", "tail"),
)
CALIBRATION = 2048


def resnet56() -> nn.Module:
    """Three stages of nine blocks (He et al., arXiv 1512.03385, section 4.2)."""
    widths = [16] * 9 + [32] * 9 + [64] * 9
    stem = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    blocks = [
        ResidualBlock(before, after, 1 if before == after else 2, projected=False)
        for before, after in zip([16, *widths], widths, strict=False)
    ]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def vgg19() -> nn.Module:
    """Sixteen convolutions and a head of 512, 512 and 10."""
    parts: list[nn.Module] = []
    inputs = 3
    for width, count in ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4)):
        for _ in range(count):
            parts += [nn.Conv2d(inputs, width, 3, 1, 1), nn.BatchNorm2d(width), nn.ReLU()]
            inputs = width
        parts.append(nn.MaxPool2d(2))
    hidden = [layer for _ in range(2) for layer in (nn.Linear(512, 512), nn.ReLU())]
    head = [nn.Flatten(), *hidden, nn.Linear(512, 10)]
    return nn.Sequential(*parts, *head)


@dataclass(frozen=True)
class Net:
    """A network of the table.

    Attributes:
        build: makes it with random weights.
        macs: share of multiply-accumulates that stays.
        paper: indices of the layers that RedTest removes, by the series of `inspect`; None where that set
            can't be told in layers of ours.
    """

    build: Callable[[], nn.Module]
    macs: float
    paper: tuple[int, ...] | None


def _paper_blocks() -> tuple[int, ...]:
    kept = ((0, 1, 2, 4, 6, 7), (0,), (0, 4, 5, 6, 7, 8))
    # Layer 0 is the stem; block b of stage s is layer 1 + 9 s + b.
    return tuple(1 + 9 * s + b for s in range(3) for b in range(9) if b not in kept[s])


NETS = {
    "resnet56": Net(resnet56, 0.474, _paper_blocks()),
    # The paper moves convolution 11 behind a pool, which is no removal of layers.
    "vgg19": Net(vgg19, 0.456, None),
}


@dataclass(frozen=True)
class Scale:
    """How much is computed: training images, epochs of both trainings, batch size."""

    images: int | None
    base_epochs: int
    tune_epochs: int
    batch: int


SCALES = {
    "minutes": Scale(2000, 2, 1, 64),
    "hours": Scale(20_000, 12, 5, 128),
    "full": Scale(None, 200, 150, 256),
}


def exported(module: nn.Module) -> rt.Model:
    """The module as an ONNX model with batch normalisation kept, every layer with tensors of its own."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            # The exporter merges equal tensors, and training would then move them together.
            for tensor in (part.weight, part.bias, part.running_mean, part.running_var):
                if tensor is not None:
                    tensor.data += 1e-5 * torch.rand_like(tensor)
    buffer = io.BytesIO()
    torch.onnx.export(
        module.eval(),
        (torch.zeros(2, 3, 32, 32),),
        buffer,  # type: ignore[arg-type]
        dynamo=False,
        opset_version=17,
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False,
        input_names=["input"],
        output_names=["logits"],
        dynamic_axes={"input": {0: "batch"}, "logits": {0: "batch"}},
    )
    return rt.Model(onnx.load_model_from_string(buffer.getvalue()))


def trained(name: str, seed: int, scale: Scale, data: rt.Dataset, folder: Path) -> rt.Model:
    """The base network of a seed, trained unless its file is there."""
    path = folder / f"{name}-{seed}-{scale.base_epochs}.onnx"
    if not path.exists():
        torch.manual_seed(seed)
        settings = TrainingSettings(
            epochs=scale.base_epochs,
            batch_size=min(scale.batch, 128),
            optimizer="sgd",
            lr=0.1 if name == "resnet56" else 0.05,
            weight_decay=5e-4,
            augment=("crop", "flip"),
            seed=seed,
        )
        model = exported(NETS[name].build())
        rt.save(finetune(Workbench(model, data), settings, watch=Watch(report=print)).model, path)
    return rt.load(path)


def tuned(model: rt.Model, scale: Scale, data: rt.Dataset, seed: int) -> rt.Model:
    """The model after the paper's fine-tuning: SGD 0.01, weight decay 0.005, a tenth twice."""
    settings = TrainingSettings(
        epochs=scale.tune_epochs,
        batch_size=scale.batch,
        optimizer="sgd",
        lr=0.01,
        weight_decay=0.005,
        schedule="steps",
        warmup=0.0,
        augment=("crop", "flip"),
        seed=seed,
    )
    return finetune(Workbench(model, data), settings, watch=Watch(report=print)).model


def chosen(
    name: str, criterion: str, model: rt.Model, analysis: rt.Analysis, data: rt.Dataset
) -> Plan | None:
    """What a criterion takes out; None where it can't be applied."""
    net = NETS[name]
    if criterion == "redtest-paper":
        if net.paper is None:
            return None
        steps = tuple(Step.of(analysis.layers[k]) for k in net.paper)
        return Plan(criterion, model.sha256, steps)
    budget = rt.Budget(targets=(("macs", net.macs),))
    return rt.plan(model, data, rt.PruneSettings(criterion), budget=budget, analysis=analysis)


def rows(
    name: str, seed: int, scale: Scale, folder: Path, criteria: Sequence[str], scratch: Path
) -> Iterator[dict[str, Any]]:
    """Results of one network and seed, the unpruned one fine-tuned alike first."""
    blank = exported(NETS[name].build())
    whole, test = (
        rt.open_data(folder / f"cifar10_jpeg_{part}.zip", blank, images=NORMALISED)
        for part in ("train", "test")
    )
    train = Subset(whole, sample_indices(whole, scale.images or len(whole), seed))
    model = trained(name, seed, scale, train, scratch)
    calibration = Subset(train, sample_indices(train, CALIBRATION, seed))
    analysis = rt.analyze(model, calibration)
    for criterion in ("none", *criteria):
        plan = Plan("none", model.sha256, ())
        if criterion != "none":
            found = chosen(name, criterion, model, analysis, calibration)
            if found is None:
                continue
            plan = found
        bench = Workbench(model, calibration, evaluation=test)
        pruned, repair = rewrite(bench, plan)
        untrained = compare(bench, pruned, plan, analysis, repair)
        final = bench.successor(tuned(pruned.model, scale, train, seed))
        result = compare(bench, final, plan, analysis, repair)
        a, b = result.before, result.after
        yield {
            "net": name,
            "seed": seed,
            "criterion": criterion,
            "removed": [step.region for step in plan.steps],
            "parameters": b.cost.parameters / a.cost.parameters - 1,
            "macs": (b.cost.macs or 0) / (a.cost.macs or 1) - 1,
            "latency": b.latency.p50 / a.latency.p50 - 1,
            "base": a.accuracy,
            "repaired": untrained.after.accuracy,
            "tuned": b.accuracy,
        }


def table(results: Sequence[dict[str, Any]]) -> str:
    """Mean and standard deviation over seeds, as Markdown."""
    columns = ("net", "criterion", "seeds", "parameters", "MACs", "p50 latency")
    lines = [
        f"| {' | '.join(columns)} | accuracy before | repaired | fine-tuned |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    keys = dict.fromkeys((r["scale"], r["net"], r["criterion"]) for r in results)
    for key in keys:
        own = [r for r in results if (r["scale"], r["net"], r["criterion"]) == key]
        cells = [key[1], key[2], str(len(own))]
        cells += [f"{mean(r[what] for r in own):+.1%}" for what in ("parameters", "macs", "latency")]
        cells += [_spread([r[what] for r in own]) for what in ("base", "repaired", "tuned")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _spread(values: Sequence[float]) -> str:
    return f"{mean(values):.2%}" + (f" ± {stdev(values):.2%}" if len(values) > 1 else "")


def main() -> None:
    """Run what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with the images; without it nothing is run")
    parser.add_argument("--scale", choices=SCALES, default="minutes")
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--criteria", nargs="+", choices=CRITERIA, default=list(CRITERIA))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument(
        "--epochs", type=int, nargs=2, metavar=("BASE", "TUNE"), help="instead of the scale's"
    )
    parser.add_argument("--scratch", type=Path, default=Path("table1"), help="for trained base networks")
    parser.add_argument("--output", type=Path, default=Path("table1.jsonl"))
    parser.add_argument("--table", type=Path, help="write all results of --output as Markdown")
    options = parser.parse_args()
    scale = SCALES[options.scale]
    if options.epochs:
        scale = replace(scale, base_epochs=options.epochs[0], tune_epochs=options.epochs[1])
    done = _read(options.output)
    if options.data:
        options.scratch.mkdir(exist_ok=True)
        for net in options.nets:
            for seed in options.seeds:
                known = {r["criterion"] for r in done if (r["net"], r["seed"]) == (net, seed)}
                missing = [c for c in options.criteria if c not in known]
                for row in rows(net, seed, scale, options.data, missing, options.scratch):
                    if row["criterion"] not in known:
                        with options.output.open("a", encoding="utf-8") as file:
                            file.write(json.dumps({"scale": options.scale, **row}) + "\n")
    if options.table:
        options.table.write_text(table(_read(options.output)), encoding="utf-8")


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    main()
