"""Samples in NumPy files."""

from __future__ import annotations

import logging
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from redtest_onnx.errors import InputError
from redtest_onnx.graph.model import Model, TensorSpec, dtype_name
from redtest_onnx.runtime.data import Chosen, Feeds, check_finite

log = logging.getLogger(__name__)

LABELS = "labels"
# What NumPy and zipfile let through from broken or encrypted files.
_UNREADABLE = (OSError, ValueError, EOFError, RuntimeError, SyntaxError, TokenError, BadZipFile, zlib.error)
CALIBRATION = "calibration"


@dataclass(frozen=True)
class ArrayData:
    """Arrays [n, ...], one per model input, in the types the model takes."""

    source: str
    arrays: Mapping[str, npt.NDArray[Any]]
    classes: npt.NDArray[np.int64] | None
    synthetic: bool = False

    @property
    def labelled(self) -> bool:
        """Whether there are labels."""
        return self.classes is not None

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def inputs(self, indices: Chosen) -> Feeds:
        """The chosen samples of every array."""
        feeds = {
            name: np.ascontiguousarray(array[np.asarray(indices)]) for name, array in self.arrays.items()
        }
        for name, values in feeds.items():
            check_finite(name, values, indices, self.source)
        return feeds

    def labels(self, indices: Chosen) -> npt.NDArray[np.int64] | None:
        """Labels of the chosen samples."""
        return None if self.classes is None else self.classes[np.asarray(indices)]


def splits(path: Path) -> tuple[str, ...]:
    """Names of the splits in an .npz whose arrays are called SPLIT/NAME."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
    except (OSError, BadZipFile) as error:
        raise InputError(f"is not a readable .npz file ({error})", where=str(path)) from error
    return tuple(dict.fromkeys(name.split("/")[0] for name in names if "/" in name))


def open_npz(path: Path, model: Model, split: str | None = None) -> ArrayData:
    """Open an .npz with arrays named like the model's inputs, plain or in splits.

    Raises:
        InputError: unreadable, no such split, or arrays that don't fit the model's inputs.
    """
    found = splits(path)
    if split is None and CALIBRATION in found:
        split = CALIBRATION
    if split is not None and split not in found:
        raise InputError(
            f"has no split {split!r}", where=str(path), hint=f"it has {', '.join(found) or 'none'}"
        )
    prefix = f"{split}/" if split else ""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {
                name.removeprefix(prefix): archive[name]
                for name in archive.files
                if name.startswith(prefix) and "/" not in name.removeprefix(prefix)
            }
    except _UNREADABLE as error:
        raise InputError(
            f"can't be read: {error}", where=str(path), hint="write it with numpy.savez"
        ) from error
    source = f"{path}:{split}" if split else str(path)
    labels = arrays.pop(LABELS, None)
    wanted = [spec.name for spec in model.inputs]
    if missing := [name for name in wanted if name not in arrays]:
        raise InputError(
            f"has no array {', '.join(map(repr, missing))}; it holds {', '.join(arrays) or 'nothing'}",
            where=source,
            hint=f"name the arrays like the model's inputs: {', '.join(wanted)}",
        )
    fitted = {spec.name: _fit(arrays[spec.name], spec, source) for spec in model.inputs}
    counts = {name: len(array) for name, array in fitted.items()}
    if len(set(counts.values())) > 1:
        raise InputError(f"its arrays have different numbers of samples: {counts}", where=source)
    classes = None if labels is None else _classes(labels, next(iter(counts.values())), source)
    return ArrayData(source, fitted, classes)


def load_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """All arrays of an .npz.

    Raises:
        InputError: unreadable.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except _UNREADABLE as error:
        raise InputError(
            f"can't be read: {error}", where=str(path), hint="write it with numpy.savez"
        ) from error


def open_npy(path: Path, model: Model) -> ArrayData:
    """Open an .npy file for a model with one input.

    Raises:
        InputError: unreadable, or it doesn't fit the model.
    """
    if len(model.inputs) != 1:
        names = ", ".join(spec.name for spec in model.inputs)
        raise InputError(
            f"holds one array, the model has {len(model.inputs)} inputs",
            where=str(path),
            hint=f"write an .npz with arrays named {names}",
        )
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except _UNREADABLE as error:
        raise InputError(
            f"can't be read: {error}", where=str(path), hint="write it with numpy.save"
        ) from error
    spec = model.inputs[0]
    return ArrayData(str(path), {spec.name: _fit(array, spec, str(path))}, None)


def _fit(array: npt.NDArray[Any], spec: TensorSpec, source: str) -> npt.NDArray[Any]:
    """The array in the type of the input, after a check of its shape."""
    shape = spec.shape or ()
    declared = f"input {spec.name!r} is {spec}"
    fits = array.ndim == len(shape) and all(
        not isinstance(dim, int) or dim == size for dim, size in zip(shape[1:], array.shape[1:], strict=True)
    )
    if not array.ndim or not fits:
        raise InputError(
            f"{declared}, the data is {array.dtype}{list(array.shape)}",
            where=source,
            hint="samples come first, then the dimensions the model takes",
        )
    target = spec.numpy_dtype
    if array.dtype == target:
        return array
    if array.dtype.kind == target.kind and array.dtype.kind in "fiu":
        log.info("%s: %s is converted from %s to %s", source, spec.name, array.dtype, target)
        converted = array.astype(target)
        if target.kind in "iu" and not np.array_equal(converted, array):
            raise InputError(f"{declared}, the data holds values beyond that type", where=source)
        return converted
    raise InputError(
        f"{declared}, the data is {array.dtype}",
        where=source,
        hint=f"convert it to {dtype_name(spec.dtype)} as the model expects",
    )


def _classes(labels: npt.NDArray[Any], count: int, source: str) -> npt.NDArray[np.int64]:
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise InputError(
            f"its labels are {labels.dtype}{list(labels.shape)}",
            where=source,
            hint=f"labels are {count} integers, one per sample",
        )
    return labels.astype(np.int64)
