"""What fine-tuning brings after pruning: the figures of docs/fine-tuning.md.

    python tools/experiments/finetuning.py --threads 1                 # the embedded models, minutes
    python tools/experiments/finetuning.py --nets --cifar FOLDER       # ResNet56 on CIFAR-10, over an hour
    python tools/experiments/finetuning.py --nets --table table.md     # the table of what has been run

FOLDER holds models/resnet56_cifar10_bn.onnx and data/ with CIFAR-10 as JPEG; --processes train on it
together, with --threads each. Everything is done by the commands that users have; their JSON results stay
in --scratch, and what is there is not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "models" / "digits.npz"
RECIPE = ("--epochs", "12", "--batch-size", "128", "--lr", "0.1", "--augment", "crop", "--augment", "flip")


@dataclass(frozen=True)
class Run:
    """Where commands run.

    Attributes:
        scratch: keeps models and results.
        threads: of each process.
        processes: that train together.
    """

    scratch: Path
    threads: str
    processes: int = 1

    def command(self, name: str, arguments: Sequence[str | Path]) -> dict[str, Any]:
        """Run a command whose result is written to NAME.json and NAME.onnx, unless it has been run."""
        report = self.scratch / f"{name}.json"
        if not report.exists():
            output = ("-o", self.scratch / f"{name}.onnx", "--json", report, "--force")
            launch = [sys.executable, "-m", "redtest_onnx", *arguments, *output, "--threads", self.threads]
            if self.processes > 1 and arguments[0] == "finetune":
                together = ["torch.distributed.run", "--nproc-per-node", str(self.processes), "--no-python"]
                launch = [sys.executable, "-m", *together, "--", *launch]
            begin, wall = _cpu_seconds(), perf_counter()
            subprocess.run(list(map(str, launch)), check=True)
            spent = {"cpu_seconds": _cpu_seconds() - begin, "wall_seconds": perf_counter() - wall}
            report.write_text(json.dumps(json.loads(report.read_text()) | spent))
        found: dict[str, Any] = json.loads(report.read_text())
        return found


def _cpu_seconds() -> float:
    """Of all processes that were waited for."""
    used = os.times()
    return used.children_user + used.children_system


def embedded(name: str, run: Run) -> None:
    """Prune until five points are lost on held-out samples, then train with labels and the original."""
    model = ROOT / "models" / f"{name}_digits.onnx"
    run.command(f"{name}-pruned", ["prune", model, "--data", DIGITS, "--max-drop", "0.05"])
    tune = ["finetune", run.scratch / f"{name}-pruned.onnx", "--data", DIGITS, "--teacher", model]
    run.command(f"{name}-tuned", [*tune, "--epochs", "15"])


def resnet56(folder: Path, run: Run) -> None:
    """Take out 45 % of the parameters, where few MACs go with them; train this and the original alike."""
    model = folder / "models" / "resnet56_cifar10_bn.onnx"
    train, test = (folder / "data" / f"cifar10_jpeg_{split}.zip" for split in ("train", "test"))
    data = ["--data", train, "--eval-data", test, "--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225"]
    cut = ["--criterion", "recoverable", "--target", "params=0.55", "--repair", "refit"]
    cut += ["--samples", "256", "--batches", "1", "--protect", "layer1.*", "--protect", "layer2.[135678]"]
    run.command("resnet56-pruned", ["prune", model, *data, *cut])
    tune = [*data, *RECIPE, "--precision", "bfloat16"]
    run.command("resnet56-tuned", ["finetune", run.scratch / "resnet56-pruned.onnx", *tune])
    run.command("resnet56-unpruned", ["finetune", model, *tune])


def table(scratch: Path) -> str:
    """What has been run, as Markdown."""
    lines = [
        "| network | parameters | MACs | original | pruned, repaired | fine-tuned | CPU seconds |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for file in sorted(scratch.glob("*-pruned.json")):
        name = file.stem.removesuffix("-pruned")
        pruned = json.loads(file.read_text())
        tuned = json.loads((scratch / f"{name}-tuned.json").read_text())
        before, after = pruned["before"], pruned["after"]
        shares = [f"{after[what] / before[what] - 1:+.1%}" for what in ("parameters", "macs")]
        accuracies = [before["accuracy"], after["accuracy"], tuned["test"]["after"]]
        cells = [name, *shares, *(f"{value:.2%}" for value in accuracies), f"{tuned['cpu_seconds']:.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
        if (unpruned := scratch / f"{name}-unpruned.json").exists():
            found = json.loads(unpruned.read_text())
            cells = [f"{name}, unpruned", "", "", f"{found['test']['before']:.2%}", ""]
            cells += [f"{found['test']['after']:.2%}", f"{found['cpu_seconds']:.0f}"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--nets", nargs="*", default=["resnet", "vgg", "vit"], help="embedded models")
    parser.add_argument("--cifar", type=Path, help="folder with models/ and data/ of the CIFAR-10 run")
    parser.add_argument("--threads", default="1")
    parser.add_argument("--processes", type=int, default=2, help="that train ResNet56 together")
    parser.add_argument("--scratch", type=Path, default=Path("finetuning"), help="models and results")
    parser.add_argument("--table", type=Path, help="write all results of --scratch as Markdown")
    options = parser.parse_args()
    options.scratch.mkdir(exist_ok=True)
    for name in options.nets:
        embedded(name, Run(options.scratch, options.threads))
    if options.cifar:
        resnet56(options.cifar, Run(options.scratch, options.threads, options.processes))
    if options.table:
        options.table.write_text(table(options.scratch), encoding="utf-8")


if __name__ == "__main__":
    main()
