"""The order in which samples are learnt from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest

pytest.importorskip("torch", reason="distillation needs PyTorch")

from redtest_onnx.data.dataset import Feeds
from redtest_onnx.graph.masks import Mask
from redtest_onnx.training.distil.samples import DistilSamples


@dataclass
class Lengths:
    """Texts of given lengths, padded to the longest of a run."""

    lengths: np.ndarray
    source: str = "lengths"
    synthetic: bool = False

    def __len__(self) -> int:
        return len(self.lengths)

    def inputs(self, indices: np.ndarray) -> Feeds:
        own = self.lengths[indices]
        return {"mask": (np.arange(own.max())[None] < own[:, None]).astype(np.int64)}

    def labels(self, indices: np.ndarray) -> None:
        return None


def samples(mask: Mask | None) -> DistilSamples:
    lengths = np.random.default_rng(3).integers(1, 60, 200)
    return DistilSamples(Lengths(lengths), np.arange(199, 39, -1), np.arange(40), mask)


def padding(drawn: list[np.ndarray], side: DistilSamples) -> float:
    """Share of the positions that don't count."""
    masks = [side.data.inputs(side.fit[rows])["mask"] for rows in drawn]
    return 1 - sum(mask.sum() for mask in masks) / sum(mask.size for mask in masks)


def test_all_samples_come_before_any_comes_again() -> None:
    for mask in (None, Mask("mask")):
        drawn = list(samples(mask).drawn(np.random.default_rng(0), 20, 24))
        assert {rows.shape for rows in drawn} == {(20,)}
        epochs = np.concatenate(drawn).reshape(3, 160)
        for epoch in epochs:
            assert sorted(epoch) == list(range(160))
        assert not np.array_equal(epochs[0], epochs[1])


def test_texts_of_like_lengths_come_together() -> None:
    draws = partial(DistilSamples.drawn, size=20, steps=16)
    mixed = list(draws(samples(None), np.random.default_rng(0)))
    dealt = list(draws(samples(Mask("mask")), np.random.default_rng(0)))
    assert padding(dealt, samples(None)) < 0.2 < 0.4 < padding(mixed, samples(None))
    means = [samples(None).data.inputs(samples(None).fit[rows])["mask"].sum() for rows in dealt[:8]]
    assert means != sorted(means)  # short ones are not always first


def test_by_length_sorts_rows_of_those_that_are_learnt_from() -> None:
    side = samples(Mask("mask"))
    rows = np.array([5, 0, 77, 31])
    ordered = side.by_length(rows, 3)
    lengths = side.data.lengths[side.fit[ordered]]  # type: ignore[attr-defined]
    assert lengths.tolist() == sorted(lengths.tolist())
    assert sorted(ordered) == sorted(rows)
    np.testing.assert_array_equal(samples(None).by_length(rows, 3), rows)
