"""One sample per file: arrays that differ in size from sample to sample, such as graphs and recordings."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from redtest_onnx.data.arrays import LABELS, UNREADABLE, fit_array
from redtest_onnx.data.dataset import Chosen, Feeds, check_finite
from redtest_onnx.errors import InputError
from redtest_onnx.graph.model import Model, TensorSpec
from redtest_onnx.graph.signature import batch_axes, takes_one_sample

_SUFFIX = ".npz"
_FIRST = 1  # files that are looked into when the data is opened; others when they are asked for


def holds_samples(path: Path) -> bool:
    """Whether a folder or a .zip holds .npz files, one per sample."""
    return bool(_members(path))


def open_per_sample(path: Path, model: Model) -> PerSample:
    """Open a folder or .zip of .npz files, each one sample, in the order of their names.

    Each holds arrays named like the model's inputs, with the sizes of this sample, and perhaps `labels`, one
    integer. Where the model has an axis of samples, arrays have it with size 1 or leave it out.

    Args:
        path: the folder or archive.
        model: what the samples are for.

    Raises:
        InputError: no files, one that can't be read, or arrays that don't fit the model's inputs.
    """
    members = _members(path)
    if not members:
        raise InputError("holds no .npz files", where=str(path), hint="write one .npz per sample")
    data = PerSample(str(path), path, members, model)
    for k in range(_FIRST):
        data.inputs([k])
    return data


@dataclass(frozen=True)
class PerSample:
    """Samples read one by one.

    Attributes:
        source: what messages call them.
        path: the folder or archive.
        members: names of the files inside.
        model: what they are for.
    """

    source: str
    path: Path
    members: tuple[str, ...]
    model: Model
    synthetic: bool = False

    def __len__(self) -> int:
        return len(self.members)

    @cached_property
    def labelled(self) -> bool:
        """Whether the first file has a label."""
        return LABELS in self._read(self.members[0])

    def inputs(self, indices: Chosen) -> Feeds:
        """The chosen samples; several are put together where their sizes agree.

        Raises:
            InputError: a file can't be read, doesn't fit, or has sizes of its own where several are wanted.
        """
        samples = [self._sample(int(k)) for k in indices]
        if self._one_sample:
            return samples[0]
        return {name: self._stacked(name, axis, samples) for name, axis in self._axes.items()}

    def labels(self, indices: Chosen) -> npt.NDArray[np.int64] | None:
        """Label of each chosen sample."""
        if not self.labelled:
            return None
        found = []
        for k in indices:
            stored = self._read(self.members[int(k)]).get(LABELS)
            if stored is None or stored.size != 1 or stored.dtype.kind not in "iu":
                raise InputError("has no label that is one integer", where=self._where(int(k)))
            found.append(int(stored.reshape(-1)[0]))
        return np.array(found, np.int64)

    @cached_property
    def _axes(self) -> dict[str, int | None]:
        return batch_axes(self.model)

    @cached_property
    def _one_sample(self) -> bool:
        return takes_one_sample(self.model)

    def _where(self, k: int) -> str:
        return f"{self.path}, {self.members[k]}"

    def _sample(self, k: int) -> Feeds:
        """Arrays of one sample, with an axis of samples of size 1 where the model has one."""
        arrays, where = self._read(self.members[k]), self._where(k)
        feeds: Feeds = {}
        for spec in self.model.inputs:
            if spec.name not in arrays:
                wanted = ", ".join(spec.name for spec in self.model.inputs)
                raise InputError(
                    f"has no array {spec.name!r}",
                    where=where,
                    hint=f"name the arrays like the model's inputs: {wanted}",
                )
            feeds[spec.name] = self._fitted(arrays[spec.name], spec, where)
            check_finite(spec.name, feeds[spec.name][None], [k], where)
        return feeds

    def _fitted(self, array: npt.NDArray[Any], spec: TensorSpec, where: str) -> npt.NDArray[Any]:
        axis = self._axes[spec.name]
        if axis is not None and spec.shape is not None and array.ndim == len(spec.shape) - 1:
            array = np.expand_dims(array, axis)
        return fit_array(array, spec, axis, where).take([0] if axis is not None else [])

    def _stacked(self, name: str, axis: int | None, samples: list[Feeds]) -> npt.NDArray[Any]:
        if axis is None:
            return samples[0][name]
        arrays = [sample[name] for sample in samples]
        if len({array.shape for array in arrays}) > 1:
            raise InputError(
                f"samples of {name!r} have different sizes: {sorted({array.shape for array in arrays})}",
                where=self.source,
                hint="pad them to one size, or give the model a fixed batch of 1 (@shapes)",
            )
        return np.concatenate(arrays, axis=axis)

    def _read(self, member: str) -> Mapping[str, npt.NDArray[Any]]:
        try:
            if self.path.is_dir():
                source: Any = self.path / member
            else:
                with zipfile.ZipFile(self.path) as archive:
                    source = io.BytesIO(archive.read(member))
            with np.load(source, allow_pickle=False) as archive_file:
                return {name: archive_file[name] for name in archive_file.files}
        except UNREADABLE as error:
            raise InputError(
                f"can't be read: {error}", where=f"{self.path}, {member}", hint="write it with numpy.savez"
            ) from error


def _members(path: Path) -> tuple[str, ...]:
    """The .npz files of a folder or archive in the order of their names; hidden ones are none."""
    try:
        if path.is_dir():
            names = [str(file.relative_to(path)) for file in path.rglob(f"*{_SUFFIX}")]
        else:
            with zipfile.ZipFile(path) as archive:
                names = [name for name in archive.namelist() if name.lower().endswith(_SUFFIX)]
    except (OSError, zipfile.BadZipFile):
        return ()
    return tuple(sorted(name for name in names if not Path(name).name.startswith((".", "__MACOSX"))))
