"""Files are written whole or not at all; devices and pipes as the streams they are."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from redtest_onnx.errors import OutputError
from redtest_onnx.graph.scratch import note_renames, scratch_folder

# Names of what this process has open; the shell's >(...) is one, too.
_OPEN = re.compile(r"/dev/(stdout|stderr|fd/\d+)|/proc/(self|\d+)/fd/\d+")
_STREAMS = frozenset({"/dev/null", "/dev/tty"})
FULL = {
    errno.ENOSPC: "the disk is full",
    getattr(errno, "EDQUOT", errno.ENOSPC): "the disk quota is used up",
}
"""Errors of a disk that takes no more, in words."""

Writer = Callable[[Path], object]


def is_stream(path: Path) -> bool:
    """Whether a path stands for a stream that is written to and never replaced, such as `/dev/stdout`."""
    return _OPEN.fullmatch(str(path)) is not None or str(path) in _STREAMS


def writable(path: Path, *, force: bool) -> None:
    """Check that `path` may be written, before any work is done for it.

    Raises:
        OutputError: it exists and `force` is not set (a link that leads nowhere exists), is a folder, a
            device, a pipe or a socket, or its folder is missing or read-only.
    """
    if is_stream(path):
        return
    try:
        _check_kind(path)
        there = os.path.lexists(path)
    except (OSError, ValueError) as error:
        raise OutputError(f"can't be written ({_reason(error)})", where=str(path)) from error
    if there and not force:
        what = "a link of that name exists already" if path.is_symlink() else "the file exists already"
        raise OutputError(what, where=str(path), hint="@force overwrites it")
    if not path.parent.is_dir():
        raise OutputError("its folder does not exist", where=str(path), hint=f"mkdir -p {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise OutputError("its folder can't be written", where=str(path), hint="choose another place")


def write_atomic(path: Path, write: Writer) -> None:
    """Let `write` fill a temporary file next to `path`, then rename it: all or nothing.

    A stream gets the same bytes once they are complete.

    Raises:
        OutputError: the file can't be written.
    """
    write_together({path: write})


def write_together(files: Mapping[Path, Writer], *, old: Sequence[str] = ()) -> None:
    """As `write_atomic` for files of one folder that belong together: none is renamed before all are filled.

    All are on the disk before the first is renamed. The last one refers to the others: a reader that finds it
    finds them, and what a kill between two renames leaves is removed by the next run.

    Args:
        files: what fills each file, in the order they are renamed.
        old: names of files of the same folder that are no longer needed once the last one is renamed.

    Raises:
        OutputError: a file can't be written.
    """
    path = next(iter(files))
    try:
        with scratch_folder(None if is_stream(path) else path.parent) as folder:
            for path, write in files.items():
                write(folder / path.name)
                to_disk(folder / path.name)
            if is_stream(path):
                _copy(folder / path.name, path)
                return
            *others, last = files
            if others or old:
                note_renames(folder, last.name, [other.name for other in others], old)
                to_disk(folder)
            for path in files:
                if os.path.lexists(path):
                    _check_kind(path)
                os.replace(folder / path.name, path)
                to_disk(path.parent)
            for name in old:
                (path.parent / name).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"can't be written ({_reason(error)})", where=str(path), hint=_remedy(error)
        ) from error


def _check_kind(path: Path) -> None:
    """Refuse what a rename would put a file in place of.

    Raises:
        OutputError: it is a folder, a device, a pipe or a socket.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        raise OutputError("is a folder", where=str(path), hint="name a file inside it")
    if not stat.S_ISREG(mode):
        raise OutputError(
            "is a device, a pipe or a socket", where=str(path), hint="name a file, /dev/stdout or /dev/null"
        )


def _copy(source: Path, stream: Path) -> None:
    # Whoever read the stream may have enough of it, as `head` has: other files are still to be written.
    with suppress(BrokenPipeError), source.open("rb") as content, stream.open("wb") as sink:
        shutil.copyfileobj(content, sink)


def to_disk(path: Path) -> None:
    """Bytes of a file, or names of a folder, survive a crash of the machine from here on."""
    flags = os.O_RDONLY if os.name == "posix" else os.O_RDWR
    if os.name != "posix" and path.is_dir():
        return  # Windows has no such thing for folders
    handle = os.open(path, flags)
    try:
        # Some file systems know no fsync of folders; a full disk is told by all.
        with suppress(*([OSError] if path.is_dir() else [])):
            os.fsync(handle)
    finally:
        os.close(handle)


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, OSError):
        return FULL.get(error.errno or 0) or error.strerror or str(error)
    return str(error)


def _remedy(error: OSError) -> str | None:
    if error.errno in FULL:
        return "free some space, or write to another disk; nothing was changed"
    return None
