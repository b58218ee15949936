"""Random changes to training images, by kornia."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from redtest_onnx.errors import InputError, RuntimeUnavailableError
from redtest_onnx.graph.model import Model, TensorSpec
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
        RuntimeUnavailableError: kornia is not installed.
    """
    if not names:
        return lambda inputs: inputs
    images = {spec.name: _channels_first(spec) for spec in model.inputs if _is_image(spec)}
    if not images:
        raise InputError("no input takes images, which could be augmented", where=model.label)
    try:
        from kornia.augmentation import RandomCrop, RandomHorizontalFlip
    except ImportError as error:
        raise RuntimeUnavailableError(
            f"kornia, which augments images, is not installed ({error})",
            hint="pip install 'redtest-onnx[torch]'",
        ) from error

    def change(image: Tensor) -> Tensor:
        size = (int(image.shape[2]), int(image.shape[3]))
        for name in names:
            if name == "crop":
                pad = tuple(max(1, round(side * _PADDING)) for side in size)
                image = RandomCrop(size, padding=(pad[1], pad[0], pad[1], pad[0]))(image)
            else:
                image = RandomHorizontalFlip()(image)
        return image

    def augment(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        with torch.no_grad():
            return {
                name: _moved(change, value, images[name]) if name in images else value
                for name, value in inputs.items()
            }

    return augment


def _moved(change: Callable[[Tensor], Tensor], image: Tensor, first: bool) -> Tensor:
    if first:
        return change(image)
    return change(image.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def _is_image(spec: TensorSpec) -> bool:
    shape = spec.shape or ()
    return len(shape) == 4 and spec.numpy_dtype.kind == "f" and (shape[1] in (1, 3) or shape[3] in (1, 3))


def _channels_first(spec: TensorSpec) -> bool:
    return (spec.shape or ())[1] in (1, 3)
