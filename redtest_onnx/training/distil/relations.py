"""How samples stand to one another: what embeddings are used for.

An embedding is compared with others, so that an error in it counts by what it does to the order of its
neighbours. The loss is that of similarity distillation (SEED, arXiv 2101.04731): the divergence between the
softmax of a sample's cosines with a bank of the original's vectors, by the original and by the student.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from redtest_onnx.training.positions import holds_positions

BANK_SAMPLES = 4096
"""Samples whose vectors are compared with at most."""
_LEAST_SAMPLES = 3
_SHARE_OF_SPREAD = 0.5
"""The temperature, as a share of the standard deviation of the bank's own cosines: so the nearest count most,
however narrow the cone is that a model's embeddings lie in."""
_LEAST_SPREAD = 1e-6
_ROWS = 512  # of the bank's cosines at a time
_LOW = -1e9


@dataclass(frozen=True, eq=False)
class Relations:
    """The original's vectors of calibration samples, and how sharply they are compared with.

    Attributes:
        bank: [m, c] float32, of length 1.
        samples: [m] numbers of the samples they belong to, int64.
        temperature: of the softmax over cosines.
    """

    bank: Tensor
    samples: Tensor
    temperature: float

    @classmethod
    def of(cls, vectors: Tensor, samples: Tensor) -> Relations | None:
        """From vectors [m, c]; None where they are too few, or all alike."""
        if len(vectors) < _LEAST_SAMPLES:
            return None
        bank = functional.normalize(vectors.float(), dim=1)
        parts = [(rows @ bank.T).var(dim=1, correction=0) for rows in bank.split(_ROWS)]
        spread = float(torch.cat(parts).mean().sqrt())
        if not spread > _LEAST_SPREAD:
            return None
        return cls(bank, samples, _SHARE_OF_SPREAD * spread)

    def divergence(self, student: Tensor, teacher: Tensor, own: Tensor | None = None) -> Tensor:
        """KL(teacher || student) of the softmax over cosines with the bank, mean over samples.

        Args:
            student: [n, c].
            teacher: [n, c].
            own: [n] numbers of the samples: each is not compared with itself. None: they are not in the bank.
        """
        ours, theirs = (
            functional.normalize(values.float(), dim=1) @ self.bank.T / self.temperature
            for values in (student, teacher)
        )
        if own is not None:
            itself = own[:, None] == self.samples[None]
            ours, theirs = (scores.masked_fill(itself, _LOW) for scores in (ours, theirs))
        ours, theirs = ours.log_softmax(1), theirs.log_softmax(1)
        return functional.kl_div(ours, theirs, reduction="sum", log_target=True) / len(ours)


def pooled(values: Tensor, counted: Tensor | None) -> Mapping[str, Tensor]:
    """The vectors [n, c] that are compared between samples, by how they were made; none of other tensors.

    States of tokens are pooled outside of the graph: by their mean, or by taking the first one.

    Args:
        values: [n, c], or states [n, positions, c].
        counted: [n, positions] which positions count; None: `values` are no states.
    """
    if values.dim() == 2:
        return {"vector": values}
    if not holds_positions(values, counted):
        return {}
    assert counted is not None
    weight = counted.to(values.dtype)[:, :, None]
    first = counted.to(torch.int64).argmax(1)
    return {
        "mean": (values * weight).sum(1) / weight.sum(1).clamp_min(1),
        "first": values[torch.arange(len(values)), first],
    }
