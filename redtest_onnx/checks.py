"""Settings that check themselves: types, the words of literals, the limits of numbers."""

from __future__ import annotations

import math
import types
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from redtest_onnx.errors import SettingError


@dataclass(frozen=True)
class Between:
    """Limits of a number, as a part of its type: `Annotated[int, Between(1)]`.

    Attributes:
        low: the smallest value.
        high: the largest; none if infinite.
        above: whether the number must be larger than `low`.
    """

    low: float
    high: float = math.inf
    above: bool = False

    def holds(self, value: float) -> bool:
        """Whether a number lies within."""
        return value <= self.high and (value > self.low if self.above else value >= self.low)

    def __str__(self) -> str:
        if self.high == math.inf:
            return f"of {'more than' if self.above else 'at least'} {self.low:g}"
        return f"{'above' if self.above else 'from'} {self.low:g} {'and up ' * self.above}to {self.high:g}"


Positive = Annotated[int, Between(1)]
"""A whole number of at least one."""
Natural = Annotated[int, Between(0)]
"""A whole number of at least zero."""
Share = Annotated[float, Between(0, 1)]
"""A part of a whole, from 0 to 1."""


def check_settings(settings: Any) -> None:
    """Hold the fields of a dataclass against their annotations; to be called from its `__post_init__`.

    Literals, numbers with their limits (`Between`), text, truth values and tuples of these are checked;
    values of other types must be of their class.

    Raises:
        SettingError: naming the field, its value, and what it can be.
    """
    hints = _hints(type(settings))
    for field in fields(settings):
        check(field.name, getattr(settings, field.name), hints[field.name])


_HINTS: dict[Any, dict[str, Any]] = {}


def _hints(kind: Any) -> dict[str, Any]:
    if kind not in _HINTS:
        _HINTS[kind] = get_type_hints(kind, include_extras=True)
    return _HINTS[kind]


def check(name: str, value: object, hint: Any) -> None:
    """Hold one value against an annotation.

    Raises:
        SettingError: it is something else.
    """
    if not _fits(value, hint):
        raise SettingError(name, value, _allowed(hint))


def _fits(value: object, hint: Any) -> bool:
    origin, parts = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin is Annotated:
        limits = [part for part in parts[1:] if isinstance(part, Between)]
        return _fits(value, parts[0]) and all(_within(value, limit) for limit in limits)
    if origin is Literal:
        return any(type(value) is type(part) and value == part for part in parts)
    if origin in (Union, types.UnionType):
        return any(_fits(value, part) for part in parts)
    if origin is tuple:
        return isinstance(value, tuple) and _items_fit(value, parts)
    if hint is float:
        return isinstance(value, Real) and not isinstance(value, bool) and not math.isnan(float(value))
    if hint is int:
        return isinstance(value, Integral) and not isinstance(value, bool)
    kind = hint if origin is None else origin
    return isinstance(value, kind) if isinstance(kind, type) and _is_plain(kind) else True


def _is_plain(kind: type) -> bool:
    """Whether values can be told by their class; protocols say more than that."""
    return not getattr(kind, "_is_protocol", False)


def _within(value: object, limit: Between) -> bool:
    return not isinstance(value, Real) or limit.holds(float(value))


def _items_fit(values: tuple[object, ...], parts: tuple[Any, ...]) -> bool:
    if len(parts) == 2 and parts[1] is ...:
        return all(_fits(value, parts[0]) for value in values)
    return len(values) == len(parts) and all(map(_fits, values, parts))


def _allowed(hint: Any) -> tuple[object, ...] | str:
    """The values that an annotation allows, or in words which those are."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Literal:
        return parts
    if origin in (Union, types.UnionType):
        choices = [part for part in parts if part is not type(None)]
        if len(choices) == 1 and get_origin(choices[0]) is Literal:
            return (*get_args(choices[0]), None)
        words = [_in_words(part) for part in choices]
        return " or ".join([*words, "None"] if type(None) in parts else words)
    return _in_words(hint)


def _in_words(hint: Any) -> str:
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        limits = (str(part) for part in parts[1:] if isinstance(part, Between))
        return " ".join([_in_words(parts[0]), *limits])
    if origin is Literal:
        return f"one of {', '.join(map(repr, parts))}"
    if origin is tuple:
        if len(parts) == 2 and parts[1] is ...:
            return f"a tuple whose entries are each {_in_words(parts[0])}"
        return f"a tuple of {', '.join(map(_in_words, parts))}"
    names = {int: "a whole number", float: "a number", str: "text", bool: "True or False"}
    return names.get(hint, f"a {getattr(hint, '__name__', hint)}")
