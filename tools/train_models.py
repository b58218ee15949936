"""Train and export the example models kept in ``models/``.

Run from the repository root (needs torch, onnx, onnxscript, onnxruntime and scikit-learn)::

    python tools/train_models.py                  # everything, about four minutes on one core
    python tools/train_models.py --only resnet    # the data file and one model

Each run writes ``digits.npz`` and the chosen ``<name>_digits.onnx`` files, then prints the accuracy that
ONNX Runtime measures on the test split. The weights come from the train split alone, and the last epoch is
always the one exported; the recipes below were compared on the calibration split.
"""

from __future__ import annotations

import argparse
import io
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import torch
from digit_networks import IMAGE_SIZE, VGG, ResNet, ViT
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

SEED = 20_240_607
CALIBRATION_SIZE = 397
TEST_SIZE = 400

Arrays = dict[str, npt.NDArray[np.generic]]


@dataclass(frozen=True)
class Recipe:
    """How one model is trained."""

    build: Callable[[], nn.Module]
    export: Callable[[nn.Module], onnx.ModelProto]
    description: str
    epochs: int
    learning_rate: float
    weight_decay: float
    batch_size: int = 100
    warmup: float = 0.05
    label_smoothing: float = 0.1


# --------------------------------------------------------------------------------------------------- data


def make_dataset(seed: int = SEED) -> Arrays:
    """Return the UCI digits, scaled to [0, 1] and split by class into train, calibration and test."""
    digits = load_digits()
    images = (digits.images / 16.0).astype(np.float32)[:, np.newaxis]
    labels = digits.target.astype(np.int64)

    rest, test = train_test_split(
        np.arange(len(labels)), test_size=TEST_SIZE, stratify=labels, random_state=seed
    )
    train, calibration = train_test_split(
        rest, test_size=CALIBRATION_SIZE, stratify=labels[rest], random_state=seed
    )

    arrays: Arrays = {}
    for name, indices in (("train", train), ("calibration", calibration), ("test", test)):
        arrays[f"{name}/input"] = images[indices]
        arrays[f"{name}/labels"] = labels[indices]
    return arrays


def shift_randomly(images: Tensor, generator: torch.Generator) -> Tensor:
    """Move each image by -1, 0 or 1 pixel along both axes, filling with background."""
    size = images.shape[-1]
    padded = functional.pad(images, (1, 1, 1, 1))
    offsets = torch.randint(0, 3, (2, len(images), 1), generator=generator)
    rows, columns = offsets + torch.arange(size)
    sample = torch.arange(len(images))
    return padded[sample[:, None, None], 0, rows[:, :, None], columns[:, None, :]].unsqueeze(1)


# ------------------------------------------------------------------------------------------------- models


# ----------------------------------------------------------------------------------------------- training


def train(recipe: Recipe, images: Tensor, labels: Tensor, seed: int = SEED) -> nn.Module:
    """Train a fresh model with AdamW, a warmed-up cosine schedule and random one-pixel shifts."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = recipe.build().train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    steps_per_epoch = len(images) // recipe.batch_size
    total = recipe.epochs * steps_per_epoch

    def factor(step: int) -> float:
        ramp = min(1.0, (step + 1) / (recipe.warmup * total))
        return ramp * 0.5 * (1.0 + math.cos(math.pi * step / total))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    for _ in range(recipe.epochs):
        # The incomplete last batch is dropped: a handful of images would disturb the BN statistics.
        order = torch.randperm(len(images), generator=generator)[: steps_per_epoch * recipe.batch_size]
        for batch in order.view(steps_per_epoch, recipe.batch_size):
            logits = model(shift_randomly(images[batch], generator))
            loss = functional.cross_entropy(logits, labels[batch], label_smoothing=recipe.label_smoothing)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return model.eval()


# ------------------------------------------------------------------------------------------------- export


def export_torchscript(model: nn.Module) -> onnx.ModelProto:
    """Export with the TorchScript exporter, keeping BatchNormalization as nodes in inference form."""
    buffer = io.BytesIO()
    torch.onnx.export(
        model,
        (torch.zeros(2, 1, IMAGE_SIZE, IMAGE_SIZE),),
        buffer,  # type: ignore[arg-type]  # this exporter takes a file, its stub says path
        dynamo=False,
        opset_version=17,
        # PRESERVE on a module in eval mode is what stops the exporter from folding BN into Conv.
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False,
        input_names=["input"],
        output_names=["logits"],
        dynamic_axes={"input": {0: "batch"}, "logits": {0: "batch"}},
    )
    return onnx.load_model_from_string(buffer.getvalue())


def export_dynamo(model: nn.Module) -> onnx.ModelProto:
    """Export with the torch.export-based exporter at its default opset."""
    program = torch.onnx.export(
        model,
        (torch.zeros(2, 1, IMAGE_SIZE, IMAGE_SIZE),),
        dynamo=True,
        input_names=["input"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
    )
    assert program is not None
    # Taking the proto instead of saving the program keeps the weights inline: no .onnx.data file.
    proto: onnx.ModelProto = program.model_proto
    for node in proto.graph.node:
        kept = [prop for prop in node.metadata_props if prop.key != "pkg.torch.onnx.stack_trace"]
        # Stack traces hold the paths of whoever ran this script, and would change the file with them.
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
    return proto


def add_properties(model: onnx.ModelProto, properties: Mapping[str, str]) -> None:
    """Add metadata to the model without dropping what the exporter wrote."""
    present = {prop.key: prop.value for prop in model.metadata_props}
    onnx.helper.set_model_props(model, {**present, **properties})


def measure_accuracy(path: Path, images: npt.NDArray[np.generic], labels: npt.NDArray[np.generic]) -> float:
    """Return the share of right answers that ONNX Runtime gives."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"input": images})
    return float(np.mean(np.argmax(logits, axis=1) == labels))


def count_macs(model: nn.Module) -> int:
    """Return the multiply-accumulates of convolutions and matrix products for one image."""
    # The counter does not know the fused attention kernel of the CPU; MATH is made of plain products.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 1, IMAGE_SIZE, IMAGE_SIZE))
    return int(counter.get_total_flops()) // 2


RECIPES: dict[str, Recipe] = {
    "resnet": Recipe(
        build=ResNet,
        export=export_torchscript,
        description="Over-deep residual network (27 blocks)",
        epochs=60,
        learning_rate=4e-3,
        weight_decay=0.5,
    ),
    "vgg": Recipe(
        build=VGG,
        export=export_dynamo,
        description="Plain chain of 12 convolutions",
        epochs=120,
        learning_rate=4e-3,
        weight_decay=0.1,
    ),
    "vit": Recipe(
        build=ViT,
        export=export_dynamo,
        description="Pre-norm vision transformer (8 blocks)",
        epochs=200,
        learning_rate=2e-3,
        weight_decay=0.1,
    ),
}


def main() -> None:
    """Write the data file and the chosen models."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=sorted(RECIPES), default=list(RECIPES))
    parser.add_argument("--output", type=Path, default=Path(__file__).resolve().parent.parent / "models")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    output: Path = arguments.output
    output.mkdir(parents=True, exist_ok=True)

    data = make_dataset()
    np.savez_compressed(output / "digits.npz", allow_pickle=False, **data)
    images = torch.from_numpy(data["train/input"])
    labels = torch.from_numpy(data["train/labels"])

    for name in arguments.only:
        recipe = RECIPES[name]
        start = time.perf_counter()
        model = train(recipe, images, labels)
        seconds = time.perf_counter() - start

        proto = recipe.export(model)
        add_properties(
            proto,
            {
                "author": "redtest-onnx contributors",
                "license": "Apache-2.0",
                "description": recipe.description,
                "dataset": "UCI Optical Recognition of Handwritten Digits (CC BY 4.0), sklearn load_digits",
                "preprocessing": "8x8 grey levels 0..16 divided by 16; float32 [batch, 1, 8, 8]",
                "reproduce": f"python tools/train_models.py --only {name}",
            },
        )
        onnx.checker.check_model(proto, full_check=True)
        path = output / f"{name}_digits.onnx"
        onnx.save_model(proto, path)

        accuracy = measure_accuracy(path, data["test/input"], data["test/labels"])
        parameters = sum(parameter.numel() for parameter in model.parameters())
        print(
            f"{path.name}: test accuracy {accuracy:.2%}, {parameters:,} parameters, "
            f"{count_macs(model):,} MACs, {path.stat().st_size / 1e6:.2f} MB, trained in {seconds:.0f} s"
        )


if __name__ == "__main__":
    main()
