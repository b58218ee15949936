"""Figures and numbers of docs/choosing.md: what samples, alpha and threshold do to MSRS.

    python tools/choosing.py --figure docs/images/choosing.svg      # needs PyTorch, takes a minute

Trains a residual network of three blocks with four channels on the digits of models/digits.npz, which is too
small for the task, and runs `analyze --sweep --underfitting` on
models/resnet_digits.onnx.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from redtest_onnx.graph.files import save
from redtest_onnx.search.images import open_training_data
from redtest_onnx.search.networks.export import export
from redtest_onnx.search.networks.training import accuracy, train
from redtest_onnx.search.recipe import Recipe
from redtest_onnx.search.size import SizeSpace

ROOT = Path(__file__).parents[1]
DIGITS = ROOT / "models" / "digits.npz"
SMALL = "1x4-1x4-1x4"


def small_network(path: Path) -> float:
    """Train and write a network that underfits; returns its accuracy on held-out digits."""
    data = open_training_data(DIGITS)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network = SizeSpace(depths=(1,), widths=(4,)).build(SMALL, data.task)
    train(network, data.train, Recipe(epochs=40), 0)
    save(export(network, data.task), path, force=True)
    return accuracy(network, data.validation)


def main() -> None:
    """Train, analyse, and print what the page says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--figure", type=Path, default=Path("choosing.svg"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        small = Path(name) / "small.onnx"
        print(f"{SMALL}: accuracy {small_network(small):.1%}")
        model = ROOT / "models" / "resnet_digits.onnx"
        command = [sys.executable, "-m", "redtest_onnx", "analyze", str(model), "--data", str(DIGITS)]
        command += [
            "--samples",
            "64",
            "--underfitting",
            str(small),
            "--force",
            "--sweep",
            str(options.figure),
        ]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
