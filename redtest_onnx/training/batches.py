"""Samples as batches of tensors, in an order that depends on the seed and the epoch alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from redtest_onnx.arrays import Indices
from redtest_onnx.bridge.dtypes import to_tensor
from redtest_onnx.data.batching import batches
from redtest_onnx.data.dataset import Dataset, Feeds, keeps_sizes
from redtest_onnx.graph.masks import Mask
from redtest_onnx.training.axes import SampleAxes
from redtest_onnx.training.positions import counted_positions

KEPT_BYTES = 1 << 30
"""Bytes of samples that are kept for the next epoch by default."""
_Cut = TypeVar("_Cut")
_Read = TypeVar("_Read")


@dataclass(frozen=True)
class Batch:
    """Some samples.

    Attributes:
        inputs: tensors by name of the model's inputs, with n samples along their own axes.
        labels: classes, int64 [n]; None without labels.
        size: n.
        count: how many of them count; the others fill up a fixed batch.
        counted: [n, positions] which positions of sequences count; None where all do.
    """

    inputs: dict[str, Tensor]
    labels: Tensor | None
    size: int
    count: int
    counted: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """The batch on a device."""
        labels, counted = (
            None if value is None else value.to(device) for value in (self.labels, self.counted)
        )
        inputs = {name: _placed(value, device) for name, value in self.inputs.items()}
        return Batch(inputs, labels, self.size, self.count, counted)

    def __len__(self) -> int:
        return self.size


class Samples:
    """Some samples of a data set, decoded once if they fit into a limit.

    Args:
        data: the data set.
        indices: which of its samples.
        batch_size: samples per step of training.
        fixed: the only number of samples the model takes at once; None if any.
        mask: which positions of sequences count; None where all do.
        limit: bytes of samples to keep.
        axes: of the model; a model that takes one sample a run is given each by itself.
    """

    def __init__(
        self,
        data: Dataset,
        indices: Indices,
        batch_size: int,
        fixed: int | None = None,
        mask: Mask | None = None,
        limit: int = KEPT_BYTES,
        axes: SampleAxes | None = None,
    ) -> None:
        self.data = data
        self.mask = mask
        self.indices = indices
        self._limit = limit
        self.batch_size = batch_size if fixed else min(batch_size, len(indices))
        self.fixed = fixed
        self.axes = axes or SampleAxes()
        self._keep = keeps_sizes(data)
        self._kept: Feeds | None = None
        self._alone: dict[int, Feeds] = {}
        self._left = limit
        self._read = np.zeros(len(indices), bool)

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def steps(self) -> int:
        """Batches in an epoch of training; samples beyond the last whole batch wait for another epoch."""
        return max(1, len(self.indices) // self.batch_size)

    def shuffled(
        self, seed: int, epoch: int, start: int = 0, share: tuple[int, int] = (0, 1)
    ) -> Iterator[tuple[Batch, ...]]:
        """The batches of an epoch of training, each in runs of the size that the model takes.

        Args:
            seed: of the order.
            epoch: gives each epoch an order of its own.
            start: the first batch to give.
            share: rank and number of processes; each gets its part of every batch.
        """
        order = np.random.default_rng((seed, epoch)).permutation(len(self.indices))
        rank, world = share
        order = np.resize(order, self.steps * self.batch_size)
        return _ahead(self._runs, [order[self._slice(k)][rank::world] for k in range(start, self.steps)])

    def in_order(self, share: tuple[int, int] = (0, 1)) -> Iterator[Batch]:
        """All samples once, for evaluation.

        Args:
            share: rank and number of processes; each gets every such batch.
        """
        rank, world = share
        size = self.fixed or self.batch_size
        cut = list(batches(np.arange(len(self.indices)), size, fixed=self.fixed is not None))
        return _ahead(lambda part: self._batch(*part), cut[rank::world])

    def alone(self, position: int) -> Batch:
        """One sample as the smallest batch that the model takes.

        Args:
            position: of the sample among these.
        """
        return self._batch(np.full(self.fixed or 1, position, np.int64), 1)

    def _slice(self, step: int) -> slice:
        return slice(step * self.batch_size, (step + 1) * self.batch_size)

    def _runs(self, positions: Indices) -> tuple[Batch, ...]:
        size = 1 if self.axes.one else self.fixed or max(len(positions), 1)
        # Each is read by itself: samples of a batch need not be as long as one another.
        parts = [positions[k : k + size] for k in range(0, max(len(positions), 1), size)]
        return tuple(self._batch(part, len(part)) for part in parts)

    def _batch(self, positions: Indices, count: int) -> Batch:
        labels = self.data.labels(self.indices[positions])
        feeds = self._inputs(positions)
        return Batch(
            {name: to_tensor(values) for name, values in feeds.items()},
            None if labels is None else torch.from_numpy(np.ascontiguousarray(labels)),
            len(positions),
            count,
            counted_positions(self.mask, feeds, self.axes),
        )

    def _inputs(self, positions: Indices) -> Feeds:
        if self.axes.one:
            return self._one(int(positions[0]))
        missing = np.unique(positions[~self._read[positions]])
        if self._keep and len(missing):
            self._read_anew(missing)
        if not self._keep or self._kept is None:
            return self.data.inputs(self.indices[positions])
        return {name: self._rows(name, values, positions) for name, values in self._kept.items()}

    def _one(self, position: int) -> Feeds:
        """A sample that makes a run of its own; its sizes may be its own, too."""
        if position in self._alone:
            return self._alone[position]
        feeds = self.data.inputs(self.indices[[position]])
        size = sum(values.nbytes for values in feeds.values())
        if size <= self._left:
            self._alone[position] = feeds
            self._left -= size
        return feeds

    def _rows(
        self, name: str, values: npt.NDArray[np.generic], positions: Indices
    ) -> npt.NDArray[np.generic]:
        axis = self.axes.of_input(name)
        return values if axis is None else values.take(positions, axis)

    def _read_anew(self, missing: Indices) -> None:
        """Keep samples that were not read yet, or find out that none can be kept."""
        feeds = self.data.inputs(self.indices[missing])
        if not self._fit(feeds, len(missing)):
            self._keep, self._kept = False, None
            return
        if self._kept is None:
            self._kept = {name: self._storage(name, values) for name, values in feeds.items()}
        for name, values in feeds.items():
            axis = self.axes.of_input(name)
            if axis is not None:
                np.moveaxis(self._kept[name], axis, 0)[missing] = np.moveaxis(values, axis, 0)
        self._read[missing] = True

    def _storage(self, name: str, values: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """An array for an input of all samples; the values themselves where all share them."""
        axis = self.axes.of_input(name)
        if axis is None:
            return values
        return np.empty((*values.shape[:axis], len(self), *values.shape[axis + 1 :]), values.dtype)

    def _fit(self, feeds: Feeds, count: int) -> bool:
        """Whether samples can be kept: a part each, of the sizes that others have, and little in all."""
        size = 0.0
        for name, values in feeds.items():
            axis, kept = self.axes.of_input(name), None if self._kept is None else self._kept[name]
            if axis is None:
                if kept is not None and not np.array_equal(values, kept):
                    return False
                size += values.nbytes
                continue
            if values.ndim <= axis or values.shape[axis] != count:
                return False
            if kept is not None and _sizes_beside(values, axis) != _sizes_beside(kept, axis):
                return False
            size += values.nbytes / count * len(self)
        return self._kept is not None or size <= self._limit


def _sizes_beside(values: npt.NDArray[np.generic], axis: int) -> tuple[int, ...]:
    return (*values.shape[:axis], *values.shape[axis + 1 :])


def _ahead(read: Callable[[_Cut], _Read], cuts: Sequence[_Cut]) -> Iterator[_Read]:
    """Read each batch while the one before is worked on."""
    with ThreadPoolExecutor(1) as pool:
        coming = None
        for cut in cuts:
            loaded, coming = coming, pool.submit(read, cut)
            if loaded is not None:
                yield loaded.result()
        if coming is not None:
            yield coming.result()


def _placed(value: Tensor, device: torch.device) -> Tensor:
    """The tensor on a device, images with channels last."""
    return value.to(device, memory_format=torch.channels_last if value.dim() == 4 else torch.preserve_format)
