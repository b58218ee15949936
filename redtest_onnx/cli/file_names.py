"""Names of files on the command line: those that can't be meant are refused before any work is done."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from redtest_onnx.errors import OutputError
from redtest_onnx.graph.writing import is_stream
from redtest_onnx.report.figures import FIGURE_SUFFIXES
from redtest_onnx.text import plain

if TYPE_CHECKING:
    _Path = click.Path[Path]
    _ParamType = click.ParamType[str]
else:
    _Path = click.Path  # neither is generic in click 8.1
    _ParamType = click.ParamType

_MODEL = (".onnx",)
_ENDS = tuple(end for end in (os.sep, os.altsep) if end)


class FileName(_Path):
    """A path to read or write; the empty name is none, though to the system it is the working folder."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path."""
        if not os.fspath(value):
            self.fail("the name is empty.", param, ctx)
        path: Path = super().convert(value, param, ctx)
        return path


class OutputName(FileName):
    """A file that is written, or a folder where the command says so; never stdout."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path."""
        path = super().convert(value, param, ctx)
        refuse_stdout(_flag(param), path)
        self.check(os.fspath(value), path, _flag(param))
        return path

    def check(self, name: str, path: Path, flag: str) -> None:
        """Refuse a name that doesn't fit what is written.

        Args:
            name: as it was given.
            path: the same.
            flag: the option.

        Raises:
            OutputError: it does not fit.
        """


class SuffixedName(OutputName):
    """A file whose suffix tells what it holds.

    Args:
        suffixes: the suffixes there are.
    """

    def __init__(self, *suffixes: str) -> None:
        super().__init__()
        self.suffixes = suffixes

    def check(self, name: str, path: Path, flag: str) -> None:
        """Refuse folders and other suffixes."""
        if name.endswith(_ENDS) and not path.is_dir():
            raise OutputError(
                f"{flag} writes a file, and this names a folder",
                where=plain(name),
                hint=f"{flag} {path / f'result{self.suffixes[0]}'}",
            )
        check_suffix(flag, path, self.suffixes)


class ModelName(OutputName):
    """A model: a file, or a folder where the model that is read is one, see `check_model_name`."""

    def check(self, name: str, path: Path, flag: str) -> None:
        """Refuse a folder that is called like a file."""
        if name.endswith(_ENDS) and path.suffix in _MODEL and not path.is_dir():
            raise OutputError(
                "has the suffix of a file, and a / behind it as a folder has",
                where=plain(name),
                hint=f"{flag} {path}",
            )


class ValuesName(OutputName):
    """Values of tensors: a file of one of two kinds, or a folder."""

    def check(self, name: str, path: Path, flag: str) -> None:
        """Refuse other suffixes; a folder has none."""
        if path.suffix:
            check_suffix(flag, path, (".npz", ".parquet"))


class JsonName(_ParamType):
    """A document: a file of no other suffix than .json, or - for stdout."""

    name = "FILE|-"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name as it is."""
        if value != "-":
            kind = SuffixedName(".json") if Path(value).suffix else OutputName()
            kind.convert(value, param, ctx)
        return str(value)


FILE = FileName()
OUTPUT = OutputName()
MODEL = ModelName()
MODEL_FILE = SuffixedName(*_MODEL)
PAGE = SuffixedName(".html", ".htm")
PICTURE = SuffixedName(*FIGURE_SUFFIXES)
VALUES = ValuesName()
SEARCH = SuffixedName(".sqlite", ".db")
JSON = JsonName()


def refuse_stdout(flag: str, path: Path) -> None:
    """Refuse the name that stands for stdout where a file is written.

    Raises:
        OutputError: naming the option.
    """
    if os.fspath(path) == "-":
        raise OutputError(
            f"{flag} can't go to stdout", where="-", hint="name a file; of outputs only --json takes -"
        )


def check_plan_name(path: Path) -> None:
    """Refuse what --plan names unless it may be a plan that is written: a document with its suffix, or none.

    Raises:
        OutputError: stdout, or another suffix.
    """
    refuse_stdout("--plan", path)
    if path.suffix:
        check_suffix("--plan", path, (".json",))


def check_model_name(path: Path) -> None:
    """Refuse what --output names unless it may be the file of a model; a model's folder gives a folder.

    Raises:
        OutputError: another suffix than that of ONNX files.
    """
    check_suffix("--output", path, _MODEL)


def check_suffix(flag: str, path: Path, suffixes: Sequence[str]) -> None:
    """Refuse a file whose suffix says that it holds something else.

    What is there and is no file gets the message for that from `graph.writing.writable`.

    Raises:
        OutputError: naming the option and the suffixes it takes.
    """
    if path.suffix.lower() in suffixes or is_stream(path) or (path.exists() and not path.is_file()):
        return
    *others, last = suffixes
    known = f"{', '.join(others)} or {last}" if others else last
    raise OutputError(
        f"{flag} writes {known}, not {f'files of {path.suffix}' if path.suffix else 'a name without suffix'}",
        where=plain(str(path)),
        hint=f"{flag} {path.with_suffix(suffixes[0]) if path.suffix else f'{path}{suffixes[0]}'}",
    )


def _flag(param: click.Parameter | None) -> str:
    return "the output" if param is None else max(param.opts, key=len)
