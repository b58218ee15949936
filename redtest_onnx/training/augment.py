"""Random changes to training images: shifted crops and mirrored halves, each sample by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from redtest_onnx.errors import InputError
from redtest_onnx.graph.model import Model, TensorSpec
from redtest_onnx.graph.signature import batch_axes
from redtest_onnx.training.settings import Augmentation

Augment = Callable[[dict[str, Tensor]], dict[str, Tensor]]

# RandomCrop after padding by 4 of 32 pixels is the usual recipe for CIFAR-10; other sizes in proportion.
_PADDING = 1 / 8


def augmentation(model: Model, names: Sequence[Augmentation]) -> Augment:
    """Make a function that changes the images in a batch of inputs; random numbers are torch's own.

    Args:
        model: its inputs of rank 4 with 1 or 3 channels are images.
        names: what to do; nothing if empty.

    Raises:
        InputError: the model takes no images.
    """
    if not names:
        return lambda inputs: inputs
    images = image_inputs(model)

    def change(image: Tensor) -> Tensor:
        for name in names:
            image = random_crop(image) if name == "crop" else random_flip(image)
        return image

    def augment(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        with torch.no_grad():
            return {
                name: _moved(change, value, images[name]) if name in images else value
                for name, value in inputs.items()
            }

    return augment


def random_crop(images: Tensor) -> Tensor:
    """Pad images [n, C, H, W] by an eighth of their sides with zeros and cut the old size out anywhere."""
    n, _, height, width = images.shape
    high, wide = (max(1, round(side * _PADDING)) for side in (height, width))
    padded = functional.pad(images, (wide, wide, high, high))
    places = [
        torch.randint(2 * margin + 1, (n, 1), device=images.device) + torch.arange(side, device=images.device)
        for margin, side in ((high, height), (wide, width))
    ]
    sample = torch.arange(n, device=images.device)[:, None, None]
    rows, columns = places[0][:, :, None], places[1][:, None, :]
    return padded[sample, :, rows, columns].permute(0, 3, 1, 2).contiguous()


def random_flip(images: Tensor) -> Tensor:
    """Mirror each of the images [n, C, H, W] with a probability of one half."""
    mirrored = torch.rand(len(images), device=images.device) < 0.5
    return torch.where(mirrored[:, None, None, None], images.flip(3), images)


def _moved(change: Callable[[Tensor], Tensor], image: Tensor, first: bool) -> Tensor:
    if first:
        return change(image)
    return change(image.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def image_inputs(model: Model) -> dict[str, bool]:
    """The inputs that take images, and whether their channels come before rows and columns.

    Raises:
        InputError: there are none.
    """
    axes = batch_axes(model)
    found = {
        spec.name: _channels_first(spec) for spec in model.inputs if _is_image(spec) and axes[spec.name] == 0
    }
    if not found:
        raise InputError("no input takes images, which could be augmented", where=model.label)
    return found


def _is_image(spec: TensorSpec) -> bool:
    shape = spec.shape or ()
    return len(shape) == 4 and spec.numpy_dtype.kind == "f" and (shape[1] in (1, 3) or shape[3] in (1, 3))


def _channels_first(spec: TensorSpec) -> bool:
    return (spec.shape or ())[1] in (1, 3)
