"""Tells sets of samples apart by what they hold, wherever their files lie."""

from __future__ import annotations

import hashlib

import numpy as np

from redtest_onnx.arrays import Indices
from redtest_onnx.data.dataset import Dataset

_INPUTS, _LABELS = 4, 256  # samples that are looked at


def fingerprint(data: Dataset) -> str:
    """A digest of the number of samples, of a few of them, first and last included, and of more labels.

    Args:
        data: at least one sample.

    Raises:
        InputError: one of them can't be read.
    """
    digest = hashlib.sha256(str(len(data)).encode())
    for k in _spread(len(data), _INPUTS):
        one = np.array([k])
        for name, value in sorted(data.inputs(one).items()):
            array = np.asarray(value)
            plain = repr(array.tolist()).encode() if array.dtype.hasobject else array.tobytes()
            digest.update(f"{name} {array.dtype} {array.shape}".encode() + plain)
    labels = data.labels(_spread(len(data), _LABELS))
    digest.update(b"" if labels is None else np.asarray(labels).tobytes())
    return digest.hexdigest()


def _spread(samples: int, count: int) -> Indices:
    """[count] or fewer of the samples, first and last included."""
    return np.unique(np.linspace(0, samples - 1, count).astype(np.int64))
