"""Short training: enough to tell good architectures from bad ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from redtest_onnx.search.images import LabelledImages
from redtest_onnx.search.recipe import Recipe

_EVALUATION_BATCH = 500


def train(network: nn.Module, images: LabelledImages, recipe: Recipe, seed: int) -> None:
    """Train a network in place, on the device it is on.

    On the CPU and with one thread, the same seed gives the same weights.
    """
    device = next(network.parameters()).device
    inputs, labels = torch.from_numpy(images.images), torch.from_numpy(images.labels)
    order = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.SGD(
        network.parameters(),
        recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=True,
    )
    steps = recipe.epochs * -(-len(inputs) // recipe.batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(steps, 1))
    network.train()
    for _ in range(recipe.epochs):
        for chosen in torch.randperm(len(inputs), generator=order).split(recipe.batch):
            if len(chosen) < 2:
                continue  # batch normalisation has no statistics of one image
            batch = _shifted(inputs[chosen], order).to(device)
            loss = functional.cross_entropy(network(batch), labels[chosen].to(device))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()


@torch.no_grad()
def accuracy(network: nn.Module, images: LabelledImages) -> float:
    """Share of images that the network classifies rightly."""
    network.eval()
    device = next(network.parameters()).device
    right = 0
    for start in range(0, len(images.labels), _EVALUATION_BATCH):
        part = slice(start, start + _EVALUATION_BATCH)
        answers = network(torch.from_numpy(images.images[part]).to(device)).argmax(1).cpu().numpy()
        right += int((answers == images.labels[part]).sum())
    return right / len(images.labels)


def _shifted(images: Tensor, order: torch.Generator) -> Tensor:
    """A batch moved by -1, 0 or 1 pixel along both axes, filled with zeros."""
    rows, columns = (int(offset) for offset in torch.randint(0, 3, (2,), generator=order))
    size = images.shape[-2], images.shape[-1]
    padded = functional.pad(images, (1, 1, 1, 1))
    return padded[:, :, rows : rows + size[0], columns : columns + size[1]]
