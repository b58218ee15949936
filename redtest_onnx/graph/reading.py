"""Files from anywhere: text and JSON of bounded size, read whole, and large ones read in parts."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from redtest_onnx.errors import InputError

_LARGEST = 1 << 28  # bytes; an analysis of a thousand layers takes a tenth of that
_PART = 1 << 18  # bytes; parts of some MiB are allocated, and cleared by the system, anew each time


def require_file(path: Path) -> None:
    """Check that a path is a file that ends: no folder, and no device or pipe, which might never.

    Raises:
        InputError: it is none, is not there, or can't be looked at.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise InputError("no such file", where=str(path), hint="check the path") from None
    except (OSError, ValueError) as error:
        raise InputError(f"can't be read ({_reason(error)})", where=str(path)) from error
    if stat.S_ISDIR(mode):
        raise InputError("is a folder", where=str(path), hint="name a file inside it")
    if not stat.S_ISREG(mode):
        raise InputError("is a device, a pipe or a socket", where=str(path), hint="write it to a file first")


def in_parts(file: BinaryIO, length: int = sys.maxsize) -> Iterator[bytes]:
    """What a file holds from where it stands on, in parts; at most so many bytes of it."""
    while part := file.read(min(_PART, length)):
        yield part
        length -= len(part)


def copy_part(source: BinaryIO, offset: int, length: int, sink: BinaryIO) -> None:
    """Append a part of a file to another one, inside the system where it can, in a quarter of the time.

    Args:
        source: opened to be read; where it stands does not matter, and may change.
        offset: where the part begins, in bytes.
        length: of the part, in bytes; less is copied where the file ends before.
        sink: opened to be written, at its end.
    """
    sink.flush()
    copied = _copy_inside(source, offset, length, sink)
    source.seek(offset + copied)
    for part in in_parts(source, length - copied):
        sink.write(part)


def _copy_inside(source: BinaryIO, offset: int, length: int, sink: BinaryIO) -> int:
    """Bytes that the system copied: not all, or none, where it or two of its file systems can't."""
    copied = 0
    if sys.platform != "linux":
        return copied
    with suppress(OSError):  # a full disk says so again when the rest is written
        while step := os.copy_file_range(source.fileno(), sink.fileno(), length - copied, offset + copied):
            copied += step
    sink.seek(0, os.SEEK_END)
    return copied


def file_stamp(path: Path) -> tuple[int, ...] | None:
    """What tells two files at one path apart: device, number, size and time of the last change."""
    try:
        seen = os.stat(path)
    except OSError:
        return None
    return seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns


def read_text(path: Path) -> str:
    """The text of a UTF-8 file.

    Raises:
        InputError: it is no file, larger than 256 MiB, or can't be read as text.
    """
    require_file(path)
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
        if len(content) > _LARGEST:
            raise InputError(f"is larger than {_LARGEST >> 20} MiB", where=str(path), hint="check the path")
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"is not UTF-8 text (at byte {error.start:,})",
            where=str(path),
            hint="check the path; if it is text, save it as UTF-8",
        ) from error
    except OSError as error:
        raise InputError(f"can't be read ({error.strerror or error})", where=str(path)) from error


def read_json(path: Path) -> Any:
    """The value of a JSON file.

    Raises:
        InputError: as `read_text`, or it is not JSON, or nested too deeply.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except ValueError as error:
        raise InputError(f"is not JSON: {error}", where=str(path)) from error
    except RecursionError as error:
        raise InputError("is not JSON that can be read: nested too deeply", where=str(path)) from error


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
