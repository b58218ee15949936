"""Samples as batches of tensors, in an order that depends on the seed and the epoch alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from redtest_onnx.bridge.dtypes import to_tensor
from redtest_onnx.data.batching import Indices, batches
from redtest_onnx.data.dataset import Dataset, Feeds, keeps_sizes
from redtest_onnx.graph.masks import Mask
from redtest_onnx.training.positions import counted_positions

KEPT_BYTES = 1 << 30
"""Bytes of samples that are kept for the next epoch by default."""


@dataclass(frozen=True)
class Batch:
    """Some samples.

    Attributes:
        inputs: tensors [n, ...] by name of the model's inputs.
        labels: classes, int64 [n]; None without labels.
        count: how many of them count; the others fill up a fixed batch.
        counted: [n, positions] which positions of sequences count; None where all do.
    """

    inputs: dict[str, Tensor]
    labels: Tensor | None
    count: int
    counted: Tensor | None = None

    def parts(self, size: int | None) -> Iterator[Batch]:
        """The batch in pieces of a size; the batch itself without one."""
        if size is None or size >= len(self):
            yield self
            return
        for start in range(0, len(self), size):
            cut = slice(start, start + size)
            inputs = {name: value[cut] for name, value in self.inputs.items()}
            yield Batch(inputs, _part(self.labels, cut), size, _part(self.counted, cut))

    def to(self, device: torch.device) -> Batch:
        """The batch on a device."""
        labels, counted = (
            None if value is None else value.to(device) for value in (self.labels, self.counted)
        )
        inputs = {name: _placed(value, device) for name, value in self.inputs.items()}
        return Batch(inputs, labels, self.count, counted)

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))


class Samples:
    """Some samples of a data set, decoded once if they fit into a limit.

    Args:
        data: the data set.
        indices: which of its samples.
        batch_size: samples per step of training.
        fixed: the only number of samples the model takes at once; None if any.
        mask: which positions of sequences count; None where all do.
        limit: bytes of samples to keep.
    """

    def __init__(
        self,
        data: Dataset,
        indices: Indices,
        batch_size: int,
        fixed: int | None = None,
        mask: Mask | None = None,
        limit: int = KEPT_BYTES,
    ) -> None:
        self.data = data
        self.mask = mask
        self.indices = indices
        self._limit = limit
        self.batch_size = batch_size if fixed else min(batch_size, len(indices))
        self.fixed = fixed
        self._keep = keeps_sizes(data)
        self._kept: Feeds | None = None
        self._read = np.zeros(len(indices), bool)

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def steps(self) -> int:
        """Batches in an epoch of training; samples beyond the last whole batch wait for another epoch."""
        return max(1, len(self.indices) // self.batch_size)

    def shuffled(
        self, seed: int, epoch: int, start: int = 0, share: tuple[int, int] = (0, 1)
    ) -> Iterator[Batch]:
        """The batches of an epoch of training.

        Args:
            seed: of the order.
            epoch: gives each epoch an order of its own.
            start: the first batch to give.
            share: rank and number of processes; each gets its part of every batch.
        """
        order = np.random.default_rng((seed, epoch)).permutation(len(self.indices))
        rank, world = share
        cut = [
            (part, len(part))
            for k in range(start, self.steps)
            for part in [np.resize(order, self.steps * self.batch_size)[self._slice(k)][rank::world]]
        ]
        return self._load(cut)

    def in_order(self, share: tuple[int, int] = (0, 1)) -> Iterator[Batch]:
        """All samples once, for evaluation.

        Args:
            share: rank and number of processes; each gets every such batch.
        """
        rank, world = share
        size = self.fixed or self.batch_size
        cut = list(batches(np.arange(len(self.indices)), size, fixed=self.fixed is not None))
        return self._load(cut[rank::world])

    def alone(self, position: int) -> Batch:
        """One sample as the smallest batch that the model takes.

        Args:
            position: of the sample among these.
        """
        return self._batch(np.full(self.fixed or 1, position, np.int64), 1)

    def _slice(self, step: int) -> slice:
        return slice(step * self.batch_size, (step + 1) * self.batch_size)

    def _load(self, cut: Sequence[tuple[Indices, int]]) -> Iterator[Batch]:
        """Read each batch while the one before is worked on."""
        with ThreadPoolExecutor(1) as pool:
            coming = None
            for positions, count in cut:
                loaded, coming = coming, pool.submit(self._batch, positions, count)
                if loaded is not None:
                    yield loaded.result()
            if coming is not None:
                yield coming.result()

    def _batch(self, positions: Indices, count: int) -> Batch:
        labels = self.data.labels(self.indices[positions])
        feeds = self._inputs(positions)
        return Batch(
            {name: to_tensor(values) for name, values in feeds.items()},
            None if labels is None else torch.from_numpy(np.ascontiguousarray(labels)),
            count,
            counted_positions(self.mask, feeds),
        )

    def _inputs(self, positions: Indices) -> Feeds:
        missing = np.unique(positions[~self._read[positions]])
        if self._keep and len(missing):
            self._read_anew(missing)
        if not self._keep or self._kept is None:
            return self.data.inputs(self.indices[positions])
        return {name: values[positions] for name, values in self._kept.items()}

    def _read_anew(self, missing: Indices) -> None:
        """Keep samples that were not read yet, or find out that none can be kept."""
        feeds = self.data.inputs(self.indices[missing])
        if not self._fit(feeds, len(missing)):
            self._keep, self._kept = False, None
            return
        if self._kept is None:
            self._kept = {k: np.empty((len(self), *v.shape[1:]), v.dtype) for k, v in feeds.items()}
        for name, values in feeds.items():
            self._kept[name][missing] = values
        self._read[missing] = True

    def _fit(self, feeds: Feeds, count: int) -> bool:
        """Whether samples can be kept: a row each, of the sizes that others have, and little in all."""
        if any(not values.ndim or len(values) != count for values in feeds.values()):
            return False
        if self._kept is not None:
            return all(values.shape[1:] == self._kept[name].shape[1:] for name, values in feeds.items())
        return sum(values.nbytes for values in feeds.values()) / count * len(self) <= self._limit


def _part(value: Tensor | None, cut: slice) -> Tensor | None:
    return None if value is None else value[cut]


def _placed(value: Tensor, device: torch.device) -> Tensor:
    """The tensor on a device, images with channels last."""
    return value.to(device, memory_format=torch.channels_last if value.dim() == 4 else torch.preserve_format)
