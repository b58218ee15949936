"""Errors that users see: what was wrong, where, and what to try."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any

from redtest_onnx.text import plain

Words = Callable[[str, str], str]
"""Words for an argument, given its name and the value that is spoken of, or nothing."""

# In texts `@name` and `@name=value` stand for an argument of ours, which the command line calls by its flag.
_ARGUMENT = re.compile(r"(?<![^\s(\"'`])@([a-z_]+)(?:=([^\s,;:)]+))?")


class RedtestError(Exception):
    """A failure with a cause outside this package; shown as one message, without a traceback.

    Args:
        what: what was found and what was asked for, in one sentence; `@name` stands for an argument.
        where: the file, node or tensor it concerns.
        hint: what to try next; likewise.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(what)
        self._what = what
        self.where = where
        self._hint = hint

    @property
    def what(self) -> str:
        """What was found, in one sentence."""
        return _worded(self._what, _as_argument)

    @property
    def hint(self) -> str | None:
        """What to try next."""
        return None if self._hint is None else _worded(self._hint, _as_argument)

    def worded(self, words: Words) -> str:
        """The message with arguments in the words of whoever shows it, such as flags of a command line."""
        what = _worded(self._what, words)
        text = plain(f"{self.where}: {what}" if self.where else what)
        return f"{text}\n  try: {plain(_worded(self._hint, words))}" if self._hint else text

    def __str__(self) -> str:
        return self.worded(_as_argument)

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (type(self), self.__dict__)


def _again(kind: type[RedtestError], state: dict[str, Any]) -> RedtestError:
    """An error that came from another process."""
    error = kind.__new__(kind)
    error.__dict__.update(state)
    error.args = (state["_what"],)
    return error


def with_arguments(text: str) -> str:
    """A message for users of the library: arguments that it marks are named as in Python."""
    return _worded(text, _as_argument)


def with_words(text: str, words: Words) -> str:
    """A message with the arguments that it marks in other words, such as flags of a command line."""
    return plain(_worded(text, words))


def _worded(text: str, words: Words) -> str:
    return _ARGUMENT.sub(lambda found: words(found[1], found[2] or ""), text)


def _as_argument(name: str, value: str) -> str:
    return f"{name}={value!r}" if value else f"`{name}`"


class InputError(RedtestError):
    """A model, data set, plan or option that can't be used as given."""


class TooFewLayersError(InputError):
    """A model has fewer than the two layers that similarity is measured between."""


class RefusedModelError(InputError):
    """ONNX Runtime doesn't load a model, whatever it would be fed."""


class SettingError(InputError, ValueError):
    """A setting with a value that it can't have.

    Attributes:
        argument: name of the setting.
        value: what it was given.
        allowed: the values it can have, or in words which those are.
    """

    def __init__(self, argument: str, value: object, allowed: Iterable[object] | str) -> None:
        self.argument, self.value = argument, value
        self.allowed = allowed if isinstance(allowed, str) else tuple(allowed)
        words = self.allowed
        if not isinstance(words, str):
            words = f"one of {', '.join(map(repr, words))}"
        super().__init__(f"@{argument} is {value!r}; it must be {words}", hint=self._nearest())

    def _nearest(self) -> str | None:
        near = nearest(str(self.value), self.allowed) if not isinstance(self.allowed, str) else None
        return None if near is None else f"@{self.argument}={near}"


def nearest(word: str, known: Iterable[object]) -> str | None:
    """What was probably meant by a word that is none of those known."""
    names = {str(name).lower(): str(name) for name in known}
    found = get_close_matches(word.lower(), names, n=1, cutoff=0.5)
    return names[found[0]] if found else None


class OutputError(RedtestError):
    """A result that can't be written where it was asked for."""


class RuntimeUnavailableError(RedtestError):
    """ONNX Runtime, or the device that was asked for, is missing."""


class NegativeVerdictError(RedtestError):
    """The work was done and the answer is no: a tolerance, target or audit was not met."""

    exit_code = 1


class InternalError(Exception):
    """An invariant of ours is broken; always a bug of this package."""
