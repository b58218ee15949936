"""The networks, data and scales of the experiment `table1.py`."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from blocks import ResidualBlock
from torch import nn

import redtest_onnx as rt
from redtest_onnx.data.dataset import Subset
from redtest_onnx.data.splits import sample_indices
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.training.finetune import CheckpointFile, finetune
from redtest_onnx.training.loop import Watch
from redtest_onnx.training.settings import Augmentation, TrainingSettings

ROOT = Path(__file__).parents[2]
NORMALISED = rt.ImageOptions(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Scale:
    """How much is computed; a number of images of None takes all.

    Attributes:
        nets: names in NETS.
        images: training images of the fine-tuning.
        base_images: training images of the unpruned networks that are trained here.
        base_epochs: epochs of those.
        tune_epochs: epochs of the fine-tuning.
        batch: batch size of both trainings, for base networks at most 128.
        calibration: images that layers are chosen and repaired by.
        test: test images.
        divisor: the widths of VGG19 are divided by it.
        augment: changes to training images.
        one_base: whether all seeds start from one unpruned network, that of seed 0.
    """

    nets: tuple[str, ...]
    images: int | None
    base_images: int | None
    base_epochs: int
    tune_epochs: int
    batch: int
    calibration: int
    test: int | None
    divisor: int = 1
    augment: tuple[Augmentation, ...] = ("crop", "flip")
    one_base: bool = False


_CIFAR = ("resnet56", "vgg19")
SCALES = {
    "digits": Scale(("resnet_digits", "vgg_digits"), None, None, 0, 3, 64, 512, None, 1, ("crop",)),
    "minutes": Scale(_CIFAR, 1000, None, 6, 1, 64, 512, 1000, 8, one_base=True),
    "hours": Scale(_CIFAR, 20_000, 20_000, 12, 5, 128, 2048, None),
    "full": Scale(_CIFAR, None, None, 200, 150, 256, 2048, None),
}


def resnet56(classes: int, divisor: int) -> nn.Module:
    """Three stages of nine blocks (He et al., arXiv 1512.03385, section 4.2); its widths stay."""
    del divisor
    widths = [16] * 9 + [32] * 9 + [64] * 9
    stem = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    blocks = [
        ResidualBlock(before, after, 1 if before == after else 2, projected=False)
        for before, after in zip([16, *widths], widths, strict=False)
    ]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes))


def vgg19(classes: int, divisor: int) -> nn.Module:
    """Sixteen convolutions and a head of 512, 512 and one per class."""
    parts: list[nn.Module] = []
    inputs = 3
    for width, count in ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4)):
        for _ in range(count):
            outputs = width // divisor
            parts += [nn.Conv2d(inputs, outputs, 3, 1, 1), nn.BatchNorm2d(outputs), nn.ReLU()]
            inputs = outputs
        parts.append(nn.MaxPool2d(2))
    hidden = [layer for _ in range(2) for layer in (nn.Linear(inputs, inputs), nn.ReLU())]
    return nn.Sequential(*parts, nn.Flatten(), *hidden, nn.Linear(inputs, classes))


@dataclass(frozen=True)
class Net:
    """A network of the table.

    Attributes:
        macs: share of multiply-accumulates that stays.
        build: makes it with random weights for a number of classes and a divisor of widths; None where a
            trained network of this repository is taken.
        file: that network.
        paper: indices of the layers that RedTest removes, by the series of `inspect` and number of classes.
        threshold: similarity from which on a pair counts as redundant.
        lr: learning rate of the first training, for batches of 128 and less for smaller ones.
    """

    macs: float
    build: Callable[[int, int], nn.Module] | None = None
    file: Path | None = None
    paper: dict[int, tuple[int, ...]] | None = None
    threshold: float = 0.8
    lr: float = 0.1


def _removed_blocks(kept: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
    # Layer 0 is the stem; block b of stage s is layer 1 + 9 s + b.
    return tuple(1 + 9 * s + b for s in range(3) for b in range(9) if b not in kept[s])


NETS = {
    "resnet56": Net(
        0.474,
        resnet56,
        paper={
            10: _removed_blocks(((0, 1, 2, 4, 6, 7), (0,), (0, 4, 5, 6, 7, 8))),
            100: _removed_blocks(((0, 2, 8), (0, 1, 2, 8), (0, 1, 2, 3, 4, 5, 6))),
        },
    ),
    # The paper puts convolution 11 behind the fourth pool, too; here it stays where it is.
    "vgg19": Net(0.456, vgg19, paper={10: (1, 5, 6, 10, 12, 13, 14, 15)}, threshold=0.7, lr=0.05),
    "resnet_digits": Net(0.474, file=ROOT / "models" / "resnet_digits.onnx"),
    "vgg_digits": Net(0.456, file=ROOT / "models" / "vgg_digits.onnx", threshold=0.7),
}


@dataclass(frozen=True)
class Images:
    """Training and test images, and the number of classes."""

    train: rt.Dataset
    test: rt.Dataset
    classes: int


def open_images(folder: Path | None, net: Net, scale: Scale) -> Images:
    """The images of a network.

    Args:
        folder: holds one folder, .zip or .tar each whose name ends in "train" and "test", with a subfolder
            per class; None for the digits of this repository.
        net: what takes them.
        scale: how many test images are looked at; the same ones for every seed.
    """
    if folder is None or net.build is None:
        model = rt.load(net.file or ROOT / "models" / "resnet_digits.onnx")
        train, test = (
            rt.open_data(ROOT / "models" / "digits.npz", model, split=s) for s in ("train", "test")
        )
        return Images(train, test, 10)
    blank = exported(net.build(10, 16))
    train, test = (rt.open_data(part(folder, end), blank, images=NORMALISED) for end in ("train", "test"))
    labels = train.labels(np.arange(len(train)))
    if labels is None:
        raise SystemExit(f"{folder}: its images have no labels; give each class a subfolder")
    if scale.test is not None and scale.test < len(test):
        test = Subset(test, np.sort(sample_indices(test, scale.test, 0)))
    return Images(train, test, int(labels.max()) + 1)


def part(folder: Path, end: str) -> Path:
    """The one folder or archive in a folder whose name ends in "train" or "test"."""
    found = [p for p in sorted(folder.iterdir()) if p.name.partition(".")[0].lower().endswith(end)]
    if len(found) != 1:
        raise SystemExit(f"{folder}: {len(found)} entries whose name ends in {end!r}, one is needed")
    return found[0]


def exported(module: nn.Module) -> rt.Model:
    """The module as an ONNX model with batch normalisation kept, every layer with tensors of its own."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            # The exporter merges equal tensors, and training would then move them together.
            for tensor in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
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


def base_network(name: str, seed: int, scale: Scale, images: Images, folder: Path) -> rt.Model:
    """The unpruned network of a seed: of this repository, or trained unless its file is there."""
    net = NETS[name]
    if net.build is None:
        assert net.file is not None
        return rt.load(net.file)
    seed = 0 if scale.one_base else seed
    path = folder / f"{name}-{seed}.onnx"
    if not path.exists():
        torch.manual_seed(seed)
        batch = min(scale.batch, 128)
        settings = TrainingSettings(
            epochs=scale.base_epochs,
            batch_size=batch,
            optimizer="sgd",
            lr=net.lr * batch / 128,
            weight_decay=5e-4,
            augment=scale.augment,
            seed=seed,
        )
        count = scale.base_images or len(images.train)
        data = Subset(images.train, sample_indices(images.train, count, seed))
        bench = Workbench(exported(net.build(images.classes, scale.divisor)), data)
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = CheckpointFile(path.with_suffix(".unfinished"), resume=True)
        trained = finetune(bench, settings, checkpoint=unfinished, watch=Watch(report=print))
        rt.save(trained.model, path)
    return rt.load(path)
