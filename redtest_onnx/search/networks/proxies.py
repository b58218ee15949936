"""Zero-cost proxies: what can be told about an untrained network in a fraction of a second."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

_JITTER = 1e-5


def synflow(network: nn.Module, shape: tuple[int, ...]) -> float:
    """Sum of |parameter x gradient| of the summed output for an input of ones, all parameters made positive.

    Tanaka et al. 2020 (arXiv 2006.05467), as a score of networks by Abdelfattah et al. 2021 (2101.08134):
    batch normalisation is off, which in an untrained network's evaluation mode it is.

    Args:
        network: untrained; left as it is.
        shape: of one image, (channels, size, size).
    """
    network = deepcopy(network).double().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.abs_()
    network(torch.ones(1, *shape, dtype=torch.float64)).sum().backward()
    total = 0.0
    for parameter in network.parameters():
        if parameter.grad is not None:
            total += float((parameter.detach() * parameter.grad).abs().sum())
    return total


def jacob_cov(network: nn.Module, images: npt.NDArray[np.float32]) -> float | None:
    """How differently the outputs react to different images, from the correlation of their Jacobians.

    -sum(log(v + k) + 1 / (v + k)) over the eigenvalues v of the correlation matrix, k = 1e-5 (Mellor et al.,
    arXiv 2006.04647 version 1). None if some image's Jacobian is zero.

    Args:
        network: untrained; left as it is.
        images: [n, channels, size, size]; one batch.
    """
    network = deepcopy(network).train()
    inputs = torch.from_numpy(images).requires_grad_()
    network(inputs).sum().backward()
    if inputs.grad is None:
        return None
    jacobian = inputs.grad.flatten(1).double().numpy()
    jacobian = jacobian - jacobian.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(jacobian, axis=1, keepdims=True)
    if not norms.all():
        return None
    unit = jacobian / norms
    values = np.linalg.eigvalsh(unit @ unit.T) + _JITTER
    values = np.maximum(values, _JITTER)  # rounding makes zeros slightly negative
    return -float(np.sum(np.log(values) + 1 / values))


def naswot(network: nn.Module, images: npt.NDArray[np.float32]) -> float | None:
    """How well the on/off codes of the ReLUs tell images apart.

    log|det K|, K_ij the number of units on which images i and j agree (Mellor et al. 2021, arXiv 2006.04647).
    None if two images have the same codes everywhere, or there is no ReLU module.

    Args:
        network: untrained; left as it is.
        images: [n, channels, size, size]; one batch.
    """
    network = deepcopy(network).train()
    with _codes(network) as codes, torch.no_grad():
        network(torch.from_numpy(images))
    if not codes:
        return None
    kernel = np.zeros((len(images), len(images)))
    for code in codes:
        kernel += code @ code.T + (1 - code) @ (1 - code).T
    sign, value = np.linalg.slogdet(kernel)
    return float(value) if sign and np.isfinite(value) else None


@contextmanager
def _codes(network: nn.Module) -> Iterator[list[npt.NDArray[np.float32]]]:
    found: list[npt.NDArray[np.float32]] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        found.append((output > 0).flatten(1).float().numpy())

    hooks = [m.register_forward_hook(keep) for m in network.modules() if isinstance(m, nn.ReLU)]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
