"""Arrays of an .npz file, mapped into memory where they are stored as they are."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, lengths of name and extra field
_SIGNATURE = b"PK\x03\x04"


class Npz:
    """The arrays of an .npz by name, each read when asked for.

    What `numpy.savez` wrote is mapped, so that a run over some samples reads those only; what is compressed
    has to be read whole.

    Args:
        path: the file.

    Raises:
        OSError: there is no such file.
        zipfile.BadZipFile: it is no zip.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with zipfile.ZipFile(path) as archive:
            self._members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all arrays."""
        return tuple(self._members)

    def read(self, name: str) -> npt.NDArray[Any]:
        """One array.

        Raises:
            ValueError: it holds Python objects, or is no array.
        """
        info = self._members[name]
        if info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1:
            with self._path.open("rb") as file:
                if (mapped := self._mapped(file, info)) is not None:
                    return mapped
        with np.load(self._path, allow_pickle=False) as archive:
            array = archive[name]
        if not isinstance(array, np.ndarray):
            raise ValueError(f"{name!r} is no array")
        return array

    def _mapped(self, file: BinaryIO, info: zipfile.ZipInfo) -> npt.NDArray[Any] | None:
        """The member in place; None where it is not laid out as expected."""
        file.seek(info.header_offset)
        signature, name, extra = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
        if signature != _SIGNATURE:
            return None
        start = file.seek(name + extra, 1)
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        elif version == (2, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
        else:
            return None
        size = int(np.prod(shape, dtype=object)) * dtype.itemsize
        if dtype.hasobject or not size or file.tell() - start + size != info.file_size:
            return None
        order: Any = "F" if fortran else "C"
        return np.memmap(self._path, dtype, "r", offset=file.tell(), shape=shape, order=order)
