"""Help in sections: what people need first, the rest with `--help-all`, examples at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

# Sections that mean the same in every command; what is in none of them stands first, under "Options".
DATA = "Data"
MEASURING = "Measuring"
RUNNING = "Where it runs"
OUTPUT = "Output"
SECTIONS: dict[str, frozenset[str]] = {
    DATA: frozenset(
        {"data", "eval_data", "val_data", "other_data", "mean", "std", "scale", "resize", "crop"}
        | {
            "interpolation",
            "resampler",
            "pad",
            "size",
            "preprocess",
            "sample_rate",
            "layout",
            "text_column",
            "pair_column",
        }
        | {"label_column", "tokenizer", "max_length", "mask", "input_shape"}
    ),
    MEASURING: frozenset(
        {"pooling", "estimator", "kernel", "alpha", "samples", "batches", "layers", "granularity", "gate"}
        | {"output_kind", "layer_latency", "seed"}
    ),
    RUNNING: frozenset(
        {"device", "threads", "memory", "isolate", "providers", "latency_command"}
        | {"engine", "workers", "address"}
    ),
    OUTPUT: frozenset(
        {
            "output",
            "html",
            "png",
            "figure",
            "family",
            "feature_maps",
            "json_path",
            "form",
            "explorer",
            "force",
            "verbose",
            "quiet",
        }
    ),
}
# Shown by --help; all others of these sections by --help-all.
COMMON = frozenset(
    {"data", "eval_data", "other_data", "output", "html", "png", "figure", "form", "json_path", "force"}
)


TYPED = "redtest_onnx.typed"
"""Where a context keeps the words of the command as they were typed."""


class Command(click.Command):
    """A command whose help has sections.

    Args:
        sections: names of parameters by the title of a section of the command's own.
        rare: parameters of those, and of "Options", that only `--help-all` shows.
        examples: command lines that can be pasted.
    """

    def __init__(
        self,
        *arguments: Any,
        sections: Mapping[str, Sequence[str]] | None = None,
        rare: Sequence[str] = (),
        examples: Sequence[str] = (),
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self.sections = dict(sections or {})
        self.rare = frozenset(rare)
        self.examples = tuple(examples)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click's; what was typed is kept, see `TYPED`."""
        ctx.meta[TYPED] = tuple(args)
        return super().parse_args(ctx, args)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The parameters, `--help` and `--help-all`."""
        everything = click.Option(
            ["--help-all"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_show_all,
            help="Show all options and exit.",
        )
        return [*super().get_params(ctx), everything]

    def section_of(self, name: str | None) -> str:
        """The title under which a parameter stands."""
        own = (title for title, names in self.sections.items() if name in names)
        shared = (title for title, names in SECTIONS.items() if name in names)
        return next(own, next(shared, "Options"))

    def is_common(self, name: str | None) -> bool:
        """Whether `--help` shows a parameter."""
        return name not in self.rare and (name in COMMON or self.section_of(name) not in SECTIONS)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """A section after the other; the rare options only if all were asked for."""
        everything = bool(ctx.meta.get(_ALL))
        rows: dict[str, list[tuple[str, str]]] = {
            title: [] for title in ("Options", *self.sections, *SECTIONS)
        }
        hidden = 0
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None or not isinstance(parameter, click.Option) or parameter.name in _OF_HELP:
                continue
            if everything or self.is_common(parameter.name):
                rows[self.section_of(parameter.name)].append(record if everything else _short(record))
            else:
                hidden += 1
        for title, records in rows.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)
        if hidden:
            formatter.write_paragraph()
            formatter.write_text(f"--help-all shows {hidden} more options and every help text in full.")

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The examples."""
        if self.examples:
            with formatter.section("Examples"):
                for example in self.examples:
                    formatter.write(f"{'':{formatter.current_indent}}{example}\n")


_ALL = "redtest_onnx.help_all"
_OF_HELP = ("help", "help_all")
_LONG_NAMES, _LONG_HELP = 26, 56


def _show_all(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        ctx.meta[_ALL] = True
        click.echo(ctx.get_help(), color=ctx.color)
        ctx.exit()


def _short(record: tuple[str, str]) -> tuple[str, str]:
    """An option with the first clause of its help, so that most take one line."""
    names, text = record
    if len(names) > _LONG_NAMES:
        names = names.split(" [")[0]
    clause = text.removesuffix(".").split(". ")[0].split("; ")[0]
    if len(clause) > _LONG_HELP:
        clause = f"{clause[: _LONG_HELP - 4].rsplit(' ', 1)[0].rstrip(' ,(')} ..."
    return names, clause
