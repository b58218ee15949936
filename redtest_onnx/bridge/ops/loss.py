"""Losses that are part of a graph."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from redtest_onnx.bridge.registry import operator


@operator("NegativeLogLikelihoodLoss", since=12, fixed=(1, 2))
def nll_loss(
    scores: Tensor,
    labels: Tensor,
    weight: Tensor | None = None,
    *,
    ignore_index: int | None = None,
    reduction: str,
) -> Tensor:
    """Negative log-likelihood of labels [N, ...] under log-probabilities [N, C, ...]."""
    ignored = -100 if ignore_index is None else ignore_index
    # torch takes at most two spatial axes with a reduction of some kind.
    flat = scores.flatten(2) if scores.dim() > 2 else scores
    loss = functional.nll_loss(
        flat, labels.reshape(flat.shape[:1] + flat.shape[2:]).long(), weight, None, ignored, None, reduction
    )
    return loss.reshape(labels.shape) if reduction == "none" else loss


@operator("SoftmaxCrossEntropyLoss", since=12, fixed=(1, 2))
def softmax_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    weight: Tensor | None = None,
    *,
    ignore_index: int | None = None,
    reduction: str,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of labels [N, ...] with logits [N, C, ...], and the log-probabilities."""
    scores = torch.log_softmax(logits, 1)
    return nll_loss(scores, labels, weight, ignore_index=ignore_index, reduction=reduction), scores
