"""Whitened coordinates of linear operators: a step of equal size changes every output equally.

For an operator that adds W u to its target, u = (input row, 1), let A = E[u u'] + ridge. Its weights are
written as W = W0 + V R with R = A^(-1/2) and V = 0 at the start: the coordinates R u are uncorrelated and of
variance 1, so that no direction of the input is learnt faster than another, and what least squares has fitted
is not torn down by the first steps of an optimiser that scales each weight by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from redtest_onnx.graph.linear_operators import LinearOperator
from redtest_onnx.training.axes import SampleAxes
from redtest_onnx.training.positions import only_counted

_LARGEST_ROOT = 1536
"""Size up to which R is the symmetric root; above it is the inverse Cholesky factor, which costs a tenth."""
_LARGEST_MATRIX = 8192
"""Size above which R is a diagonal, as [G, 1, u]: the matrix would take more than a quarter of a GiB."""
_SMALLEST_SCALE = 1e-6


class Moments:
    """Second moments of what an operator reads, per group of a convolution: sums of u u' over rows.

    Args:
        operator: the operator.
        samples: number of samples that will be added.
        rows_per_unknown: rows that are taken per size of u; positions are drawn where there are more.
        seed: of the draw.
    """

    def __init__(self, operator: LinearOperator, samples: int, rows_per_unknown: int, seed: int) -> None:
        self._operator = operator
        self._samples = samples
        self._rows_per_unknown = rows_per_unknown
        self._generator = torch.Generator().manual_seed(seed)
        self._sum: Tensor | None = None
        self._rows = 0

    def add(self, x: Tensor, out: Tensor, counted: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            x: what the operator reads: [n, C, H, W], [n, C, L] or [..., p].
            out: what it gives, whose sizes tell the positions of a convolution.
            counted: [n, positions] which positions of sequences are taken; all if None.
        """
        taken = x.detach() if self._operator.geometry else only_counted(x.detach(), counted)
        rows = _rows(self._operator, taken.float().cpu(), out)  # [G, rows, p]
        wanted = max(1, -(-self._rows_per_unknown * rows.shape[2] * len(x) // self._samples))
        if rows.shape[1] > wanted:
            chosen = torch.randperm(rows.shape[1], generator=self._generator)[:wanted]
            rows = rows[:, chosen]
        if self._operator.bias is not None:
            rows = torch.cat([rows, torch.ones_like(rows[:, :, :1])], dim=2)
        if rows.shape[2] > _LARGEST_MATRIX:
            product = rows.square().sum(1, keepdim=True).double()
        else:
            product = (rows.transpose(1, 2) @ rows).double()
        self._sum = product if self._sum is None else self._sum + product
        self._rows += rows.shape[1]

    def whitener(self, ridge: float) -> Tensor:
        """R, [G, u, u] or [G, 1, u] float32; over the root of the ridge where nothing was seen."""
        assert self._sum is not None
        moments = self._sum / max(self._rows, 1)
        if moments.shape[1] == 1 != moments.shape[2]:
            level = moments.mean(2, keepdim=True)
            added = torch.where(level > 0, ridge * level, torch.ones_like(level))
            return (moments + added).rsqrt().float()
        level = moments.diagonal(dim1=1, dim2=2).mean(1)
        added = torch.where(level > 0, ridge * level, torch.ones_like(level))
        moments = moments + added[:, None, None] * torch.eye(moments.shape[1], dtype=torch.float64)
        if moments.shape[1] > _LARGEST_ROOT:
            factor = torch.linalg.cholesky(moments)
            identity = torch.eye(moments.shape[1], dtype=torch.float64).expand_as(factor)
            return torch.linalg.solve_triangular(factor, identity, upper=False).float()
        values, vectors = torch.linalg.eigh(moments)
        root = vectors * values.clamp_min(torch.finfo(torch.float64).tiny).rsqrt()[:, None, :]
        return (root @ vectors.transpose(1, 2)).float()


class WhitenedOperator(nn.Module):
    """The coordinates V of one operator.

    Args:
        operator: the operator.
        weight: its stored weights, in any layout.
        bias: its stored additive constant; None where it has none.
        whitener: R, [G, u, u] or [G, 1, u], see `Moments`.
    """

    weight: Tensor
    bias: Tensor | None
    whitener: Tensor
    inverse_scale: Tensor
    inverse_bias_scale: Tensor

    def __init__(
        self, operator: LinearOperator, weight: Tensor, bias: Tensor | None, whitener: Tensor
    ) -> None:
        super().__init__()
        self._operator = operator
        groups, unknowns = whitener.shape[0], whitener.shape[2]
        outputs = len(operator.scale)
        self.coordinates = nn.Parameter(torch.zeros(groups, outputs // groups, unknowns))
        self.register_buffer("whitener", whitener)
        self.register_buffer("weight", weight.detach().clone())
        self.register_buffer("bias", None if bias is None else bias.detach().clone())
        self.register_buffer("inverse_scale", _inverse(operator.scale))
        self.register_buffer("inverse_bias_scale", _inverse(operator.bias_scale))

    def forward(self) -> tuple[Tensor, Tensor | None]:
        """The weights and the additive constant that the coordinates stand for, in their stored layouts."""
        weight, constant = self.change()
        return self.weight + weight, None if self.bias is None or constant is None else self.bias + constant

    def change(self) -> tuple[Tensor, Tensor | None]:
        """What the coordinates add to the stored weights and the additive constant, linear in them."""
        operator = self._operator
        white = self.whitener.shape[1] == self.whitener.shape[2]
        change = self.coordinates @ self.whitener if white else self.coordinates * self.whitener
        inputs = change.shape[2] - (operator.bias is not None)
        weight = change[:, :, :inputs].reshape(-1, inputs) * self.inverse_scale[:, None]
        if operator.kind != "Conv" and not operator.transposed:
            weight = weight.T
        weight = weight.reshape(self.weight.shape).to(self.weight.dtype)
        if self.bias is None:
            return weight, None
        constant = change[:, :, inputs].reshape(-1) * self.inverse_bias_scale
        return weight, constant.reshape(self.bias.shape).to(self.bias.dtype)

    def gradient(self, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        """Gradient of the coordinates, from those of the stored weights and the additive constant.

        Args:
            weight: of a loss, in the stored layout; None for zero.
            bias: likewise.
        """
        with torch.enable_grad():
            pairs = zip(self.change(), (weight, bias), strict=True)
            known = [(change, given) for change, given in pairs if change is not None and given is not None]
            changes, given = zip(*known, strict=True)
            (found,) = torch.autograd.grad(changes, self.coordinates, given)
        return found


@dataclass(frozen=True)
class SeenValues:
    """What one batch makes of a model.

    Attributes:
        values: by name of the tensor.
        counted: [n, positions] which positions of sequences count; None: all.
        axes: of the model.
    """

    values: Mapping[str, Tensor]
    counted: Tensor | None = None
    axes: SampleAxes = field(default_factory=SampleAxes)

    def read_by(self, operator: LinearOperator) -> Tensor:
        """What an operator reads: in its own layout for a convolution, else with samples in front."""
        x = self.values[operator.input]
        return x if operator.geometry else self.axes.sample_first(operator.input, x)


def second_moments(
    operators: Iterable[LinearOperator],
    batches: Iterable[SeenValues],
    samples: int,
    rows_per_unknown: int,
    seed: int,
) -> dict[int, Moments]:
    """Moments of all operators, by node.

    Args:
        operators: the operators.
        batches: values of their inputs and outputs.
        samples: number of samples in all batches.
        rows_per_unknown: see `Moments`.
        seed: see `Moments`.
    """
    found = {
        operator.node: (operator, Moments(operator, samples, rows_per_unknown, seed + operator.node))
        for operator in operators
    }
    for seen in batches:
        for operator, moments in found.values():
            moments.add(seen.read_by(operator), seen.values[operator.output], seen.counted)
    return {node: moments for node, (_, moments) in found.items()}


def _rows(operator: LinearOperator, x: Tensor, out: Tensor) -> Tensor:
    """[G, rows, p] of what each output value of an operator is made from."""
    geometry = operator.geometry
    if geometry is None:
        return x.reshape(1, -1, x.shape[-1])
    if x.dim() == 3:
        x, out = x[:, :, None], out[:, :, None]
    size, wanted = (x.shape[2], x.shape[3]), (out.shape[2], out.shape[3])
    before = geometry.padding(size, wanted)
    after = [
        max((w - 1) * s + (k - 1) * d + 1 - n - b, 0)
        for n, w, k, s, d, b in zip(
            size, wanted, geometry.kernel, geometry.strides, geometry.dilations, before, strict=True
        )
    ]
    padded = functional.pad(x, (before[1], after[1], before[0], after[0]))
    patches = functional.unfold(
        padded, geometry.kernel, dilation=geometry.dilations, stride=geometry.strides
    )  # [n, C k k, positions]
    n, width, positions = patches.shape
    groups = operator.groups
    return (
        patches.reshape(n, groups, width // groups, positions)
        .permute(1, 0, 3, 2)
        .reshape(groups, n * positions, width // groups)
    )


def _inverse(scale: np.ndarray) -> Tensor:
    """1 / scale, float32; 0 for channels that a normalisation has switched off."""
    usable = np.abs(scale) > _SMALLEST_SCALE
    return torch.from_numpy(np.where(usable, 1 / np.where(usable, scale, 1), 0).astype(np.float32))
