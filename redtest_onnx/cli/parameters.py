"""Kinds of values on the command line, and how they are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from redtest_onnx.errors import InputError
from redtest_onnx.runtime.devices import DEVICES, check_device

if TYPE_CHECKING:
    _ParamType = click.ParamType[Any]
else:
    _ParamType = click.ParamType  # not generic in click 8.1


class Numbers(_ParamType):
    """Numbers separated by commas; fractions such as 1/255 are welcome."""

    name = "numbers"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        """Parse the text."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(_fraction(part) for part in str(value).split(","))
        except (ValueError, ZeroDivisionError):
            self.fail(f"{value!r} is not a list of numbers such as 0.485,0.456,0.406", param, ctx)


class Size(_ParamType):
    """HxW, or one number for both."""

    name = "HxW"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Parse the text."""
        if isinstance(value, tuple):
            return value
        try:
            numbers = [int(part) for part in str(value).lower().split("x")]
        except ValueError:
            numbers = []
        if len(numbers) not in (1, 2) or min(numbers) < 1:
            self.fail(f"{value!r} is not a size such as 224x224", param, ctx)
        return numbers[0], numbers[-1]


class Seconds(_ParamType):
    """A time: a number of seconds, or one with s, m or h behind it."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse the text."""
        text = str(value).strip().lower()
        factor = {"s": 1, "m": 60, "h": 3600}.get(text[-1:], 0)
        try:
            seconds = float(text[:-1]) * factor if factor else float(text)
        except ValueError:
            seconds = -1.0
        if not 0 < seconds < float("inf"):
            self.fail(f"{value!r} is not a time such as 90, 90s or 2m", param, ctx)
        return seconds


class ByteCount(_ParamType):
    """A number of bytes, or one with KB, MB or GB (of 1,024 each) behind it."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse the text."""
        text = str(value).strip().upper().removesuffix("IB").removesuffix("B")
        power = "KMGT".find(text[-1:]) + 1 if text else 0
        try:
            size = float(text[:-1] if power else text) * 1024**power
        except ValueError:
            size = -1.0
        if not 0 <= size < float("inf"):
            self.fail(f"{value!r} is not a size such as 512MB or 4GB", param, ctx)
        return int(size)


class DeviceName(_ParamType):
    """auto, cpu, cuda or cuda:N."""

    name = "auto|cpu|cuda[:N]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check the text."""
        try:
            check_device(value)
        except InputError:
            self.fail(f"{value!r} is not a device: {DEVICES}", param, ctx)
        return str(value)


class InputShape(_ParamType):
    """NAME:D,D,D."""

    name = "NAME:SIZES"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, tuple[int, ...]]:
        """Parse the text."""
        if isinstance(value, tuple):
            return value
        name, _, sizes = str(value).rpartition(":")
        try:
            return name, tuple(int(part) for part in sizes.split(","))
        except ValueError:
            self.fail(f"{value!r} is not an input with sizes such as input:1,3,224,224", param, ctx)


class Resize(_ParamType):
    """shortest=N, or HxW."""

    name = "shortest=N|HxW"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | tuple[int, int]:
        """Parse the text."""
        if isinstance(value, int | tuple):
            return value
        key, equals, number = str(value).partition("=")
        if not equals:
            return Size().convert(value, param, ctx)
        if key != "shortest" or not number.isdigit() or int(number) < 1:
            self.fail(f"{value!r} is neither shortest=256 nor a size such as 224x224", param, ctx)
        return int(number)


def _fraction(text: str) -> float:
    above, slash, below = text.partition("/")
    return float(above) / float(below) if slash else float(above)


def given_options(context: click.Context) -> dict[str, str]:
    """Arguments and options of the command line, the flag of each by its parameter."""
    return {
        parameter.name: parameter.opts[0]
        for parameter in context.command.params
        if parameter.name is not None
        and context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
    }
