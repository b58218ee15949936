"""Fine-tuning with a teacher and no labels behind a repair: validation loss by optimiser and epoch.

    python tools/experiments/teacher_alone.py --cifar FOLDER
    python tools/experiments/teacher_alone.py --cifar FOLDER --optimizers whitened sgd --epochs 5

FOLDER is that of depth_pruning.py. ResNet56 without 11 blocks, refitted shortly, is trained as
`finetune --teacher` trains it on 2,048 training images without their labels, a tenth of them to validate.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from time import process_time

import numpy as np

import redtest_onnx as rt
from redtest_onnx.data.dataset import Subset
from redtest_onnx.pruning.apply import apply_plan
from redtest_onnx.pruning.plan import Plan, Step
from redtest_onnx.pruning.repair.distilled import REFIT_ROUNDS, REFIT_SAMPLES
from redtest_onnx.pruning.repair.repair import FitSettings, fit_to_original
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.training.finetune import finetune
from redtest_onnx.training.settings import OPTIMIZERS, TrainingSettings

CIFAR = rt.ImageOptions(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
SEEN = 2048
REMOVED = (0, 2, 4, 5, 8, 10, 11, 13, 14, 19, 21)


class Unlabelled(Subset):
    """Samples without their labels."""

    labelled = False

    def labels(self, indices: np.ndarray) -> None:
        """None."""
        return


def main() -> None:
    """A row of the table per optimiser."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cifar", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--optimizers", nargs="+", choices=OPTIMIZERS, default=["auto", "sgd"])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    model = rt.load(arguments.cifar / "models" / "resnet56_cifar10_bn.onnx")
    train = rt.open_data(arguments.cifar / "data" / "cifar10_jpeg_train.zip", model, images=CIFAR)
    chosen = np.random.default_rng(arguments.seed).permutation(len(train))[:SEEN]
    seen, options = Unlabelled(train, chosen), rt.RunOptions("cpu", 1)
    bench = Workbench(model, seen, options, seed=arguments.seed).opened
    blocks = [layer for layer in bench.layers() if layer.operators > 1]
    plan = Plan("given", model.sha256, tuple(Step.of(blocks[k]) for k in REMOVED))
    fits = FitSettings("refit", bench.splits.fit[:REFIT_SAMPLES], rounds=REFIT_ROUNDS)
    repaired, _ = fit_to_original(bench, apply_plan(bench, plan), plan, fits)
    epochs = [f"epoch {number + 1}" for number in range(arguments.epochs)]
    print(f"| {' | '.join(['optimiser', 'behind the repair', *epochs, 'CPU seconds'])} |")
    print(f"|---|---:|{'---:|' * arguments.epochs}---:|")
    for optimizer in arguments.optimizers:
        begin = process_time()
        settings = TrainingSettings(arguments.epochs, optimizer=optimizer, seed=arguments.seed)
        found = finetune(Workbench(repaired, seen, options, seed=arguments.seed), settings, teacher=model)
        losses = [f"{record['validation_loss']:.3f}" for record in found.history]
        cells = [
            found.settings.optimizer,
            f"{found.start.loss:.3f}",
            *losses,
            f"{process_time() - begin:.0f}",
        ]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
