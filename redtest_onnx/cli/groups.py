"""Options that belong together reach a command as one typed object."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from typing import Any

from redtest_onnx.cli.console import Screen
from redtest_onnx.cli.options import Command, configure_logging
from redtest_onnx.report.table_formats import TableFormat


@dataclass(frozen=True)
class OutputOptions:
    """How a result is given: what `options.output_options` and `options.format_option` say.

    Attributes:
        json_path: the document; "-" for stdout.
        force: whether files that exist may be written over.
        verbose: how much more is said on stderr.
        quiet: whether nothing but errors is said.
        form: what tables are printed as.
    """

    json_path: str | None
    force: bool
    verbose: int
    quiet: bool
    form: TableFormat = "table"

    def start_log(self) -> None:
        """Send warnings to stderr, or more or less."""
        configure_logging(self.verbose, self.quiet)

    def screen(self, *, silent: bool = False, taken: bool = False) -> Screen:
        """What shows results and progress.

        Args:
            silent: whether nothing is shown, as on all processes of a group but one.
            taken: whether stdout belongs to something else than tables.
        """
        return Screen(
            quiet=self.quiet or silent, json_on_stdout=self.json_path == "-" or taken, form=self.form
        )


def grouped(**groups: type[Any]) -> Callable[[Command], Command]:
    """Hand options over as objects; what no group takes stays as it is.

    Args:
        groups: a dataclass by parameter of the command. Its fields are called like the options.
    """

    def decorate(command: Command) -> Command:
        @wraps(command)
        def call(*arguments: Any, **values: Any) -> Any:
            for name, group in groups.items():
                given = {field.name for field in fields(group)} & values.keys()
                values[name] = group(**{key: values.pop(key) for key in given})
            return command(*arguments, **values)

        return call  # type: ignore[return-value]

    return decorate
