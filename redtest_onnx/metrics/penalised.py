"""Symmetric systems with a penalty on the diagonal: their solution, and how well they determine it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from redtest_onnx.arrays import Float64s
from redtest_onnx.metrics.lapack import factored, substitute
from redtest_onnx.metrics.tiled import Each, in_tiles, in_turn

Fresh = Callable[[int], Float64s]
"""Gives the symmetric matrix of a group, C-contiguous and new each time: it is overwritten."""

_BLOCKED = 64  # columns that LDL' factors at a time
_RIGHT_HAND_SIDES = 256  # right-hand sides that are solved for by one call


@dataclass(frozen=True)
class Diagnosis:
    """How well a fit is determined.

    Attributes:
        condition: condition number (1-norm, LAPACK's estimate) of the worst regularised normal matrix.
        rank: directions of x that carry more than the penalty, over all groups.
    """

    condition: float
    rank: int


def solved(
    matrix: Fresh,
    penalty: Float64s,
    right: Float64s,
    usable: npt.NDArray[np.bool_],
    each: Each = in_turn,
) -> Float64s:
    """(matrix + penalty I)^-1 right of every usable group by Cholesky's factors; zero in the others.

    Args:
        matrix: of each group, [p, p].
        penalty: [groups].
        right: [groups, p, q].
        usable: [groups].
        each: solves for some of the right-hand sides at a time.
    """
    found = np.zeros_like(right)
    for group in map(int, np.flatnonzero(usable)):
        regular = _raised(matrix(group), float(penalty[group]))
        if factored(regular):
            found[group] = _substituted(regular, right[group], each)
        else:
            found[group] = _by_spectrum(matrix(group), float(penalty[group]), right[group])
    return found


def _substituted(factor: Float64s, right: Float64s, each: Each) -> Float64s:
    """[p, q] solutions, by the factor of a matrix."""
    found = right.T.copy()
    in_tiles(lambda part: substitute(factor, found[part]), len(found), each, _RIGHT_HAND_SIDES)
    return found.T


def _raised(matrix: Float64s, penalty: float) -> Float64s:
    """[p, p] the same matrix, with the penalty added to its diagonal."""
    matrix.reshape(-1)[:: len(matrix) + 1] += penalty
    return matrix


def _by_spectrum(matrix: Float64s, penalty: float, right: Float64s) -> Float64s:
    """The same where rounding left eigenvalues below zero that the penalty doesn't lift."""
    values, vectors = np.linalg.eigh(matrix)
    values = np.maximum(values, 0) + penalty
    floor = values[-1] * len(values) * np.finfo(np.float64).eps
    inverse = np.where(values > floor, 1 / np.where(values > floor, values, 1), 0)
    found: Float64s = vectors @ ((vectors.T @ right) * inverse[:, None])
    return found


def explained(weight: Float64s, xy: Float64s, penalty: Float64s, energy: Float64s) -> Float64s:
    """Share of the energy that a solution explains: 2 <W, xy> - <W, xx W>, where xx W = xy - lambda W."""
    gained = np.einsum("gpq,gpq->g", weight, xy) + penalty * np.square(weight).sum(axis=(1, 2))
    return np.where(energy > 0, gained / np.where(energy > 0, energy, 1), 0.0)


def diagnosis(matrix: Fresh, penalty: Float64s, unknowns: int) -> Diagnosis:
    """Condition of the regularised matrices, and how many eigenvalues exceed the penalty.

    The count is the inertia of matrix - penalty I (Sylvester's law), read off its LDL' factors.

    Args:
        matrix: of each group, [p, p].
        penalty: [groups].
        unknowns: of one group.
    """
    from scipy.linalg import lapack

    condition, rank = 1.0, 0
    calls: tuple[Callable[..., Any], ...] = lapack.dlange, lapack.dpotrf, lapack.dsytrf
    norm_of, factor, factor_indefinite = calls
    for group, ridge in enumerate(map(float, penalty)):
        values = matrix(group)
        if not values.size or np.trace(values) <= 0:
            continue
        regular = _raised(values, ridge).T
        norm = norm_of("1", regular)
        lower, info = factor(regular, lower=1, overwrite_a=1)
        if info == 0:
            reciprocal, _ = lapack.dpocon(lower, norm, uplo="L")
            condition = max(condition, 1 / max(float(reciprocal), np.finfo(np.float64).tiny))
        del values, regular, lower
        below = _raised(matrix(group), -ridge).T
        ldl, pivots, _ = factor_indefinite(below, lower=1, lwork=_BLOCKED * len(below), overwrite_a=1)
        rank += _positive(ldl, pivots)
    return Diagnosis(condition, min(rank, unknowns * len(penalty)))


def _positive(ldl: Float64s, pivots: npt.NDArray[np.int32]) -> int:
    """Number of positive eigenvalues of the block-diagonal factor; a block of two has one of each sign."""
    diagonal = np.diagonal(ldl)
    pairs = int(np.sum(pivots < 0)) // 2
    return int(np.sum((pivots > 0) & (diagonal > 0))) + pairs
