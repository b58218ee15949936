"""Inputs of a run in a file, for a process that runs a model in our place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from redtest_onnx.data.dataset import Feeds

_NAMES = "names"


def write_feeds(path: Path, feeds: Feeds) -> None:
    """Write inputs of a model, which may have any name, as an .npz without objects.

    Args:
        path: the file.
        feeds: by input; texts get a fixed length, types that NumPy lacks become float32.
    """
    names = np.array([*feeds], np.str_) if feeds else np.empty(0, "U1")
    arrays = {f"{k}": _storable(np.asarray(array)) for k, array in enumerate(feeds.values())}
    np.savez(path, allow_pickle=False, **{_NAMES: names, **arrays})


def read_feeds(path: Path) -> Feeds:
    """Read what `write_feeds` wrote."""
    with np.load(path, allow_pickle=False) as archive:
        return {str(name): archive[f"{k}"] for k, name in enumerate(archive[_NAMES])}


def _storable(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if array.dtype.kind == "V":
        return array.astype(np.float32)
    return array.astype(np.str_) if array.dtype.kind == "O" else array
