"""Linear operators of classical machine learning, whose weights are attributes and stay as they are."""

from __future__ import annotations

import torch
from torch import Tensor

from redtest_onnx.bridge.registry import operator
from redtest_onnx.errors import InputError

_ML = "ai.onnx.ml"


@operator("Scaler", domain=_ML)
def scaler(x: Tensor, *, offset: tuple[float, ...] = (), scale: tuple[float, ...] = ()) -> Tensor:
    """(x - offset) scale, per feature or one for all."""
    return (x.float() - x.new_tensor(offset, dtype=torch.float32)) * x.new_tensor(scale, dtype=torch.float32)


@operator("Binarizer", domain=_ML, differentiable=False)
def binarizer(x: Tensor, *, threshold: float = 0.0) -> Tensor:
    """1 above the threshold, else 0."""
    return (x > threshold).to(x.dtype)


@operator("LinearRegressor", domain=_ML)
def linear_regressor(
    x: Tensor,
    *,
    coefficients: tuple[float, ...] = (),
    intercepts: tuple[float, ...] = (),
    targets: int = 1,
    post_transform: str = "NONE",
) -> Tensor:
    """Affine function of the features, [n, targets]."""
    return _transformed(_affine(x, coefficients, intercepts, targets), post_transform)


@operator("LinearClassifier", domain=_ML)
def linear_classifier(
    x: Tensor,
    *,
    coefficients: tuple[float, ...] = (),
    intercepts: tuple[float, ...] = (),
    classlabels_ints: tuple[int, ...] = (),
    multi_class: int = 0,
    post_transform: str = "NONE",
) -> tuple[Tensor, Tensor]:
    """Labels [n] and scores [n, classes], one row of coefficients per class."""
    scores = _affine(x, coefficients, intercepts, len(classlabels_ints))
    labels = torch.tensor(classlabels_ints, device=x.device)
    return labels[scores.argmax(1)], _transformed(scores, post_transform)


def _affine(x: Tensor, coefficients: tuple[float, ...], intercepts: tuple[float, ...], rows: int) -> Tensor:
    x = x.float()
    result = x @ x.new_tensor(coefficients).reshape(rows, -1).T
    return result + x.new_tensor(intercepts) if intercepts else result


def _transformed(scores: Tensor, how: str) -> Tensor:
    if how == "SOFTMAX":
        return torch.softmax(scores, 1)
    if how == "LOGISTIC":
        return torch.sigmoid(scores)
    if how != "NONE":
        raise InputError(f"post_transform {how} can't be computed in PyTorch", hint="export the raw scores")
    return scores
