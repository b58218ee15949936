"""Which weights stay: the smallest magnitudes of each group go, as many as a rule says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal, Protocol, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from redtest_onnx.arrays import Counts
from redtest_onnx.errors import InputError
from redtest_onnx.metrics.pqi import PowerSums, power_sums

Scope = Literal["neuron", "layer", "global"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

Rows: TypeAlias = npt.NDArray[Any]
"""[neurons, inputs] weights of a tensor."""
Mask: TypeAlias = npt.NDArray[np.bool_]
"""[neurons, inputs], True where a weight stays."""


class PruningRule(Protocol):
    """How many weights of each group go."""

    @property
    def exponents(self) -> tuple[float, float]:
        """The p and q of the sums that `counts` looks at."""

    def counts(self, sums: PowerSums) -> Counts:
        """[groups] how many of the weights that are left go."""


@dataclass(frozen=True)
class Amount:
    """A fixed share of the weights that are left, as one-shot pruning and the lottery ticket take.

    Attributes:
        share: of each group, from 0 to 1; rounded down to whole weights.

    Raises:
        InputError: the share is out of range.
    """

    share: float

    exponents = (1.0, 2.0)

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise InputError(f"an amount is between 0 and 1, got {self.share}", hint="0.5 prunes half")

    def counts(self, sums: PowerSums) -> Counts:
        """The share of each group."""
        return np.floor(np.asarray(sums.count) * self.share + _ROUNDING).astype(np.int64)


@dataclass(frozen=True)
class Bound:
    """What the PQ Index says a group can spare (Diao et al. 2023, arXiv 2302.05601, algorithm 2).

    c = floor(d * clamp(gamma (1 - r / d), 0, beta)) with the retained bound r of theorem 3.3. A group whose
    index is undefined spares nothing.

    Attributes:
        p: smaller exponent.
        q: larger exponent.
        eta: how much the bound lets be removed, see `metrics.pqi.retained`.
        gamma: factor on what can be spared.
        beta: largest share of a group that goes at once.
    """

    p: float = 0.5
    q: float = 1.0
    eta: float = 0.0
    gamma: float = 1.0
    beta: float = 0.9

    def __post_init__(self) -> None:
        if not (self.gamma >= 0 and 0 <= self.beta <= 1):
            raise InputError(
                f"gamma must be at least 0 and beta between 0 and 1, got {self.gamma} and {self.beta}",
                hint="the papers' values are 1 and 0.9",
            )
        power_sums(np.ones(1), self.p, self.q).retained(self.eta)  # refuses what is out of range

    @property
    def exponents(self) -> tuple[float, float]:
        """p and q."""
        return self.p, self.q

    def counts(self, sums: PowerSums) -> Counts:
        """What each group spares."""
        size = np.asarray(sums.count, np.float64)
        kept = np.where(np.isnan(held := sums.retained(self.eta)), size, held)
        share = np.clip(self.gamma * (1 - kept / np.maximum(size, 1)), 0, self.beta)
        return np.floor(size * share + _ROUNDING).astype(np.int64)


# A product of a whole number and a share that should be whole may fall just below it.
_ROUNDING = 1e-9


def prune_smallest(
    read: Callable[[int], Rows], masks: Sequence[Mask], scope: Scope, rule: PruningRule
) -> list[Mask]:
    """Take the smallest weights out of each group.

    With scopes "neuron" and "layer" one tensor is looked at a time; "global" holds the magnitudes of all.
    Among equal magnitudes the first go.

    Args:
        read: gives the weights of tensor k.
        masks: of each tensor: what is left so far; not changed.
        scope: what a group is: a neuron, a tensor, or all weights.
        rule: how many go.

    Returns:
        The new masks, never larger than the old ones.
    """
    if scope == "global":
        return _prune_globally(read, masks, rule)
    return [_prune_tensor(read(k), mask, rule, whole=scope == "layer") for k, mask in enumerate(masks)]


def _prune_tensor(rows: Rows, mask: Mask, rule: PruningRule, *, whole: bool) -> Mask:
    """Prune within each row, or within the tensor."""
    groups, kept = (rows.reshape(1, -1), mask.reshape(1, -1)) if whole else (rows, mask)
    counts = rule.counts(power_sums(groups, *rule.exponents, axis=1, mask=kept))
    magnitudes = np.where(kept, np.abs(groups.astype(np.float64)), np.inf)
    order = np.argsort(magnitudes, axis=1, kind="stable")
    goes = np.zeros(groups.shape, np.bool_)
    np.put_along_axis(goes, order, np.arange(groups.shape[1]) < counts[:, None], axis=1)
    return (kept & ~goes).reshape(mask.shape)


def _prune_globally(read: Callable[[int], Rows], masks: Sequence[Mask], rule: PruningRule) -> list[Mask]:
    sums: list[PowerSums] = []
    parts: list[Rows] = []
    for k, mask in enumerate(masks):
        rows = read(k)
        sums.append(power_sums(rows, *rule.exponents, mask=mask))
        parts.append(_magnitudes(rows[mask]))
    count = int(rule.counts(reduce(PowerSums.merged, sums)))
    if count == 0:
        return [mask.copy() for mask in masks]
    magnitudes = np.concatenate(parts)
    threshold = np.partition(magnitudes, count - 1)[count - 1]
    ties = count - int(np.count_nonzero(magnitudes < threshold))
    result = []
    for mask, part in zip(masks, parts, strict=True):
        equal = part == threshold
        first = equal & (np.cumsum(equal) <= ties)
        ties -= int(np.count_nonzero(first))
        new = mask.copy()
        new[mask] = ~((part < threshold) | first)
        result.append(new)
    return result


def _magnitudes(values: Rows) -> Rows:
    """Absolute values; types narrower than float32 widened, which is exact."""
    wide = values if values.dtype in (np.float32, np.float64) else values.astype(np.float32)
    magnitudes: Rows = np.abs(wide)
    return magnitudes
