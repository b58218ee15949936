"""Samples in the members of a folder, .zip or .tar: arrays or sounds, one file (or one set of files) each."""

from __future__ import annotations

import io
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from redtest_onnx.data.images import IMAGES, ImageOptions, folder_classes, key, numbered_classes, open_images
from redtest_onnx.data.members import Members, open_members, with_suffix
from redtest_onnx.data.records import Record, RecordData, check_names
from redtest_onnx.data.sound import SOUNDS, open_sounds
from redtest_onnx.errors import InputError
from redtest_onnx.graph.model import Model

_ARRAYS = frozenset({".npy", ".npz"})
_LABELS = ("labels", "label")


def open_archive(path: Path, model: Model, images: ImageOptions, sample_rate: int | None) -> Any:
    """Open a folder, .zip or .tar by what it holds: images, sounds, or arrays.

    Arrays are one .npz per sample, with an array per input; one .npy per sample for a model with one input;
    or, as WebDataset has it, KEY.INPUT.npy per sample and input. A label is the array `label` of an .npz, the
    file KEY.cls, or the folder.

    Raises:
        InputError: nothing of these, or more than one kind.
    """
    members = open_members(path)
    kinds = {
        kind: found
        for kind, suffixes in (("images", IMAGES), ("sounds", SOUNDS), ("arrays", _ARRAYS))
        if (found := with_suffix(members.names, suffixes))
    }
    if len(kinds) > 1:
        counts = ", ".join(f"{len(found)} {kind}" for kind, found in kinds.items())
        raise InputError(f"holds {counts}", where=str(path), hint="keep one kind of samples in it")
    if not kinds:
        known = ", ".join(sorted(IMAGES | SOUNDS | _ARRAYS))
        raise InputError("holds no images, sounds or arrays", where=str(path), hint=f"known are {known}")
    if "images" in kinds:
        return open_images(path, model, images, members)
    if "sounds" in kinds:
        return open_sounds(members, kinds["sounds"], model, sample_rate)
    return _open_arrays(members, kinds["arrays"], model)


def _open_arrays(members: Members, names: list[str], model: Model) -> RecordData:
    samples: dict[str, list[str]] = {}
    for name in names:
        samples.setdefault(key(name), []).append(name)
    keys = sorted(samples)
    first = _read(members, samples[keys[0]], model)
    check_names(first, model, f"{members.source}/{keys[0]}")
    classes = numbered_classes(keys, members)
    if classes is None and any(label in first for label in _LABELS):
        classes = np.array([_label(_read(members, samples[each], model), each) for each in keys], np.int64)
    if classes is None:
        classes = folder_classes(keys)

    def read(index: int) -> Record:
        record = _read(members, samples[keys[index]], model)
        check_names(record, model, f"{members.source}/{keys[index]}")
        return record

    return RecordData(members.source, model, len(keys), read, classes)


def _read(members: Members, names: list[str], model: Model) -> dict[str, npt.NDArray[Any]]:
    """The arrays of one sample."""
    found: dict[str, npt.NDArray[Any]] = {}
    for name in names:
        try:
            loaded = np.load(io.BytesIO(members.read(name)), allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                found[_input_of(name, model)] = loaded
            else:
                found.update({each: loaded[each] for each in loaded.files})
        except (OSError, ValueError, EOFError, KeyError) as error:
            raise InputError(
                f"can't be read: {error}", where=f"{members.source}/{name}", hint="write it with numpy.save"
            ) from error
    return found


def _input_of(name: str, model: Model) -> str:
    """Which input KEY.INPUT.npy is for; KEY.npy is for the only one."""
    between = PurePosixPath(name).name.partition(".")[2].rpartition(".")[0]
    return between or model.inputs[0].name


def _label(record: dict[str, npt.NDArray[Any]], where: str) -> int:
    value = next((record[label] for label in _LABELS if label in record), None)
    if value is None or value.size != 1 or value.dtype.kind not in "iu":
        raise InputError("has no class number `label`, other samples have", where=where)
    return int(value.item())
