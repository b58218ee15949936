"""Samples in NumPy files."""

from __future__ import annotations

import logging
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any, Self
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from redtest_onnx.data.dataset import Chosen, Feeds, check_finite
from redtest_onnx.data.inflated import InflatedArray
from redtest_onnx.data.npy import NpyHeader
from redtest_onnx.data.npz import Npz
from redtest_onnx.errors import InputError
from redtest_onnx.graph.model import Model, TensorSpec, dtype_name
from redtest_onnx.graph.reading import require_file
from redtest_onnx.graph.signature import batch_axes, takes_one_sample

log = logging.getLogger(__name__)

LABELS = "labels"
# What NumPy and zipfile let through from broken or encrypted files.
UNREADABLE = (
    *(OSError, ValueError, EOFError, RuntimeError, SyntaxError, TokenError, BadZipFile, zlib.error),
    *(struct.error, KeyError, NotImplementedError, OverflowError, MemoryError, RecursionError, TypeError),
)
CALIBRATION = "calibration"


@dataclass(frozen=True)
class InputArray:
    """The values of one input.

    Attributes:
        values: of all samples, in the layout of the input and perhaps in a wider type.
        axis: axis of the samples; None for values that all of them share.
        dtype: what the input takes.
        lifted: whether the axis of samples is none of the input, which takes one sample a run.
    """

    values: npt.NDArray[Any] | InflatedArray
    axis: int | None
    dtype: np.dtype[Any]
    lifted: bool = False

    def take(self, indices: Chosen) -> npt.NDArray[Any]:
        """The chosen samples in the type of the input."""
        if self.lifted:
            one = self.values.take(np.asarray(indices[:1]), 0)[0]
            return np.asarray(one, self.dtype, order="C")
        if self.axis is None:
            return np.array(self.values, self.dtype, order="C")
        chosen = self.values.take(np.asarray(indices), self.axis)
        return np.asarray(chosen, self.dtype, order="C")  # `take` has made a copy


@dataclass(frozen=True)
class ArrayData:
    """Arrays, one per model input, given in the types the model takes."""

    source: str
    arrays: Mapping[str, InputArray]
    classes: npt.NDArray[np.int64] | None
    count: int
    synthetic: bool = False

    @classmethod
    def in_memory(
        cls,
        source: str,
        arrays: Mapping[str, npt.NDArray[Any]],
        classes: npt.NDArray[np.int64] | None = None,
    ) -> Self:
        """Arrays [n, ...] of n samples each, in the types that the model takes."""
        inputs = {name: InputArray(values, 0, values.dtype) for name, values in arrays.items()}
        return cls(source, inputs, classes, len(next(iter(arrays.values()))))

    @property
    def labelled(self) -> bool:
        """Whether there are labels."""
        return self.classes is not None

    def __len__(self) -> int:
        return self.count

    def inputs(self, indices: Chosen) -> Feeds:
        """The chosen samples of every array."""
        try:
            feeds = {name: array.take(indices) for name, array in self.arrays.items()}
        except UNREADABLE as error:
            raise InputError(f"can't be read: {error}", where=self.source, hint="write it again") from error
        for name, values in feeds.items():
            axis = None if self.arrays[name].lifted else self.arrays[name].axis
            check_finite(
                name, values[None] if axis is None else np.moveaxis(values, axis, 0), indices, self.source
            )
        return feeds

    def labels(self, indices: Chosen) -> npt.NDArray[np.int64] | None:
        """Labels of the chosen samples."""
        return None if self.classes is None else self.classes[np.asarray(indices)]


def splits(path: Path) -> tuple[str, ...]:
    """Names of the splits in an .npz whose arrays are called SPLIT/NAME."""
    return _open(path).splits()


def open_npz(path: Path, model: Model, split: str | None = None) -> ArrayData:
    """Open an .npz with arrays named like the model's inputs, plain or in splits.

    Raises:
        InputError: unreadable, no such split, or arrays that don't fit the model's inputs.
    """
    file = _open(path)
    inputs = [spec.name for spec in model.inputs]
    found = file.splits((*inputs, LABELS))
    if split is None and CALIBRATION in found:
        split = CALIBRATION
    if split is not None and split not in found:
        raise InputError(
            f"has no split {split!r}", where=str(path), hint=f"it has {', '.join(found) or 'none'}"
        )
    prefix = f"{split}/" if split else ""
    inside = [name.removeprefix(prefix) for name in file.names if name.startswith(prefix)]
    names = [name for name in inside if "/" not in name or name in inputs]
    source = f"{path}:{split}" if split else str(path)
    _wanted(model, names, source, () if split else found)
    axes, one = batch_axes(model), takes_one_sample(model)
    try:
        arrays = {
            spec.name: fit_array(file.read(prefix + spec.name), spec, axes[spec.name], source, lifted=one)
            for spec in model.inputs
        }
        labels = file.read(prefix + LABELS) if LABELS in names else None
        labels = labels if labels is None or isinstance(labels, np.ndarray) else np.asarray(labels)
    except UNREADABLE as error:
        raise InputError(
            f"can't be read: {error}", where=str(path), hint="write it with numpy.savez"
        ) from error
    count = count_samples(arrays, source)
    return ArrayData(source, arrays, None if labels is None else check_labels(labels, count, source), count)


def open_arrays(
    given: npt.ArrayLike | Mapping[str, npt.ArrayLike], model: Model, source: str = "arrays"
) -> ArrayData:
    """Samples that are in memory.

    Args:
        given: arrays [n, ...] by name of the model's input, perhaps with `labels` [n]; or one array for a
            model with one input.
        model: what they are for.
        source: what messages call them.

    Raises:
        InputError: they don't fit the model's inputs.
    """
    if not isinstance(given, Mapping):
        if len(model.inputs) != 1:
            names = ", ".join(spec.name for spec in model.inputs)
            raise InputError(
                f"is one array, the model has {len(model.inputs)} inputs",
                where=source,
                hint=f"give a dictionary of arrays named {names}",
            )
        given = {model.inputs[0].name: given}
    arrays = {name: np.asarray(values) for name, values in given.items()}
    _wanted(model, list(arrays), source)
    axes = batch_axes(model)
    inputs = {
        spec.name: fit_array(arrays[spec.name], spec, axes[spec.name], source, lifted=takes_one_sample(model))
        for spec in model.inputs
    }
    count = count_samples(inputs, source)
    labels = arrays.get(LABELS)
    return ArrayData(source, inputs, None if labels is None else check_labels(labels, count, source), count)


def load_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """All arrays of an .npz.

    Raises:
        InputError: unreadable.
    """
    file = _open(path)
    try:
        return {name: np.asarray(file.read(name)) for name in file.names}
    except UNREADABLE as error:
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
        with path.open("rb") as file:
            header = NpyHeader.read(file)
            if header.offset + header.nbytes > file.seek(0, 2):
                raise ValueError("it is shorter than it says")
        order: Any = "F" if header.fortran else "C"
        array = (
            np.memmap(path, header.dtype, "r", offset=header.offset, shape=header.shape, order=order)
            if header.nbytes
            else np.zeros(header.shape, header.dtype)
        )
    except UNREADABLE as error:
        raise InputError(
            f"can't be read: {error}", where=str(path), hint="write it with numpy.save"
        ) from error
    spec = model.inputs[0]
    one = takes_one_sample(model)
    arrays = {spec.name: fit_array(array, spec, batch_axes(model)[spec.name], str(path), lifted=one)}
    return ArrayData(str(path), arrays, None, count_samples(arrays, str(path)))


def _wanted(model: Model, names: Sequence[str], source: str, splits: Sequence[str] = ()) -> list[str]:
    """Names of the model's inputs, after a check that there is an array for each."""
    wanted = [spec.name for spec in model.inputs]
    if missing := [name for name in wanted if name not in names]:
        holds = ", ".join(names) or ("nothing" if not splits else f"splits alone: {', '.join(splits)}")
        raise InputError(
            f"has no array {', '.join(map(repr, missing))}; it holds {holds}",
            where=source,
            hint=f"name the arrays like the model's inputs: {', '.join(wanted)}"
            + (f", or a split {CALIBRATION!r}" if splits else ""),
        )
    if unused := [name for name in names if name not in (*wanted, LABELS)]:
        log.warning("%s: no input is called %s; not used", source, ", ".join(map(repr, unused)))
    return wanted


def _open(path: Path) -> Npz:
    require_file(path)
    try:
        return Npz(path)
    except UNREADABLE as error:
        raise InputError(f"is not a readable .npz file ({error})", where=str(path)) from error


def count_samples(arrays: Mapping[str, InputArray], source: str) -> int:
    """Number of samples, the same in all arrays that have any."""
    counts = {name: a.values.shape[a.axis] for name, a in arrays.items() if a.axis is not None}
    if len(set(counts.values())) > 1:
        raise InputError(f"its arrays have different numbers of samples: {counts}", where=source)
    return next(iter(counts.values()), 1)


def fit_array(
    array: npt.NDArray[Any] | InflatedArray,
    spec: TensorSpec,
    axis: int | None,
    source: str,
    *,
    lifted: bool = False,
) -> InputArray:
    """The array for an input, after a check of its shape and type.

    Args:
        array: of all samples.
        spec: the input.
        axis: axis of the samples; None where all share the values.
        source: what messages call the data.
        lifted: whether the model takes one sample a run, so that samples may lie along an axis in front.

    Raises:
        InputError: shape or type doesn't fit.
    """
    shape = spec.shape or ()
    if lifted and array.ndim == len(shape) + 1:
        if not array.shape[0]:
            raise InputError(f"{spec.name!r} has no samples", where=source)
        one = fit_array(array.take(np.zeros(1, np.int64), 0)[0], spec, None, source)
        return InputArray(array, 0, one.dtype, lifted=True)
    declared = f"input {spec.name!r} is {spec}"
    if array.ndim != len(shape) or not all(
        not isinstance(dim, int) or dim == size
        for k, (dim, size) in enumerate(zip(shape, array.shape, strict=True))
        if k != axis
    ):
        raise InputError(
            f"{declared}, the data is {array.dtype}{list(array.shape)}",
            where=source,
            hint=_layout(spec, axis),
        )
    target = spec.numpy_dtype
    if array.dtype == target:
        return InputArray(array, axis, target)
    if array.dtype.kind == "f" and target.kind == "V":
        return InputArray(array, axis, target)  # bfloat16 and narrower, which .npz files can't hold
    if array.dtype.kind == "U" and target == np.dtype(object):
        return InputArray(array, axis, target)  # files without pickles hold strings of a fixed length
    if array.dtype.kind == target.kind and array.dtype.kind in "fiu":
        log.info("%s: %s is converted from %s to %s", source, spec.name, array.dtype, target)
        if target.kind in "iu" and array.size:
            limits = np.iinfo(str(target))
            if array.min() < limits.min or array.max() > limits.max:
                raise InputError(f"{declared}, the data holds values beyond that type", where=source)
        return InputArray(array, axis, target)
    raise InputError(
        f"{declared}, the data is {array.dtype}",
        where=source,
        hint=f"convert it to {dtype_name(spec.dtype)} as the model expects",
    )


def _layout(spec: TensorSpec, axis: int | None) -> str:
    if axis is None:
        return f"all samples share {spec.name!r}: give it in the shape the model takes"
    if axis == 0:
        return "samples come first, then the dimensions the model takes"
    return f"keep the order of the dimensions; samples are counted along dimension {axis}"


def check_labels(labels: npt.NDArray[Any], count: int, source: str) -> npt.NDArray[np.int64]:
    """Labels as integers, one per sample.

    Raises:
        InputError: they are something else.
    """
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise InputError(
            f"its labels are {labels.dtype}{list(labels.shape)}",
            where=source,
            hint=f"labels are {count} integers, one per sample",
        )
    return labels.astype(np.int64)
