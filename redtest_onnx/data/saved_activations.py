"""Activations read back from the files that `expose` writes: an .npz, a Parquet table, a folder of arrays."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from redtest_onnx.arrays import Numbers
from redtest_onnx.data.activation_files import INDEX
from redtest_onnx.data.arrays import UNREADABLE, load_arrays
from redtest_onnx.errors import InputError, RuntimeUnavailableError
from redtest_onnx.graph.reading import read_json


@dataclass(frozen=True, eq=False)
class SavedActivations:
    """Values of tensors for the same samples.

    Attributes:
        arrays: values by tensor, [n, ...], mapped from the file where it allows that; integers only where
            nothing is floating point.
        others: tensors of the file that are left out, with the reason.
    """

    arrays: dict[str, Numbers]
    others: tuple[tuple[str, str], ...]


def holds_activations(path: Path) -> bool:
    """Whether a path is meant as a file or folder of activations, not as a model."""
    return path.suffix.lower() in (".npz", ".parquet") or (path / INDEX).is_file()


def read_activations(path: Path, *, least: int = 2) -> SavedActivations:
    """The activations in a file or folder.

    Args:
        path: an .npz with one array [n, ...] per tensor, a Parquet table with a column of lists per tensor,
            or a folder with .npy files and `index.json`.
        least: how many tensors there must be.

    Raises:
        InputError: unreadable, or with too few tensors of the same samples.
        RuntimeUnavailableError: a Parquet table without pyarrow.
    """
    if path.is_dir():
        arrays = _folder(path)
    else:
        arrays = _parquet(path) if path.suffix.lower() == ".parquet" else load_arrays(path)
    kinds = "f" if any(array.dtype.kind == "f" for array in arrays.values()) else "fiu"
    lengths = Counter(len(array) for array in arrays.values() if array.ndim and array.dtype.kind in kinds)
    samples = max(lengths, key=lambda n: (lengths[n], n)) if lengths else 0
    kept: dict[str, Numbers] = {}
    others = []
    for name, array in arrays.items():
        if array.dtype.kind not in kinds:
            others.append((name, f"its values are {array.dtype}, not floating point"))
        elif not array.ndim or len(array) != samples:
            others.append((name, f"its sizes {list(array.shape)} are not those of {samples} samples"))
        else:
            kept[name] = array
    if len(kept) < least:
        raise InputError(
            f"holds {len(kept) or 'no'} tensor{'s' * (len(kept) != 1)} of activations, {least} needed",
            where=str(path),
            hint="write it with `expose` and @save, or with numpy.savez: one float array [n, ...] per layer",
        )
    return SavedActivations(kept, tuple(others))


def _folder(path: Path) -> dict[str, Numbers]:
    files = read_json(path / INDEX)
    if not isinstance(files, dict) or not all(
        isinstance(file, str) and Path(file).name == file for file in files.values()
    ):
        raise InputError(f"{INDEX} is not a list of files by tensor", where=str(path))
    try:
        return {name: np.load(path / file, mmap_mode="r", allow_pickle=False) for name, file in files.items()}
    except UNREADABLE as error:
        raise InputError(f"can't be read: {error}", where=str(path)) from error


def _parquet(path: Path) -> dict[str, Numbers]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise RuntimeUnavailableError(
            "reading Parquet needs pyarrow", hint='pip install "redtest-onnx[data]"'
        ) from error
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"can't be read: {error}", where=str(path)) from error
    found: dict[str, Numbers] = {}
    for field, column in zip(table.schema, table.columns, strict=True):
        if not pa.types.is_fixed_size_list(field.type):
            continue
        flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
        shape = json.loads((field.metadata or {}).get(b"shape", b"[-1]"))
        found[field.name] = flat.reshape(len(column), *shape)
    return found
