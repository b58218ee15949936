"""The least-squares problem of one linear operator: which rows it sees, and its solution as new weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from redtest_onnx.graph.linear_operators import LinearOperator
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.weights import change_operands
from redtest_onnx.metrics.ridge import NormalEquations, RidgeFit, best_fit
from redtest_onnx.pruning.repair.im2col import Window, patches, values_at

Values = npt.NDArray[np.generic]
Float64s = npt.NDArray[np.float64]

# Rows beyond this many per unknown make no difference to a fit; positions are sampled down to it.
_ROWS_PER_UNKNOWN = 300
_SMALLEST_SCALE = 1e-6
CHECK_EVERY = 4
"""One run in so many chooses the penalty."""


@dataclass(frozen=True)
class Correction:
    """A change of what an operator adds to its target.

    Attributes:
        weight: [M, p] float64, one row per output channel.
        bias: [M] float64.
        explained: share of the error at the target that it takes away.
        condition: condition number of the worst fit.
        rank: directions of the input that carry information, over all groups.
        unknowns: size of the input, over all groups.
        rows: equations of one group.
    """

    weight: Float64s
    bias: Float64s
    explained: float
    condition: float
    rank: int
    unknowns: int
    rows: int


class Equations:
    """Normal equations of an operator's correction, one pair per group: to fit, and to choose the penalty.

    Args:
        operator: the operator.
        samples: number of samples that will be added.
        seed: of the positions that are taken where there are more than needed.
    """

    def __init__(self, operator: LinearOperator, samples: int, seed: int = 0) -> None:
        self._operator = operator
        self._samples = samples
        self._rng = np.random.default_rng(seed)
        self._pairs: list[tuple[NormalEquations, NormalEquations]] = []
        self._runs = 0

    def add(self, x: Values, error: Values) -> bool:
        """Add what the operator reads and the error at its target; False if their shapes don't fit."""
        operator = self._operator
        rows = _image_rows if operator.geometry else _token_rows
        found = rows(operator, x, error, self._samples, self._rng)
        if found is None:
            return False
        a, b = (part.reshape(len(part), operator.groups, -1) for part in found)
        if not self._pairs:
            p, q = a.shape[2], b.shape[2]
            self._pairs = [(NormalEquations(p, q), NormalEquations(p, q)) for _ in range(operator.groups)]
        check = self._runs % CHECK_EVERY == CHECK_EVERY - 1
        for group, pair in enumerate(self._pairs):
            pair[check].add(a[:, group], b[:, group])
        self._runs += 1
        return True

    def solve(self) -> Correction | None:
        """The correction; None where none helps on the rows that check it."""
        fits: list[RidgeFit | None] = [
            best_fit(*pair, intercept=self._operator.bias is not None) for pair in self._pairs
        ]
        useful = [fit for fit in fits if fit]
        if not useful:
            return None
        p, q = useful[0].weight.shape
        weights = [fit.weight.T if fit else np.zeros((q, p)) for fit in fits]
        biases = [fit.bias if fit else np.zeros(q) for fit in fits]
        return Correction(
            np.concatenate(weights),
            np.concatenate(biases),
            sum(fit.explained for fit in useful) / len(fits),
            max(fit.condition for fit in useful),
            sum(fit.rank for fit in useful),
            p * len(fits),
            self._pairs[0][0].rows,
        )


def corrected(model: Model, operator: LinearOperator, weight: Float64s, bias: Float64s) -> Model:
    """The model with a correction [M, p] and [M] of the target in the operator's weights and bias."""
    tensor = operator.weight_of(model)
    stored: npt.NDArray[Any] = model.value(tensor)
    change = weight * _inverse(operator.scale)[:, None]
    if operator.kind != "Conv" and not operator.transposed:
        change = change.T
    changes = {(operator.node, tensor.name): (stored + change.reshape(stored.shape)).astype(stored.dtype)}
    constant = operator.bias_of(model)
    if operator.bias is not None and constant is not None:
        old: npt.NDArray[Any] = model.value(constant)
        share = (bias * _inverse(operator.bias_scale)).reshape(old.shape)
        changes[operator.bias[0], constant.name] = (old + share).astype(old.dtype)
    return change_operands(model, changes)


def spatial(images: Values) -> Values:
    """[n, C, H, W] of images, or of lines [n, C, L] as images of height 1."""
    return images[:, :, None] if images.ndim == 3 else images


def _token_rows(
    operator: LinearOperator, x: Values, error: Values, samples: int, rng: np.random.Generator
) -> tuple[Values, Values] | None:
    if x.shape[:-1] != error.shape[:-1]:
        return None
    a, b = x.reshape(-1, x.shape[-1]), error.reshape(-1, error.shape[-1])
    wanted = _per_sample(a.shape[1], samples) * len(x)
    if len(a) > wanted:
        chosen = np.sort(rng.choice(len(a), wanted, replace=False))
        a, b = a[chosen], b[chosen]
    return a, b


def _image_rows(
    operator: LinearOperator, x: Values, error: Values, samples: int, rng: np.random.Generator
) -> tuple[Values, Values] | None:
    x, error = spatial(x), spatial(error)
    if x.ndim != 4 or error.ndim != 4 or operator.geometry is None:
        return None
    geometry = operator.geometry
    height, width = error.shape[2:]
    before = geometry.padding((x.shape[2], x.shape[3]), (height, width))
    window = Window(geometry.kernel, geometry.strides, geometry.dilations, before)
    places = np.arange(height * width)
    unknowns = x.shape[1] // operator.groups * geometry.kernel[0] * geometry.kernel[1]
    wanted = _per_sample(unknowns, samples)
    if len(places) > wanted:
        places = np.sort(rng.choice(places, wanted, replace=False))
    rows, columns = np.divmod(places, width)
    return patches(x, window, rows, columns), values_at(error, rows, columns)


def _per_sample(unknowns: int, samples: int) -> int:
    return max(1, -(-_ROWS_PER_UNKNOWN * unknowns // samples))


def _inverse(scale: Float64s) -> Float64s:
    """1 / scale; 0 for channels that a normalisation has switched off."""
    usable = np.abs(scale) > _SMALLEST_SCALE
    return np.where(usable, 1 / np.where(usable, scale, 1), 0)
