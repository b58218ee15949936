"""SAP, lottery ticket and one-shot pruning on the digits: PQ Index, accuracy and weights per iteration.

    python tools/experiments/sap.py                       # all networks, methods, scopes: some ten minutes
    python tools/experiments/sap.py --nets mlp --iterations 30
    python tools/experiments/sap.py --report              # figures and table from what is there
    python tools/experiments/sap.py --report --output docs/sap-results.jsonl --figures docs/images

Every run trains an untrained network under a mask, prunes, rewinds to the initial weights, and so on, with
the same number of trainings for each method. Each run's line is added to --output (JSON lines) as soon as it
is there; figures and the table are made from that file.
"""

from __future__ import annotations

import argparse
import io
import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from blocks import ResidualBlock
from torch import nn

import redtest_onnx as rt
from redtest_onnx.bridge import to_torch
from redtest_onnx.data.splits import Splits
from redtest_onnx.report.figures import save_figure
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.training.settings import TrainingSettings
from redtest_onnx.weight_sparsity.apply import chosen_weights
from redtest_onnx.weight_sparsity.iterative.loop import iterate
from redtest_onnx.weight_sparsity.iterative.records import LoopSettings
from redtest_onnx.weight_sparsity.masks import SCOPES, Amount, Bound
from redtest_onnx.weight_sparsity.measure import PAIRS

ROOT = Path(__file__).parents[2]
DATA = ROOT / "models" / "digits.npz"
SHARE = 0.2  # of the weights that are left, per iteration, for lottery ticket and one-shot
MAX_DROP = 0.01
BUDGETS = (4, 8, 16)  # prunings, each with a training
TURN = 0.02  # of the PQ Index; smaller movements are noise
TRAINING = {
    "mlp": TrainingSettings(epochs=15, lr=0.2, batch_size=100, optimizer="sgd"),
    "cnn": TrainingSettings(epochs=12, lr=0.1, batch_size=100, optimizer="sgd"),
    "resnet": TrainingSettings(epochs=8, lr=0.1, batch_size=100, optimizer="sgd"),
}
NAMES = {"mlp": "MLP", "cnn": "CNN", "resnet": "ResNet"}


def build(name: str) -> nn.Module:
    """An untrained network for digits of 8x8."""
    if name == "mlp":
        return nn.Sequential(
            *(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU()),
            nn.Linear(64, 10),
        )
    convolution = [nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    if name == "resnet":
        blocks = [ResidualBlock(8, 8, 1), ResidualBlock(8, 16, 2), ResidualBlock(16, 32, 2)]
        return nn.Sequential(*convolution, *blocks, *head, nn.Linear(32, 10))
    layers: list[nn.Module] = [*convolution]
    for inputs, outputs in pairwise((8, 16, 32)):
        layers += [nn.MaxPool2d(2), nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)]
        layers += [nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, *head, nn.Linear(32, 10))


def export(name: str, seed: int) -> rt.Model:
    """An untrained network as an ONNX model, its batch normalisation as nodes."""
    torch.manual_seed(seed)
    buffer = io.BytesIO()
    torch.onnx.export(
        build(name).eval(),
        (torch.zeros(2, 1, 8, 8),),
        buffer,  # type: ignore[arg-type]  # this exporter takes a file, its stub says path
        dynamo=False,
        opset_version=17,
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False,
        input_names=["input"],
        output_names=["logits"],
        dynamic_axes={"input": {0: "batch"}, "logits": {0: "batch"}},
    )
    return rt.Model(separated(onnx.load_model_from_string(buffer.getvalue())))


def separated(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Let no tensors share their values; the exporter merges equal ones, and untrained many are."""
    stored = {tensor.name: tensor for tensor in proto.graph.initializer}
    for node in [node for node in proto.graph.node if node.op_type == "Identity" and node.input[0] in stored]:
        tensor = proto.graph.initializer.add()
        tensor.CopyFrom(stored[node.input[0]])
        tensor.name = node.output[0]
        proto.graph.node.remove(node)
    return proto


def runs(iterations: int, training: TrainingSettings) -> Iterator[LoopSettings]:
    """Every method in every scope, SAP with both pairs of exponents."""
    for scope in reversed(SCOPES):
        for p, q in PAIRS:
            yield LoopSettings("sap", scope, Bound(p, q), iterations, training=training)
        yield LoopSettings("lottery", scope, Amount(SHARE), iterations, training=training)
        yield LoopSettings("one-shot", scope, Amount(SHARE), iterations, training=training)


def label(settings: LoopSettings) -> str:
    """What tables and figures call a method."""
    rule = settings.rule
    return f"SAP p={rule.p:g} q={rule.q:g}" if isinstance(rule, Bound) else settings.method


def run(name: str, settings: LoopSettings, seed: int) -> dict[str, Any]:
    """One run: figures of all its iterations, with the accuracy on the test split."""
    model = export(name, seed)
    data, test = (rt.open_data(DATA, model, split=split) for split in ("train", "test"))
    validation = rt.open_data(DATA, model, split="calibration")
    everything = Joined(data, validation)
    judging = np.arange(len(data), len(everything))
    bench = Workbench(model, everything, splits=Splits(np.arange(len(data)), judging, judging))
    module = to_torch(model)
    found = []
    for step in iterate(bench, chosen_weights(model), settings):
        module.load_state_dict(step.state)
        found.append(rounded({**asdict(step.record), "test": accuracy(module, test)}))
    head = {"net": name, "method": label(settings), "scope": settings.scope, "seed": seed}
    return {**head, "iterations": found}


def rounded(value: Any) -> Any:
    """Plain values for a line of results; what is undefined is null."""
    if isinstance(value, float):
        return None if math.isnan(value) else round(value, 5)
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    return [rounded(inner) for inner in value] if isinstance(value, list | tuple) else value


def accuracy(module: nn.Module, data: rt.Dataset) -> float:
    """Share of right answers."""
    everything = np.arange(len(data))
    with torch.no_grad():
        scores = module.eval()(torch.from_numpy(data.inputs(everything)["input"]))
    return float(np.mean(scores.argmax(1).numpy() == data.labels(everything)))


class Joined:
    """The samples of two datasets, one after the other."""

    synthetic = False
    labelled = True

    def __init__(self, *parts: rt.Dataset) -> None:
        indices = [np.arange(len(part)) for part in parts]
        feeds = [part.inputs(chosen) for part, chosen in zip(parts, indices, strict=True)]
        labels = [part.labels(chosen) for part, chosen in zip(parts, indices, strict=True)]
        self.source = " and ".join(part.source for part in parts)
        self._feeds = {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}
        self._labels = np.concatenate([part for part in labels if part is not None])

    def __len__(self) -> int:
        return len(self._labels)

    def inputs(self, indices: Any) -> dict[str, Any]:
        """Arrays for the model's inputs."""
        return {name: values[np.asarray(indices)] for name, values in self._feeds.items()}

    def labels(self, indices: Any) -> Any:
        """Their labels."""
        return self._labels[np.asarray(indices)]


# -------------------------------------------------------------------------------------------------- report


def sparsest(run: dict[str, Any], prunings: int) -> dict[str, Any]:
    """The iteration with the fewest weights within a point of the dense accuracy on the validation samples.

    Only the first `prunings` of a run are looked at, so that methods are held at equal training cost.
    """
    steps = run["iterations"][: prunings + 1]
    good = [step for step in steps if step["accuracy"] >= steps[0]["accuracy"] - MAX_DROP - 1e-9]
    chosen: dict[str, Any] = min(good, key=lambda step: step["kept"])
    return chosen


def table(found: list[dict[str, Any]]) -> str:
    """What is left of the weights within a point of the dense accuracy, and how the PQ Index goes."""
    heads = [f"{count} prunings" for count in BUDGETS]
    head = ["network", "scope", "method", *heads, "test", "dense test", "PQI .5, 1", "PQI 1, 2"]
    lines = [f"| {' | '.join(head)} |", f"|---|---|---|{'---:|' * (len(BUDGETS) + 2)}---|---|"]
    for one in sorted(found, key=lambda one: (list(NAMES).index(one["net"]), one["scope"], one["method"])):
        best = [sparsest(one, count) for count in BUDGETS]
        shares = [f"{step['kept'] / step['weights']:.1%}" for step in best]
        tests = [f"{step['test']:.2%}" for step in (best[-1], one["iterations"][0])]
        ways = [way(curve(one, pair)) for pair in range(len(PAIRS))]
        lines.append(
            f"| {' | '.join([NAMES[one['net']], one['scope'], one['method'], *shares, *tests, *ways])} |"
        )
    return "\n".join(lines)


def way(values: list[float]) -> str:
    """How a curve goes: one word for each stretch without a turn of more than TURN."""
    turns: list[str] = []
    low = high = values[0]
    for value in (value for value in values if not math.isnan(value)):
        low, high = min(low, value), max(high, value)
        if value > low + TURN and turns[-1:] != ["rises"]:
            turns.append("rises")
            low, high = value, value
        elif value < high - TURN and turns[-1:] != ["falls"]:
            turns.append("falls")
            low, high = value, value
    return ", ".join(turns) or "stays"


def curve(run: dict[str, Any], pair: int) -> list[float]:
    """PQ Index per iteration, in the run's own scope."""
    values = [step["pq_index"][pair][run["scope"]] for step in run["iterations"]]
    return [math.nan if value is None else value for value in values]


def draw(found: list[dict[str, Any]], folder: Path) -> None:
    """A figure a network: accuracy, PQ Index and weights left per scope."""
    from matplotlib.figure import Figure

    methods = list(dict.fromkeys(one["method"] for one in found))
    for name in dict.fromkeys(one["net"] for one in found):
        runs_of_net = [one for one in found if one["net"] == name]
        scopes = [scope for scope in SCOPES if any(one["scope"] == scope for one in runs_of_net)]
        figure = Figure(figsize=(1 + 3.5 * len(scopes), 8), layout="constrained")
        axes = figure.subplots(3, len(scopes), squeeze=False)
        for one in runs_of_net:
            column = axes[:, scopes.index(one["scope"])]
            left = [step["kept"] / step["weights"] for step in one["iterations"]]
            style = {"color": f"C{methods.index(one['method'])}", "label": one["method"], "marker": "."}
            column[0].plot(left, [step["test"] for step in one["iterations"]], **style)
            column[1].plot(left, curve(one, 0), **style)
            column[2].plot(left, curve(one, 1), **style)
        for k, scope in enumerate(scopes):
            axes[0, k].set_title(f"{NAMES[name]}, scope {scope}")
            axes[2, k].set_xlabel("share of weights left")
            for row, text in enumerate(("test accuracy", "PQI p=0.5 q=1", "PQI p=1 q=2")):
                axes[row, k].set_xscale("log")
                axes[row, k].invert_xaxis()
                axes[row, k].set_ylabel(text)
        axes[0, -1].legend(fontsize=8)
        save_figure(figure, folder / f"sap-{name}.svg")


def main() -> None:
    """Run what is asked for, then report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--nets", nargs="+", choices=list(NAMES), default=list(NAMES))
    parser.add_argument("--scopes", nargs="+", choices=SCOPES, default=list(SCOPES))
    parser.add_argument("--methods", nargs="+", choices=["sap", "lottery", "one-shot"])
    parser.add_argument("--iterations", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("sap-results.jsonl"))
    parser.add_argument("--figures", type=Path, help="folder of the figures [default: beside --output]")
    parser.add_argument("--report", action="store_true", help="run nothing")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if not arguments.report:
        for name in arguments.nets:
            for settings in runs(arguments.iterations, TRAINING[name]):
                wanted = arguments.methods is None or settings.method in arguments.methods
                if not wanted or settings.scope not in arguments.scopes:
                    continue
                found = run(name, settings, arguments.seed)
                with arguments.output.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(found) + "\n")
                print(name, settings.scope, label(settings), flush=True)
    results = [json.loads(line) for line in arguments.output.read_text(encoding="utf-8").splitlines()]
    draw(results, arguments.figures or arguments.output.parent)
    print(table(results))


if __name__ == "__main__":
    main()
