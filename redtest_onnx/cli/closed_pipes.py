"""What happens when output can't be written: a reader closes the pipe, as `head` does, or a disk is full."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
# Windows says that an argument is invalid.
_CLOSED = {errno.EPIPE, *([errno.EINVAL] if sys.platform == "win32" else [])}


class PipeSafeFile(io.FileIO):
    """A file whose descriptor leads nowhere once its reader has closed it, or its disk is full.

    The descriptor itself is turned, so that all that writes to it goes on: buffers that are emptied when
    Python ends, `/dev/stdout`, libraries and child processes.

    Args:
        descriptor: of the open file.
        called: its name, to be told that the disk is full; None if that is of no consequence.
    """

    def __init__(self, descriptor: int, called: str | None) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self._called = called

    def write(self, data: ReadableBuffer, /) -> int:
        """Write what can be; all of it counts as written once the reader has closed the pipe.

        Raises:
            OSError: the disk is full; once only.
        """
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in _CLOSED | FULL:
                raise
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            if error.errno in FULL and self._called:
                raise OSError(error.errno, error.strerror, self._called) from None
        return memoryview(data).nbytes


def outlive_readers() -> None:
    """Let stdout and stderr be closed by whoever reads them, without losing a file or the exit code.

    Remarks on stderr that find no room on a disk are left out, too; results on stdout are not.

    Otherwise the first line too many ends the command: files that it was about to write are missing, and the
    exit code is 1, which stands for a verdict.
    """
    sys.stdout = _pipe_safe(sys.stdout, "stdout")
    sys.stderr = _pipe_safe(sys.stderr, None)


def _pipe_safe(stream: TextIO, called: str | None) -> TextIO:
    """The stream on a file that outlives its reader; itself where it is a terminal, or a program's own."""
    ours = stream in (sys.__stdout__, sys.__stderr__)
    if not ours or not isinstance(stream, io.TextIOWrapper) or stream.isatty():
        return stream
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(PipeSafeFile(stream.fileno(), called)),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
