"""Errors that users see: what was wrong, where, and what to try."""

from __future__ import annotations

from redtest_onnx.text import plain


class RedtestError(Exception):
    """A failure with a cause outside this package; shown as one message, without a traceback.

    Args:
        what: what was found and what was asked for, in one sentence.
        where: the file, node or tensor it concerns.
        hint: what to try next.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        text = plain(f"{self.where}: {self.what}" if self.where else self.what)
        return f"{text}\n  try: {plain(self.hint)}" if self.hint else text


class InputError(RedtestError):
    """A model, data set, plan or option that can't be used as given."""


class OutputError(RedtestError):
    """A result that can't be written where it was asked for."""


class RuntimeUnavailableError(RedtestError):
    """ONNX Runtime, or the device that was asked for, is missing."""


class NegativeVerdictError(RedtestError):
    """The work was done and the answer is no: a tolerance, target or audit was not met."""

    exit_code = 1


class InternalError(Exception):
    """An invariant of ours is broken; always a bug of this package."""
