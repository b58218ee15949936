from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redtest_onnx.pruning.criteria.segmentation import fisher_segments


def cost(values: list[float], segments: list[range]) -> float:
    return sum(float(np.var(values[s.start : s.stop]) * len(s)) for s in segments)


@given(
    st.lists(st.floats(-100, 100), min_size=1, max_size=9).flatmap(
        lambda v: st.tuples(st.just(v), st.integers(1, len(v)))
    )
)
def test_no_other_cut_is_better(case: tuple[list[float], int]) -> None:
    values, count = case
    found = fisher_segments(values, count)
    assert [k for part in found for k in part] == list(range(len(values)))
    assert len(found) == count
    assert all(len(part) for part in found)
    cuts = combinations(range(1, len(values)), count - 1)
    every = ([range(a, b) for a, b in zip((0, *c), (*c, len(values)), strict=True)] for c in cuts)
    assert cost(values, found) <= min(cost(values, parts) for parts in every) + 1e-6


def test_steps_are_found() -> None:
    assert fisher_segments([1, 1, 1, 5, 5, 9], 3) == [range(3), range(3, 5), range(5, 6)]


@pytest.mark.parametrize("count", [0, 4])
def test_impossible_numbers_of_segments(count: int) -> None:
    with pytest.raises(ValueError, match="segments of 3"):
        fisher_segments([1, 2, 3], count)
