"""The least-squares problem of one linear operator: which rows it sees, and its solution as new weights."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from redtest_onnx.arrays import Counted, Float64s, Values
from redtest_onnx.graph.linear_operators import LinearOperator
from redtest_onnx.metrics.few_rows import FewRows
from redtest_onnx.metrics.least_squares import best_fit
from redtest_onnx.metrics.penalised import Diagnosis
from redtest_onnx.metrics.ridge import NormalEquations
from redtest_onnx.metrics.tiled import Each, in_turn
from redtest_onnx.pruning.repair.operator_rows import (
    BLOCK,
    OperatorRows,
    image_rows,
    in_channel_order,
    token_rows,
)
from redtest_onnx.pruning.repair.positions import counted_rows
from redtest_onnx.runtime.session import RunOptions
from redtest_onnx.runtime.session_room import return_memory
from redtest_onnx.runtime.threads import Beside, in_threads, thread_count

Gathered = tuple[Values, Values]
Number = TypeVar("Number", bound=np.generic)
Kind = TypeVar("Kind", NormalEquations, FewRows)
Pair = tuple[NormalEquations, NormalEquations] | tuple[FewRows, FewRows]
Item = TypeVar("Item")
Result = TypeVar("Result")

# Rows per unknown: far fewer than a last fit is worth tell good plans from bad.
RANKING_ROWS, SEARCHING_ROWS, FINAL_ROWS = 30, 50, 300
_SMALLEST_SCALE = 1e-6
_WIDE = 2048  # unknowns whose matrix takes 32 MiB
_WORTH_A_THREAD = 10**8  # operations of a product or solution; to hand a smaller one over takes longer
_HELD = 1 << 28  # bytes of the matrices that are factored at a time
CHECK_EVERY = 4
"""One sample in so many, of single samples one run in so many, chooses the penalty."""


@dataclass(frozen=True)
class Correction:
    """A change of what an operator adds to its target.

    Attributes:
        weight: [M, p] float64, one row per output channel, in the order of the operator's weights.
        bias: [M] float64.
        explained: share of the error at the target that it takes away.
        unknowns: size of the input, over all groups.
        rows: equations of one group.
        diagnosis: how well the fit is determined, if that was asked for.
    """

    weight: Float64s
    bias: Float64s
    explained: float
    unknowns: int
    rows: int
    diagnosis: Diagnosis | None = None


class Equations:
    """Equations for an operator's correction: those to fit to, and those that choose the penalty.

    Args:
        operator: the operator.
        samples: number of samples that will be added.
        options: threads that gather rows and form products, beside the one that adds them.
        density: rows per unknown; positions are sampled down to that.
        seed: of the positions that are taken where there are more than needed.
    """

    def __init__(
        self,
        operator: LinearOperator,
        samples: int,
        options: RunOptions,
        *,
        density: int = FINAL_ROWS,
        seed: int = 0,
    ) -> None:
        self._operator, self._samples = operator, samples
        self._density, self._seed = density, seed
        self._rng = np.random.default_rng(seed)
        self._pair: Pair | None = None
        self._sizes = (0, 0, 0)
        self._threads = options.threads
        # No method of this object: it would be kept alive by what it holds, and gigabytes with it.
        self._each: Each = partial(in_threads, threads=options.threads)
        self._sums: Beside[NormalEquations] = Beside(1)
        self._runs = 0

    def add(self, x: Values, error: Values, counted: Counted = None) -> bool:
        """Add what the operator reads and the error at its target; False if their shapes don't fit.

        Products may be formed after the call, in other threads: the arrays must not change any more.

        Args:
            x: what it reads, of some samples.
            error: at its target.
            counted: [n, positions] which positions of sequences are taken; all if None.
        """
        x, error = np.atleast_2d(x), np.atleast_2d(error)  # as in `operator_rows`
        rows = None if self._operator.geometry else counted_rows(x, counted)
        cut = len(x) - len(x) // CHECK_EVERY
        self._runs += 1
        if len(x) < CHECK_EVERY or len(error) != len(x):
            return self._add(x, error, rows, check=self._runs % CHECK_EVERY == 0)
        return all(
            self._add(x[part], error[part], None if rows is None else rows[part], check=bool(part.start))
            for part in (slice(cut), slice(cut, None))
        )

    def _add(self, x: Values, error: Values, counted: npt.NDArray[np.bool_] | None, *, check: bool) -> bool:
        operator = self._operator
        unknowns = operator.unknowns(x.shape)
        wanted = max(1, -(-self._density * unknowns // self._samples))
        if operator.geometry:
            run = image_rows(operator, x, error, wanted, self._rng)
        else:
            run = token_rows(x, error, counted, wanted, self._rng)
        if run is None:
            return False
        if self._pair is None:
            few = operator.groups == 1 and run.per_sample * self._samples < unknowns
            self._sizes = size = unknowns, len(operator.scale) // operator.groups, operator.groups
            self._pair = (
                (FewRows(self._each), FewRows(self._each))
                if few
                else (NormalEquations(*size, each=self._each), NormalEquations(*size, each=self._each))
            )
            p, q, groups = size
            if min(run.per_sample * len(x), BLOCK) * p * (p + 2 * q) * groups >= _WORTH_A_THREAD:
                self._sums = Beside(self._threads)
        part = self._pair[check]
        if isinstance(part, FewRows):
            for block in run.blocks:
                part.add(*run.gather(block))
        else:
            self._sum(part, run)
        return True

    def _sum(self, part: NormalEquations, run: OperatorRows) -> None:
        def summed(block: slice) -> NormalEquations:
            return part.sums(*run.gather(block))

        assert self._pair is not None
        assert isinstance(self._pair[0], NormalEquations)
        part.shift = self._pair[0].shift  # one for all rows
        blocks = iter(run.blocks)
        if part.shift is None:
            rows = run.gather(next(blocks))
            part.choose_shift(*rows)
            self._sums.do(partial(part.sums, *rows), part.include)
        for block in blocks:
            self._sums.do(partial(summed, block), part.include)

    def _each_penalty(self, part: NormalEquations | FewRows) -> Each:
        """Several penalties at a time where that is worth it, and their matrices are small enough."""
        unknowns, targets, groups = self._sizes
        size = min(part.rows, unknowns) if isinstance(part, FewRows) else unknowns
        at_once = min(thread_count(self._threads), _HELD // max(8 * size * size, 1))
        if at_once < 2 or size * size * (size + targets) * groups < _WORTH_A_THREAD:
            return in_turn
        return partial(in_threads, threads=at_once)

    def finish(self) -> None:
        """Wait until all that was added is summed up; `solve`, `merged` and `start_again` do so, too."""
        self._sums.finish()

    def merged(self, other: Equations) -> Equations:
        """These equations and those of other samples for the same operator."""
        self.finish()
        other.finish()
        if self._pair is None or other._pair is None:
            return other if self._pair is None else self
        found = copy(self)
        mine, more = self._pair, other._pair
        if isinstance(mine[0], FewRows) and isinstance(more[0], FewRows):
            found._pair = (mine[0].merged(more[0]), mine[1].merged(more[1]))
        else:  # texts of other lengths may give enough rows where the others don't
            mine, more = self._normal(mine), self._normal(more)
            found._pair = (mine[0].merged(more[0]), mine[1].merged(more[1]))
        return found

    def _normal(self, pair: Pair) -> tuple[NormalEquations, NormalEquations]:
        """The same rows as normal equations."""
        train, check = (
            part.added_to(NormalEquations(*self._sizes)) if isinstance(part, FewRows) else part
            for part in pair
        )
        return train, check

    def start_again(self) -> None:
        """Forget the errors; the same inputs, to be added again in the same order, are taken as known."""
        self.finish()
        self._rng = np.random.default_rng(self._seed)
        self._runs = 0
        if self._pair is not None:
            train, check = self._pair
            # Both are of one kind.
            self._pair = (train.without_targets(), check.without_targets())  # type: ignore[assignment]

    def solve(self, *, diagnose: bool = False) -> Correction | None:
        """The correction; None where none helps on the rows that check it.

        Args:
            diagnose: find out how well the fit is determined, which takes as long as to solve it.
        """
        self.finish()
        if self._pair is None:
            return None
        if isinstance(self._pair[0], FewRows):
            return self._solved(*self._pair, diagnose=diagnose)
        if self._pair[0].xy.shape[1] >= _WIDE:
            return_memory()  # of rows that were gathered: the matrices that come take much of it
        return self._solved(*self._pair, diagnose=diagnose)

    def _solved(self, train: Kind, check: Kind, *, diagnose: bool) -> Correction | None:
        intercept = self._operator.bias is not None
        fit = best_fit(train, check, intercept=intercept, each=self._each_penalty(train))
        if fit is None:
            return None
        known = train.merged(check).diagnose(fit, intercept=intercept) if diagnose else None
        return Correction(
            in_channel_order(fit.weight, self._operator.geometry),
            fit.bias.reshape(-1),
            float(fit.explained.mean()),
            fit.weight.shape[0] * fit.weight.shape[1],
            train.rows + check.rows,
            known,
        )


def usable_scale(scale: Float64s) -> npt.NDArray[np.bool_]:
    """[q] which channels a normalisation has not switched off."""
    return np.abs(scale) > _SMALLEST_SCALE


def inverse_scale(scale: Float64s) -> Float64s:
    """1 / scale; 0 for channels that a normalisation has switched off."""
    usable = usable_scale(scale)
    return np.where(usable, 1 / np.where(usable, scale, 1), 0)
