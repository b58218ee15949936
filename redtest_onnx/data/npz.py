"""Arrays of an .npz file, mapped into memory where they are stored as they are."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from redtest_onnx.data.inflated import InflatedArray
from redtest_onnx.data.npy import NpyHeader

_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, lengths of name and extra field
_SIGNATURE = b"PK\x03\x04"
_IN_MEMORY = 64 << 20  # bytes of a compressed array


class Npz:
    """The arrays of an .npz by name, each read when asked for.

    What `numpy.savez` wrote is mapped, so that a run over some samples reads those only; what is compressed
    is inflated as far as it is needed.

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

    def read(self, name: str) -> npt.NDArray[Any] | InflatedArray:
        """One array: mapped, inflated as it is needed where it is large, or read whole.

        Raises:
            ValueError: it holds Python objects, is no array, or its sizes are not those of its values.
        """
        info = self._members[name]
        with zipfile.ZipFile(self._path) as archive, archive.open(info) as member:
            header = NpyHeader.read(cast("BinaryIO", member))
            if header.offset + header.nbytes != info.file_size:
                raise ValueError(
                    f"{name!r} holds {info.file_size - header.offset} bytes, not {header.nbytes}"
                )
            if info.compress_type != zipfile.ZIP_STORED and header.nbytes > _IN_MEMORY:
                return InflatedArray(self._path, info, header)
            if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or not header.nbytes:
                content = member.read(header.nbytes)
                if len(content) != header.nbytes:
                    raise EOFError(f"{name!r} is shorter than it says")
                values: npt.NDArray[Any] = np.frombuffer(content, header.dtype)
                return values.reshape(header.shape, order="F" if header.fortran else "C")
        return self._mapped(info, header)

    def splits(self, inputs: Sequence[str] = ()) -> tuple[str, ...]:
        """What stands in front of a slash in the names of arrays, each once.

        Args:
            inputs: names of arrays that may have slashes themselves.
        """
        found = (_split_of(name, inputs) for name in self.names if "/" in name and name not in inputs)
        return tuple(dict.fromkeys(found))

    def _mapped(self, info: zipfile.ZipInfo, header: NpyHeader) -> npt.NDArray[Any]:
        """The member in place.

        Raises:
            ValueError: it is not laid out as a zip says.
        """
        with self._path.open("rb") as file:
            file.seek(info.header_offset)
            signature, name, extra = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
            start = file.seek(name + extra, 1) + header.offset
            if signature != _SIGNATURE or start + header.nbytes > file.seek(0, 2):
                raise ValueError("its members are not where it says")
        order: Any = "F" if header.fortran else "C"
        return np.memmap(self._path, header.dtype, "r", offset=start, shape=header.shape, order=order)


def _split_of(name: str, inputs: Sequence[str]) -> str:
    end = max((one for one in inputs if name.endswith(f"/{one}")), key=len, default=None)
    return name.split("/")[0] if end is None else name[: -len(end) - 1]
