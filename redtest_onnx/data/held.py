"""Samples that a program holds: arrays, dicts, lists, iterables of batches, loaders and data sets."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from redtest_onnx.data.arrays import ArrayData, check_labels, count_samples, fit_array, open_arrays
from redtest_onnx.data.dataset import Dataset
from redtest_onnx.data.image_pipeline import ImageOptions, ImagePipeline
from redtest_onnx.data.records import Record, RecordData, check_names
from redtest_onnx.errors import InputError
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.signature import batch_axes

log = logging.getLogger(__name__)

LABELS = ("labels", "label")
_MOST = 50_000
"""Samples that are taken from an iterable, which may never end."""
_IN_MEMORY = 1 << 28
"""Bytes of one input's values that are kept in memory; more go to a temporary file."""


def from_held(source: Any, model: Model, images: ImageOptions, name: str = "data") -> Dataset:
    """Samples from what a program holds.

    Args:
        source: a `Dataset` of ours; an array [n, ...] for a model with one input; a mapping from inputs to
            arrays, perhaps with `labels`; a pair (arrays, labels); a list of samples; anything with `len` and
            integer indices, such as a torch or Hugging Face data set, which gives samples; or any iterable of
            batches, such as a torch DataLoader. A sample or batch is an array, a mapping, or a tuple of one
            value per input, perhaps followed by the label. Images of Pillow are prepared like files.
        model: what they are for.
        images: how images become inputs.
        name: what messages call the argument.

    Raises:
        InputError: nothing of these, or values that don't fit the model's inputs.
    """
    if all(hasattr(source, attribute) for attribute in ("inputs", "labels", "labelled", "source")):
        held: Dataset = source
        return held
    kind = f"{name} ({type(source).__name__})"
    if _is_array(source):
        return open_arrays(_array(source, kind), model, kind)
    if isinstance(source, Mapping):
        return open_arrays(_in_memory(source, model, kind), model, kind)
    if isinstance(source, tuple) and len(source) == 2 and _is_labels(source[1]):
        arrays = source[0] if isinstance(source[0], Mapping) else {model.inputs[0].name: source[0]}
        return open_arrays(_in_memory({**arrays, LABELS[0]: source[1]}, model, kind), model, kind)
    if isinstance(source, str | bytes) or not (hasattr(source, "__iter__") or hasattr(source, "__getitem__")):
        raise InputError(
            f"{kind} holds no samples",
            hint="give arrays, a mapping from inputs to arrays, a list of samples, or an iterable of batches",
        )
    by_index = hasattr(source, "__getitem__") and hasattr(source, "__len__") and len(source) > 0
    if by_index and not _is_batch(source[0], model):
        return _by_index(source, model, images, kind)
    return _spooled(source, model, images, kind)


def _in_memory(arrays: Mapping[str, Any], model: Model, kind: str) -> dict[str, npt.NDArray[Any]]:
    """NumPy arrays by name, the labels under `labels`."""
    names = {key: LABELS[0] if key in LABELS and not _is_input(key, model) else key for key in arrays}
    for key in _only_input(arrays, model):
        names[key] = model.inputs[0].name
    return {names[key]: _array(value, f"{kind}[{key!r}]") for key, value in arrays.items()}


def _only_input(values: Mapping[str, Any], model: Model) -> list[str]:
    """The only entry beside labels, which is a model's only input whatever its name; none if it is named."""
    if len(model.inputs) != 1 or model.inputs[0].name in values:
        return []
    others = [key for key in values if key not in LABELS]
    return others if len(others) == 1 else []


def _by_index(source: Any, model: Model, images: ImageOptions, kind: str) -> RecordData:
    """Anything that gives a sample for an index."""
    pipeline = _pipeline(model, images) if _holds_image(source[0]) else None
    take = _sample_reader(model, pipeline, kind)
    _, first = take(source[0])
    classes = None
    if first is not None:
        column = _column(source)
        found = [_label(source, k, take) for k in range(len(source))] if column is None else column
        classes = check_labels(np.asarray(found), len(source), kind)
    preparation = str(pipeline) if pipeline else ""
    return RecordData(
        kind, model, len(source), lambda k: take(source[k])[0], classes, preparation, pipeline is not None
    )


def _label(source: Any, index: int, take: Callable[[Any], tuple[Record, int | None]]) -> int:
    """The label of one sample."""
    label = take(source[index])[1]
    if label is None:
        raise InputError(f"sample {index} has no label, the first one has")
    return label


def _column(source: Any) -> list[int] | None:
    """The labels of a data set that knows them without its samples: decoding all to see them takes long."""
    names = getattr(source, "column_names", None)
    if isinstance(names, list):
        return next((list(source[name]) for name in LABELS if name in names), None)
    targets = getattr(source, "targets", None)
    return list(targets) if isinstance(targets, list) and len(targets) == len(source) else None


def _sample_reader(
    model: Model, pipeline: ImagePipeline | None, kind: str
) -> Callable[[Any], tuple[Record, int | None]]:
    def take(sample: Any) -> tuple[Record, int | None]:
        values, label = _named(sample, model, kind)
        record = {}
        for spec in model.inputs:
            value = values[spec.name]
            if _is_image(value):
                if pipeline is None:
                    raise InputError(f"{kind} has an image in some samples only")
                record[spec.name] = pipeline.batch([pipeline.prepare(value)], kind)[0]
            else:
                record[spec.name] = _array(value, f"{kind}[{spec.name!r}]")
        if label is None:
            return record, None
        number = _array(label, f"{kind} label")
        if number.size != 1 or number.dtype.kind not in "iub":
            return record, None  # a target that is no class
        return record, int(number.item())

    return take


def _named(sample: Any, model: Model, kind: str) -> tuple[dict[str, Any], Any]:
    """The values of a sample or batch by input, and its label."""
    names = [spec.name for spec in model.inputs]
    if isinstance(sample, Mapping):
        values = dict(sample)
        label = next((values[key] for key in LABELS if key in values and key not in names), None)
        for key in _only_input(values, model):
            values[names[0]] = values[key]
        check_names(values, model, kind)
        return values, label
    if isinstance(sample, tuple | list) and not _is_number_list(sample):
        if len(sample) not in (len(names), len(names) + 1):
            raise InputError(
                f"{kind} gives {len(sample)} values at a time, the model has {len(names)} inputs",
                hint=f"give {', '.join(names)} in this order, perhaps followed by the label, or a mapping",
            )
        return dict(zip(names, sample, strict=False)), sample[len(names)] if len(sample) > len(
            names
        ) else None
    if len(names) > 1:
        raise InputError(
            f"{kind} gives one value at a time, the model has {len(names)} inputs",
            hint=f"give a mapping or a tuple of {', '.join(names)}",
        )
    return {names[0]: sample}, None


def _spooled(source: Iterable[Any], model: Model, images: ImageOptions, kind: str) -> ArrayData:
    """The batches (or samples) of an iterable, read once and kept."""
    iterator = iter(source)
    try:
        first = next(iterator)
    except StopIteration:
        raise InputError(f"{kind} holds no samples") from None
    batched = _is_batch(first, model)
    pipeline = None if batched or not _holds_image(first) else _pipeline(model, images)
    take = _sample_reader(model, pipeline, kind)
    axes = batch_axes(model)
    spools = {spec.name: _Spool(axes[spec.name], f"{kind}[{spec.name!r}]") for spec in model.inputs}
    labels: list[npt.NDArray[Any]] = []
    count = 0
    for item in chain([first], iterator):
        if batched:
            values, label = _named(item, model, kind)
            arrays = {name: _array(values[name], f"{kind}[{name!r}]") for name in spools}
        else:
            record, number = take(item)
            arrays = {n: v if axes[n] is None else np.expand_dims(v, axes[n] or 0) for n, v in record.items()}
            label = None if number is None else [number]
        for name, spool in spools.items():
            spool.add(arrays[name])
        if label is not None:
            labels.append(np.atleast_1d(_array(label, f"{kind} labels")))
        count = max(spool.count for spool in spools.values())
        if count >= _MOST:
            log.warning("%s: the first %d samples are taken, more are left out", kind, count)
            break
    fitted = {
        spec.name: fit_array(spools[spec.name].values(), spec, axes[spec.name], kind) for spec in model.inputs
    }
    count = count_samples(fitted, kind)
    classes = None
    if labels and all(part.dtype.kind in "iu" and part.ndim == 1 for part in labels):
        classes = check_labels(np.concatenate(labels), count, kind)
    return ArrayData(kind, fitted, classes, count)


class _Spool:
    """Collects arrays along one axis, in memory and then in a temporary file."""

    def __init__(self, axis: int | None, where: str) -> None:
        self.count = 0
        self._axis, self._where = axis, where
        self._parts: list[npt.NDArray[Any]] = []
        self._bytes = 0
        self._file: Any = None
        self._like: npt.NDArray[Any] | None = None

    def add(self, array: npt.NDArray[Any]) -> None:
        """One more batch."""
        if self._axis is None:
            self._parts = [array]
            return
        moved = np.ascontiguousarray(np.moveaxis(array, self._axis, 0))
        if self._like is None:
            self._like = moved[:0]
        if moved.shape[1:] != self._like.shape[1:] or moved.dtype != self._like.dtype:
            raise InputError(
                f"{self._where} is {moved.dtype}{list(moved.shape[1:])} a sample, was "
                f"{self._like.dtype}{list(self._like.shape[1:])} before",
                hint="pad or crop samples to one size",
            )
        self.count += len(moved)
        self._bytes += moved.nbytes
        self._parts.append(moved)
        if self._bytes > _IN_MEMORY:
            self._file = self._file or tempfile.TemporaryFile(prefix="redtest-onnx-")  # noqa: SIM115
            for part in self._parts:
                self._file.write(part.tobytes())
            self._parts, self._bytes = [], 0

    def values(self) -> npt.NDArray[Any]:
        """All of them."""
        if self._axis is None:
            return self._parts[0]
        if self._file is None:
            return np.moveaxis(np.concatenate(self._parts), 0, self._axis)
        assert self._like is not None
        for part in self._parts:
            self._file.write(part.tobytes())
        self._file.flush()
        shape = (self.count, *self._like.shape[1:])
        mapped = np.memmap(self._file, self._like.dtype, "r", shape=shape)
        self._file.close()  # the map stays
        return np.moveaxis(mapped, 0, self._axis)


def _is_batch(item: Any, model: Model) -> bool:
    """Whether a value holds several samples: it has all axes of the input, not one less."""
    if isinstance(item, Mapping):
        values = {key: value for key, value in item.items() if key not in LABELS}
        spec = next((spec for spec in model.inputs if spec.name in values), model.inputs[0])
        value = values.get(spec.name, next(iter(values.values()), None))
    elif isinstance(item, tuple | list) and item and not _is_number_list(item):
        spec, value = model.inputs[0], item[0]
    else:
        spec, value = model.inputs[0], item
    return value is not None and _is_array(value) and len(value.shape) == len(spec.shape or ())


def _pipeline(model: Model, images: ImageOptions) -> ImagePipeline:
    if len(model.inputs) != 1:
        raise InputError("images feed one input", hint="give arrays for a model with several")
    return ImagePipeline.of(model.inputs[0], images)


def _holds_image(item: Any) -> bool:
    if isinstance(item, Mapping):
        item = list(item.values())
    return any(map(_is_image, item if isinstance(item, tuple | list) else [item]))


def _is_image(value: Any) -> bool:
    return hasattr(value, "convert") and hasattr(value, "resize") and hasattr(value, "mode")


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype") and not _is_image(value)


def _is_labels(value: Any) -> bool:
    return _is_array(value) or (isinstance(value, list) and all(isinstance(each, int) for each in value))


def _is_number_list(value: Any) -> bool:
    """Whether a list is one vector and not one value per input."""
    return isinstance(value, list) and all(isinstance(each, int | float) for each in value)


def _is_input(name: str, model: Model) -> bool:
    return any(spec.name == name for spec in model.inputs)


def _array(value: Any, where: str) -> npt.NDArray[Any]:
    """A NumPy array of an array of any library, a list, or a number."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        if str(value.dtype) == "torch.bfloat16":
            value = value.float()
        value = value.numpy()
    elif hasattr(value, "get") and type(value).__module__.startswith("cupy"):
        value = value.get()
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where} can't be made an array: {error}") from error
    if array.dtype == object:
        raise InputError(
            f"{where} is a {type(value).__name__} that holds no numbers",
            hint="give arrays of numbers, or images",
        )
    if array.dtype == np.float64 and isinstance(value, list | float):
        array = array.astype(np.float32)  # Python's floats say nothing about the type
    return array
