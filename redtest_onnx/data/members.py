"""The files of a folder, a .zip or a .tar, each read when asked for."""

from __future__ import annotations

import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from redtest_onnx.errors import InputError

_LARGEST = 1 << 30  # bytes of one file
# What zipfile lets through from broken or encrypted members.
_BROKEN = (OSError, RuntimeError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)


@dataclass(frozen=True)
class Members:
    """Names and contents.

    Attributes:
        source: what messages call them.
        names: of all files, sorted, without those that systems put beside them.
        left_out: number of files that are hidden.
        read: the bytes of a file.
    """

    source: str
    names: tuple[str, ...]
    left_out: int
    read: Callable[[str], bytes]


def open_members(path: Path) -> Members:
    """The files at a path.

    Raises:
        InputError: neither a folder nor a .zip or .tar that can be read.
    """
    if path.is_dir():
        names = [file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()]
        return _members(path, names, lambda name: _bounded(path / name))
    try:
        return _zip(path) if path.suffix.lower() == ".zip" else _tar(path)
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile, tarfile.TarError) as error:
        kind = path.suffix.lower().lstrip(".")
        raise InputError(f"is not a readable {kind} file ({error})", where=str(path)) from error


def with_suffix(names: Iterable[str], suffixes: frozenset[str]) -> list[str]:
    """The names that end in one of the suffixes."""
    return [name for name in names if PurePosixPath(name).suffix.lower() in suffixes]


def _members(path: Path, names: list[str], read: Callable[[str], bytes]) -> Members:
    shown = sorted(name for name in names if not _is_hidden(name))
    return Members(str(path), tuple(shown), len(names) - len(shown), read)


def _is_hidden(name: str) -> bool:
    """Whether a file is one of the shadows that systems put beside files."""
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)


def _zip(path: Path) -> Members:
    archive = zipfile.ZipFile(path)
    names = [info.filename for info in archive.infolist() if info.filename and not info.is_dir()]

    def read(name: str) -> bytes:
        _check_size(name, archive.getinfo(name).file_size)
        try:
            return archive.read(name)
        except _BROKEN as error:
            raise InputError(f"can't be read ({error})", where=f"{path}/{name}") from error

    return _members(path, names, read)


def _bounded(path: Path) -> bytes:
    _check_size(str(path), path.stat().st_size)
    return path.read_bytes()


def _check_size(name: str, size: int) -> None:
    """Refuse to inflate what is no sample by its size alone.

    Raises:
        InputError: it is larger than 1 GiB.
    """
    if size > _LARGEST:
        raise InputError(f"is larger than {_LARGEST >> 30} GiB", where=name)


def _tar(path: Path) -> Members:
    """Where each file lies in the archive is noted once; a compressed one would have to be read from its
    beginning for every sample.
    """
    if path.name.lower().endswith((".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")):
        raise InputError(
            "is a compressed tar, in which no sample can be read by itself",
            where=str(path),
            hint="uncompress it, for example with gunzip",
        )
    places: dict[str, tuple[int, int]] = {}
    with tarfile.open(path, "r:") as archive:
        for info in archive:
            if info.isfile():
                places[info.name.removeprefix("./")] = info.offset_data, info.size

    def read(name: str) -> bytes:
        offset, size = places[name]
        _check_size(name, size)
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(size)

    return _members(path, list(places), read)
