"""Folders for what is not finished, whose names tell who made them: a killed run's are found and removed."""

from __future__ import annotations

import json
import mmap
import os
import re
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from zlib import crc32

from redtest_onnx.graph.wire import varint

_NAME = re.compile(r"\.redtest-(?P<host>[0-9a-f]{8})-(?P<process>\d+)-\w+")
_NOTE = ".redtest-note"  # no output is called so
_DAY = 86_400.0


@contextmanager
def scratch_folder(beside: Path | None = None) -> Iterator[Path]:
    """A folder that is gone at the end, whatever happens; after a kill, when the next run begins.

    Args:
        beside: the folder it lies in, so that its files can be renamed to there; the system's folder for
            temporary files if None.

    Raises:
        OSError: it can't be made.
    """
    folder = make_scratch_folder(beside)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def make_scratch_folder(beside: Path | None = None) -> Path:
    """As `scratch_folder`, for what lives as long as an object does: whoever asks removes it."""
    parent = Path(tempfile.gettempdir()) if beside is None else beside
    return Path(tempfile.mkdtemp(prefix=f".redtest-{_host()}-{os.getpid()}-", dir=parent))


def allocated(path: Path, size: int) -> Path:
    """A new file whose space is taken, so that writing to its mapped pages can't find the disk full.

    Raises:
        OSError: the disk is full.
    """
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
    return path


def note_renames(folder: Path, last: str, fresh: Sequence[str], old: Sequence[str]) -> None:
    """Write down in a scratch folder what a kill between two renames would leave beside it.

    Args:
        folder: the scratch folder.
        last: the file that is renamed last: until then the files in `fresh` are leftovers to delete,
            afterwards those in `old`.
        fresh: names of new files beside the folder.
        old: names of files beside the folder that `last` replaces.
    """
    (folder / _NOTE).write_text(json.dumps({"last": last, "fresh": [*fresh], "old": [*old]}))


def remove_litter(folder: Path) -> tuple[Path, ...]:
    """Remove what killed runs left in a folder; what runs of this moment use stays.

    Returns:
        What was removed.
    """
    gone: list[Path] = []
    try:
        found = [entry for entry in os.scandir(folder) if _NAME.fullmatch(entry.name)]
    except OSError:
        return ()
    for entry in found:
        path = folder / entry.name
        if not entry.is_dir(follow_symlinks=False) or not _is_ours(path) or _in_use(path):
            continue
        gone += _orphans(path)
        shutil.rmtree(path, ignore_errors=True)
        gone.append(path)
    return tuple(gone)


def _orphans(scratch: Path) -> Iterator[Path]:
    """Remove files that were renamed to their place while what refers to them was not, or no longer is."""
    with suppress(OSError, ValueError, RecursionError, KeyError, TypeError):
        note = json.loads((scratch / _NOTE).read_text(encoding="utf-8"))
        names = _checked(note, "fresh" if os.path.lexists(scratch / str(note["last"])) else "old")
        for name in names:
            path = scratch.parent / name
            models = scratch.parent.glob("*.onnx")
            if path.is_file() and not path.is_symlink() and not mentions(models, name):
                path.unlink()
                yield path


def _checked(note: Mapping[str, object], which: str) -> list[str]:
    """A note lies in a folder that anybody may have made: it can only name data of its own model."""
    last, names = str(note["last"]), note[which]
    if not isinstance(names, list) or not all(is_data_of(last, str(name)) for name in names):
        raise ValueError("no note of ours")
    return [str(name) for name in names]


def is_data_of(model: str, name: str) -> bool:
    """Whether a file's name is one that `save` gives to the external data of a model of that name."""
    return re.fullmatch(re.escape(model) + r"(\.\d+)?\.data", name) is not None and "/" not in name


def mentions(models: Iterable[Path], name: str) -> bool:
    """Whether one of some models may read a data file: its bytes hold the file's name as a location.

    A location is a text field with its length in front, or ends in the name behind a folder's.
    """
    encoded = name.encode()
    wanted = (b"\x12" + varint(len(encoded)) + encoded, b"/" + encoded, b"\\" + encoded)
    for model in models:
        try:
            with model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                if any(content.find(text) >= 0 for text in wanted):
                    return True
        except (OSError, ValueError):
            continue  # an empty file, or none that can be read
    return False


def _is_ours(path: Path) -> bool:
    """Whether the user who runs this made it; only that user may have it removed."""
    try:
        return os.name != "posix" or path.lstat().st_uid == os.getuid()
    except OSError:
        return False


def _in_use(path: Path) -> bool:
    """Whether the process that made a scratch folder still runs; on other hosts, whether it is young."""
    match = _NAME.fullmatch(path.name)
    assert match is not None
    if match["host"] == _host() and sys.platform != "win32":
        return _alive(int(match["process"]))
    try:
        return time.time() - path.stat().st_mtime < _DAY
    except OSError:
        return True


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _host() -> str:
    return f"{crc32(socket.gethostname().encode()):08x}"
