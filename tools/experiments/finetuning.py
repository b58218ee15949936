"""What fine-tuning brings after pruning: the figures of docs/fine-tuning.md.

    python tools/experiments/finetuning.py                             # the embedded models, minutes
    python tools/experiments/finetuning.py --cifar FOLDER              # ResNet56 on CIFAR-10, about an hour
    python tools/experiments/finetuning.py --nets --table table.md     # the table of what has been run

FOLDER holds models/resnet56_cifar10_bn.onnx and data/ with CIFAR-10 as JPEG. Everything is done by the
commands that users have; their JSON results stay in --scratch, and what is there is not run again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from time import process_time
from typing import Any

from redtest_onnx.cli.main import run

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "models" / "digits.npz"
RECIPE = ("--epochs", "6", "--batch-size", "128", "--lr", "0.04", "--augment", "crop", "--augment", "flip")


def command(scratch: Path, name: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Run a command whose result is written to NAME.json and NAME.onnx, unless it has been run."""
    report = scratch / f"{name}.json"
    if not report.exists():
        begin = process_time()
        output = ("-o", str(scratch / f"{name}.onnx"), "--json", str(report), "--force")
        if code := run([*map(str, arguments), *output]):
            raise SystemExit(code)
        seconds = process_time() - begin
        report.write_text(json.dumps(json.loads(report.read_text()) | {"cpu_seconds": seconds}))
    found: dict[str, Any] = json.loads(report.read_text())
    return found


def embedded(name: str, scratch: Path, threads: Sequence[str]) -> None:
    """Prune until five points are lost on held-out samples, then train with labels and the original."""
    model = ROOT / "models" / f"{name}_digits.onnx"
    command(scratch, f"{name}-pruned", ["prune", model, "--data", DIGITS, "--max-drop", "0.05", *threads])
    tune = ["finetune", scratch / f"{name}-pruned.onnx", "--data", DIGITS, "--teacher", model]
    command(scratch, f"{name}-tuned", [*tune, "--epochs", "15", *threads])


def resnet56(folder: Path, scratch: Path, threads: Sequence[str]) -> None:
    """Take out 45 % of the parameters, also with half of the MACs; train these and the original alike."""
    model = folder / "models" / "resnet56_cifar10_bn.onnx"
    train, test = (folder / "data" / f"cifar10_jpeg_{split}.zip" for split in ("train", "test"))
    data = ["--data", train, "--eval-data", test, "--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225"]
    tune = [*data, *RECIPE, "--precision", "bfloat16", *threads]
    command(scratch, "resnet56-unpruned", ["finetune", model, *tune])
    for name, targets in (("resnet56", ("params=0.55",)), ("resnet56-half", ("params=0.55", "macs=0.474"))):
        cut = ["--criterion", "recoverable", "--repair", "refit"]
        cut += [item for target in targets for item in ("--target", target)]
        command(scratch, f"{name}-pruned", ["prune", model, *data, *cut, *threads])
        command(scratch, f"{name}-tuned", ["finetune", scratch / f"{name}-pruned.onnx", *tune])


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
    parser.add_argument("--threads", default="0", help="[default: all cores]")
    parser.add_argument("--scratch", type=Path, default=Path("finetuning"), help="models and results")
    parser.add_argument("--table", type=Path, help="write all results of --scratch as Markdown")
    options = parser.parse_args()
    options.scratch.mkdir(exist_ok=True)
    threads = ("--threads", options.threads)
    for name in options.nets:
        embedded(name, options.scratch, threads)
    if options.cifar:
        resnet56(options.cifar, options.scratch, threads)
    if options.table:
        options.table.write_text(table(options.scratch), encoding="utf-8")


if __name__ == "__main__":
    main()
