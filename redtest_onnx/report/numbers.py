"""Numbers as people read them."""

from __future__ import annotations

import math
from collections.abc import Callable

from redtest_onnx.metrics.agreement.intervals import Interval

Show = Callable[[float | None], str]

_SURE = 0.01  # width of an interval that needn't be said


def count(value: float | None) -> str:
    """A number of things in thousands, millions or thousand millions."""
    if value is None:
        return "?"
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.2f} {unit}"
    return str(int(value))


def size(value: float | None) -> str:
    """Bytes in KiB, MiB or GiB."""
    if value is None:
        return "?"
    for factor, unit in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if value >= factor:
            return f"{value / factor:.2f} {unit}"
    return f"{int(value)} B"


def milliseconds(value: float | None) -> str:
    """A time in milliseconds with two decimals from 1 ms on, with three below."""
    if value is None:
        return "?"
    return f"{value:.2f} ms" if value >= 1 else f"{value:.3f} ms"


def percent(value: float | None) -> str:
    """A share of 1."""
    return "-" if value is None else f"{value:.2%}"


def interval95(interval: Interval | None) -> str:
    """A confidence interval of a share; nothing where it is unknown, or no wider than a point."""
    if interval is None or interval[1] - interval[0] <= _SURE:
        return ""
    return f"{100 * interval[0]:.1f} to {interval[1]:.1%}"


def similarity(value: float | None) -> str:
    """A CKA; NaN is undefined, None was not measured."""
    if value is None:
        return ""
    return "undefined" if math.isnan(value) else f"{value:.4f}"


def decimal(value: float | None) -> str:
    """A score with one decimal from 10 on, four below."""
    if value is None:
        return "-"
    if math.isnan(value):
        return "undefined"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.4f}"


def msrs(value: float | None) -> str:
    """A redundancy score: about a number of pairs of layers."""
    if value is None:
        return "-"
    return "undefined" if math.isnan(value) else f"{value:,.1f}"


def plural(number: int, one: str, many: str | None = None) -> str:
    """A number with its noun: "1 layer", "2 layers"."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
