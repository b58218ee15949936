"""What a run returns, as rows that measures compare: samples first, classes last."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod
from typing import Any

import numpy as np

from redtest_onnx.arrays import Counted, Numbers
from redtest_onnx.runtime.outputs.kinds import JudgedTensor, ModelOutput

BATCH = 64
_BYTES = 1 << 26  # of the judged tensors of one run
_RUN_BYTES = 1 << 27  # of the activations of one run


def samples_per_run(
    outputs: Iterable[ModelOutput], sizes: Mapping[str, tuple[int, ...]], batch: int, activations: int = 0
) -> int:
    """How many samples a run takes so that it, and what is compared of it, needs little memory.

    Args:
        outputs: what is judged.
        sizes: of their tensors, for `batch` samples; those of unknown size are taken to be small.
        batch: samples that the sizes are for.
        activations: bytes of activations that such a run holds at a time.
    """
    judged = {tensor.name for output in outputs for tensor in output.tensors}
    each = sum(4 * prod(sizes[name]) for name in judged if name in sizes) / batch
    run = _RUN_BYTES * batch // max(activations, 1)
    return max(1, min(BATCH, int(_BYTES / max(each, 1)), run))


def rows_of(tensor: JudgedTensor, value: Any, size: int, count: int) -> Numbers | None:
    """The values of a tensor, [count, ..., classes]; None for what can only be compared element by element.

    Args:
        tensor: what it is.
        value: what a run returned: an array, or a list of arrays or tables.
        size: samples in the run.
        count: how many of them count; the others only fill up a fixed batch.
    """
    if tensor.kind == "elements" and not isinstance(value, list):
        return None
    array = _array(value, size)
    if array is None or array.dtype.kind not in "fiub":
        return None
    if tensor.kind == "elements" and array.dtype.kind != "f":
        return None
    if array.ndim == 0:
        return array.reshape(1, 1)
    if tensor.columns is not None:
        array = np.take(array, np.arange(*tensor.columns), axis=tensor.column_axis)
    axis = tensor.sample_axis
    if axis is not None and axis < 0:
        axis = None  # the whole tensor is one sample's: graphs of nodes and edges, one a run
    elif axis is None or axis >= array.ndim:
        # Where no axis was seen to grow, rows are what a user would take for them.
        axis = 0 if array.shape[0] % size == 0 else None
    elif array.shape[axis] % size:
        axis = None
    classes = None if tensor.axis is None else tensor.axis % array.ndim
    rest = [k for k in range(array.ndim) if k not in (axis, classes)]
    order = [*([] if axis is None else [axis]), *rest, *([] if classes in (None, axis) else [classes])]
    moved = array.transpose([k for k in order if k is not None])
    if axis is None:
        return moved[None]
    if moved.shape[0] != size:
        moved = moved.reshape(size, moved.shape[0] // size, *moved.shape[1:])
    return moved[:count]


def counted_positions(
    tensor: JudgedTensor, feeds: Mapping[str, Numbers], rows: Numbers, count: int
) -> Counted:
    """[count, T] which positions count, from a mask [N, T], ids with padding or lengths [N]; None: all.

    Args:
        tensor: what is judged.
        feeds: what the run was fed.
        rows: its values, samples first.
        count: how many samples count.
    """
    mask = feeds.get(tensor.mask or "")
    if mask is None or rows.ndim < 2:
        return None
    given = mask[:count]
    if len(given) != len(rows):
        return None
    if given.ndim == 2 and given.shape[1] == rows.shape[1]:
        found = given != (tensor.pad or 0)
    elif given.ndim == 1 and given.max(initial=0) <= rows.shape[1]:
        found = np.arange(rows.shape[1])[None, :] < given[:, None]
    else:
        return None
    # A sample that leaves everything out counts all the same: nothing may pass unseen.
    return np.asarray(found | ~found.any(axis=1, keepdims=True))


def without_uncounted(rows: Numbers, counted: Counted) -> Numbers:
    """The values with 0 at positions that don't count, so that they have no part in sums; NaN goes, too."""
    if counted is None or counted.all():
        return rows
    kept = counted.reshape(*counted.shape, *(1,) * (rows.ndim - counted.ndim))
    return np.where(kept, rows, np.zeros((), rows.dtype))


def _array(value: Any, size: int) -> Numbers | None:
    """Arrays as they are; of lists, what has a row per sample."""
    if isinstance(value, np.ndarray):
        return value if value.dtype.kind in "fiub" else None
    if not isinstance(value, list) or not value:
        return None
    if all(isinstance(item, dict) for item in value):
        return _table(value)
    if not all(isinstance(item, np.ndarray) and item.dtype.kind == "f" for item in value):
        return None
    if all(item.ndim and len(item) == size for item in value):
        return np.concatenate([item.reshape(size, -1) for item in value], axis=1)
    if len(value) % size == 0 and len({item.shape for item in value}) == 1:
        return np.stack([item.reshape(-1) for item in value]).reshape(size, -1)
    return np.concatenate([item.reshape(-1) for item in value])[None]


def _table(rows: list[dict[Any, Any]]) -> Numbers | None:
    keys = list(rows[0])
    if any(list(row) != keys for row in rows) or not all(
        isinstance(v, float | int) for v in rows[0].values()
    ):
        return None
    return np.array([[row[key] for key in keys] for row in rows], dtype=np.float64)
