"""Files of activations, written batch by batch: a folder of .npy files, one .npz, or a Parquet table."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from redtest_onnx.arrays import ArraysByName
from redtest_onnx.errors import InputError, RuntimeUnavailableError
from redtest_onnx.graph.scratch import make_scratch_folder
from redtest_onnx.graph.writing import to_disk

INDEX = "index.json"
_COPIED = 1 << 20  # bytes at a time
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


class ActivationWriter(Protocol):
    """Takes the values of tensors batch by batch; used as a context manager, whose end completes the file."""

    def write(self, values: ArraysByName, samples: int) -> None:
        """Add the values of some samples.

        Args:
            values: per tensor [n, ...], or any shape for tensors that have no axis of samples.
            samples: n.

        Raises:
            InputError: the sizes of a tensor change from sample to sample.
        """

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_writer(path: Path, total: int) -> ActivationWriter:
    """A writer for what the suffix says: .npz, .parquet, or a folder.

    Args:
        path: where the values go; must not exist.
        total: number of samples that will be written.

    Raises:
        InputError: another suffix.
        RuntimeUnavailableError: .parquet without pyarrow.
    """
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return NpzWriter(path, total)
    if suffix == ".parquet":
        return ParquetWriter(path)
    if suffix:
        raise InputError(
            f"unsupported format of activations ({suffix})",
            where=str(path),
            hint="give an .npz, a .parquet, or a folder (a name without suffix)",
        )
    return FolderWriter(path, total)


class _GrowingArray:
    """One .npy file whose rows come batch by batch."""

    def __init__(self, path: Path, name: str, total: int) -> None:
        self._path, self._name, self._total = path, name, total
        self._shape: tuple[int, ...] | None = None
        self._whole: npt.NDArray[Any] | None = None
        self._file = path.open("wb")

    def write(self, array: npt.NDArray[Any], samples: int) -> None:
        per_sample = array.ndim > 0 and len(array) == samples and self._whole is None
        if self._shape is None and not per_sample:
            self._keep(array)
            return
        if self._shape is None:
            self._shape = array.shape[1:]
            header: dict[str, Any] = {
                "descr": np.lib.format.dtype_to_descr(array.dtype),
                "fortran_order": False,
                "shape": (self._total, *self._shape),
            }
            np.lib.format.write_array_header_1_0(self._file, header)
        if array.shape[1:] != self._shape or len(array) != samples:
            raise InputError(
                f"tensor {self._name!r} has the sizes {list(array.shape[1:])} in some samples and "
                f"{list(self._shape)} in others",
                hint="give samples of one size, or leave the tensor out of @tensors",
            )
        np.ascontiguousarray(array).tofile(self._file)

    def _keep(self, array: npt.NDArray[Any]) -> None:
        """A tensor without an axis of samples: it must be the same in every batch."""
        if self._whole is None:
            self._whole = array
            np.lib.format.write_array(self._file, np.asarray(array), allow_pickle=False)
        elif not np.array_equal(self._whole, array, equal_nan=array.dtype.kind == "f"):
            raise InputError(
                f"tensor {self._name!r} has no axis of samples and differs from batch to batch",
                hint="leave it out of @tensors",
            )

    def close(self) -> None:
        self._file.close()


class FolderWriter:
    """A folder with one .npy per tensor and `index.json`, which says which file holds which tensor.

    Args:
        path: the folder; made when the first values come and complete at the end.
        total: number of samples.
    """

    def __init__(self, path: Path, total: int) -> None:
        self._path, self._total = path, total
        self._arrays: dict[str, _GrowingArray] = {}
        self._files: dict[str, str] = {}

    @property
    def files(self) -> dict[str, Path]:
        """The .npy of each tensor, as long as the writer is open."""
        return {name: self._partial / file for name, file in self._files.items()}

    def write(self, values: ArraysByName, samples: int) -> None:
        """Add the values of some samples; see `ActivationWriter.write`."""
        for name, array in values.items():
            if name not in self._arrays:
                self._files[name] = f"{len(self._files):04d}-{_UNSAFE.sub('_', name)[-80:]}.npy"
                self._arrays[name] = _GrowingArray(self._partial / self._files[name], name, self._total)
            self._arrays[name].write(np.asarray(array), samples)

    def __enter__(self) -> Self:
        self._scratch = make_scratch_folder(self._path.parent)
        self._partial = self._scratch / "values"
        self._partial.mkdir()
        return self

    @property
    def scratch(self) -> Path:
        """A folder on the same disk for what is not finished, as long as the writer is open."""
        return self._scratch

    def close(self) -> None:
        """Close all arrays."""
        for array in self._arrays.values():
            array.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
            if error is None:
                (self._partial / INDEX).write_text(json.dumps(self._files, indent=1), encoding="utf-8")
                for file in self._partial.iterdir():
                    to_disk(file)
                self._partial.replace(self._path)
        finally:
            shutil.rmtree(self._scratch, ignore_errors=True)


class NpzWriter:
    """An .npz with one array per tensor, stored as `numpy.savez` does, so that others can map it.

    Args:
        path: the file.
        total: number of samples.
    """

    def __init__(self, path: Path, total: int) -> None:
        self._path = path
        self._folder = FolderWriter(path, total)

    def write(self, values: ArraysByName, samples: int) -> None:
        """Add the values of some samples; see `ActivationWriter.write`."""
        self._folder.write(values, samples)

    def __enter__(self) -> Self:
        self._folder.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        partial = self._folder.scratch / self._path.name
        try:
            self._folder.close()
            if error is None:
                with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
                    for name, file in self._folder.files.items():
                        # Names may begin with "/", which `ZipFile.write` would take away.
                        member = zipfile.ZipInfo(f"{name}.npy")
                        with archive.open(member, "w", force_zip64=True) as target, file.open("rb") as source:
                            shutil.copyfileobj(source, target, _COPIED)
                        file.unlink()  # one array at a time is there twice
                to_disk(partial)
                partial.replace(self._path)
        finally:
            cancelled = error or InputError("the arrays are in the archive")
            self._folder.__exit__(type(cancelled), cancelled, trace)


class ParquetWriter:
    """A Parquet table with a row per sample and a column per tensor: its values as a list, row-major.

    The sizes of one sample are in the column's metadata, `shape`. Tensors without an axis of samples are
    refused.

    Args:
        path: the file.

    Raises:
        RuntimeUnavailableError: pyarrow is not installed.
    """

    def __init__(self, path: Path) -> None:
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError as error:
            raise RuntimeUnavailableError(
                "writing Parquet needs pyarrow", hint='pip install "redtest-onnx[data]", or save an .npz'
            ) from error
        self._path, self._pa, self._pq = path, pa, pq
        self._writer: Any = None

    def write(self, values: ArraysByName, samples: int) -> None:
        """Add the values of some samples; see `ActivationWriter.write`."""
        pa = self._pa
        fields, columns = [], []
        for name, array in values.items():
            if array.ndim == 0 or len(array) != samples:
                raise InputError(
                    f"tensor {name!r} has no axis of samples, which a table needs",
                    hint="leave it out of @tensors, or save an .npz",
                )
            rows = np.ascontiguousarray(array).reshape(samples, -1)
            flat = pa.array(rows.reshape(-1))
            width = rows.shape[1]
            columns.append(pa.FixedSizeListArray.from_arrays(flat, width))
            shape = {"shape": json.dumps(list(array.shape[1:]))}
            fields.append(pa.field(name, pa.list_(flat.type, width), metadata=shape))
        schema = pa.schema(fields)
        if self._writer is None:
            self._writer = self._pq.ParquetWriter(self._partial, schema)
        elif not self._writer.schema.equals(schema, check_metadata=True):
            raise InputError(
                "the sizes of some tensors change from sample to sample",
                where=str(self._path),
                hint="give samples of one size",
            )
        self._writer.write_table(pa.Table.from_arrays(columns, schema=schema))

    def __enter__(self) -> Self:
        self._scratch = make_scratch_folder(self._path.parent)
        self._partial = self._scratch / self._path.name
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._writer is not None:
                self._writer.close()
            if error is None and self._writer is not None:
                to_disk(self._partial)
                self._partial.replace(self._path)
        finally:
            shutil.rmtree(self._scratch, ignore_errors=True)
