"""Compressed arrays inflated as far as they are needed, onto the disk, where they are mapped."""

from __future__ import annotations

import shutil
import weakref
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from redtest_onnx.data.npy import NpyHeader
from redtest_onnx.graph.scratch import make_scratch_folder

_CHUNK = 1 << 20


class InflatedArray:
    """A large array of a compressed .npz: rows are inflated up to the last one that was asked for.

    Memory stays within a chunk and what is handed out, and nothing is inflated twice.

    Args:
        path: the .npz.
        member: the name inside it.
        header: of the member.
    """

    def __init__(self, path: Path, member: zipfile.ZipInfo, header: NpyHeader) -> None:
        self._path, self._member, self._header = path, member, header
        self._done = 0
        self._stream: IO[bytes] | None = None
        self._mapped: npt.NDArray[Any] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes."""
        return self._header.shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self._header.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the elements."""
        return self._header.dtype

    @property
    def size(self) -> int:
        """Number of elements."""
        return self._header.nbytes // max(self._header.dtype.itemsize, 1)

    def take(self, indices: npt.NDArray[Any], axis: int) -> npt.NDArray[Any]:
        """As `numpy.take`."""
        whole = axis != 0 or self._header.fortran
        rows = self.shape[0] if whole else (int(np.max(indices)) + 1 if len(indices) else 0)
        return np.take(self._up_to(rows), indices, axis)

    def min(self) -> Any:
        """The smallest value."""
        return self._up_to(self.shape[0]).min()

    def max(self) -> Any:
        """The largest value."""
        return self._up_to(self.shape[0]).max()

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.asarray(self._up_to(self.shape[0]), dtype)

    def _up_to(self, rows: int) -> npt.NDArray[Any]:
        """The array, of which so many rows are there.

        Raises:
            EOFError: the member is shorter than it claims.
        """
        if self._mapped is None:
            self._begin()
        assert self._mapped is not None
        assert self._stream is not None
        wanted = (
            self._header.nbytes if self._header.fortran else rows * (self._header.nbytes // self.shape[0])
        )
        with self._file.open("r+b") as sink:
            sink.seek(self._done)
            while self._done < wanted:
                chunk = self._stream.read(min(_CHUNK, wanted - self._done))
                if not chunk:
                    raise EOFError(f"{self._member.filename} is shorter than it says")
                sink.write(chunk)
                self._done += len(chunk)
        return self._mapped

    def _begin(self) -> None:
        folder = make_scratch_folder()
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self._file = folder / "values"
        with self._file.open("wb") as file:
            file.truncate(self._header.nbytes)
        archive = zipfile.ZipFile(self._path)
        self._stream = archive.open(self._member)
        self._stream.read(self._header.offset)
        header = self._header
        order: Any = "F" if header.fortran else "C"
        self._mapped = np.memmap(self._file, header.dtype, "r", shape=header.shape, order=order)

    def __reduce__(self) -> tuple[Any, ...]:
        return InflatedArray, (self._path, self._member, self._header)
