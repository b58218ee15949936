"""Products in tiles against whole ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pytest

from redtest_onnx.metrics import tiled
from redtest_onnx.metrics.tiled import Item, Result, gram, transposed_product
from redtest_onnx.runtime.threads import in_threads


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiled, "_TILE", 4)
    monkeypatch.setattr(tiled, "_DEPTH", 5)


@pytest.mark.parametrize(("n", "p"), [(1, 1), (4, 5), (11, 13), (3, 0), (0, 4)])
def test_tiles_make_the_whole_product(n: int, p: int) -> None:
    rng = np.random.default_rng(n)
    rows, right = rng.normal(size=(n, p)), rng.normal(size=(n, 3))
    found = gram(rows)
    np.testing.assert_allclose(found, rows @ rows.T, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_allclose(transposed_product(rows, right), rows.T @ right, rtol=1e-12, atol=1e-12)


def test_parts_in_single_precision_are_added_up_in_double() -> None:
    rows = np.zeros((2, 10), np.float32)
    rows[:, :5], rows[:, 5:] = 2.0**12, 2.0**-3  # a float32 sum of all would lose the small ones
    assert gram(rows)[0, 1] == 5 * 2.0**24 + 5 * 2.0**-6


def test_threads_change_no_bit() -> None:
    rng = np.random.default_rng(0)
    rows, right = rng.normal(size=(30, 20)).astype(np.float32), rng.normal(size=(30, 3))

    def on_two(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        return in_threads(function, items, 2)

    np.testing.assert_array_equal(gram(rows, on_two), gram(rows))
    np.testing.assert_array_equal(transposed_product(rows, right, on_two), transposed_product(rows, right))
