"""Fine-tuning with a teacher and no labels behind a repair: validation loss by optimiser and epoch.

    python tools/experiments/teacher_alone.py                      # the embedded vision transformer
    python tools/experiments/teacher_alone.py --cifar FOLDER       # ResNet56
    python tools/experiments/teacher_alone.py --optimizers whitened sgd --epochs 5

FOLDER is that of depth_pruning.py. The transformer without its first 10 removable layers, and ResNet56
without 11 blocks, shortly refitted, are trained as `finetune --teacher` trains them without labels, ResNet56
on 2,048 images; a tenth of the samples validates.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import process_time

import numpy as np

import redtest_onnx as rt
from redtest_onnx.data.dataset import Subset
from redtest_onnx.layers.layer import Layer
from redtest_onnx.pruning.apply import apply_plan
from redtest_onnx.pruning.plan import Plan, Step
from redtest_onnx.pruning.repair.distilled import REFIT_ROUNDS, REFIT_SAMPLES
from redtest_onnx.pruning.repair.fit import FitSettings, fit_to_original
from redtest_onnx.pruning.repair.refit import Effort
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.training.finetune import finetune
from redtest_onnx.training.settings import OPTIMIZERS, TrainingSettings

CIFAR = rt.ImageOptions(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
MODELS = Path(__file__).parents[2] / "models"
SEEN = 2048
REMOVED = (0, 2, 4, 5, 8, 10, 11, 13, 14, 19, 21)


class Unlabelled(Subset):
    """Samples without their labels."""

    labelled = False

    def labels(self, indices: np.ndarray) -> None:
        """None."""
        return


@dataclass(frozen=True)
class Case:
    """A network, its samples to repair and to train on, and the layers that are removed."""

    model: rt.Model
    calibration: rt.Dataset
    samples: Unlabelled
    removed: Callable[[Workbench], list[Layer]]


def embedded() -> Case:
    """The vision transformer of this repository."""
    model = rt.load(MODELS / "vit_digits.onnx")
    train = rt.open_data(MODELS / "digits.npz", model, split="train")

    def first(bench: Workbench) -> list[Layer]:
        return [layer for layer in bench.layers() if layer.action == "bypass"][:10]

    samples = Unlabelled(train, np.arange(len(train)))
    return Case(model, rt.open_data(MODELS / "digits.npz", model), samples, first)


def resnet56(folder: Path, seed: int) -> Case:
    """ResNet56 on CIFAR-10 JPEGs."""
    model = rt.load(folder / "models" / "resnet56_cifar10_bn.onnx")
    train = rt.open_data(folder / "data" / "cifar10_jpeg_train.zip", model, images=CIFAR)
    seen = Unlabelled(train, np.random.default_rng(seed).permutation(len(train))[:SEEN])

    def blocks(bench: Workbench) -> list[Layer]:
        every = [layer for layer in bench.layers() if layer.operators > 1]
        return [every[k] for k in REMOVED]

    return Case(model, seen, seen, blocks)


def main() -> None:
    """A row of the table per optimiser."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cifar", type=Path, metavar="FOLDER")
    parser.add_argument("--optimizers", nargs="+", choices=OPTIMIZERS, default=["auto", "sgd"])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    case = embedded() if arguments.cifar is None else resnet56(arguments.cifar, arguments.seed)
    options = rt.RunOptions("cpu", 1)
    bench = Workbench(case.model, case.calibration, options, seed=arguments.seed).opened
    plan = Plan("given", case.model.sha256, tuple(map(Step.of, case.removed(bench))))
    fits = FitSettings("refit", bench.splits.fit[:REFIT_SAMPLES], effort=Effort(REFIT_ROUNDS))
    repaired, _ = fit_to_original(bench, apply_plan(bench, plan), plan, fits)
    epochs = [f"epoch {number + 1}" for number in range(arguments.epochs)]
    print(f"| {' | '.join(['optimiser', 'behind the repair', *epochs, 'CPU seconds'])} |")
    print(f"|---|---:|{'---:|' * arguments.epochs}---:|")
    for optimizer in arguments.optimizers:
        begin = process_time()
        settings = TrainingSettings(arguments.epochs, optimizer=optimizer, seed=arguments.seed)
        trained = Workbench(repaired, case.samples, options, seed=arguments.seed)
        found = finetune(trained, settings, teacher=case.model)
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
