"""`redtest-onnx compare`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import click

from redtest_onnx.cli import file_names, options
from redtest_onnx.cli.console import Screen
from redtest_onnx.cli.groups import OutputOptions, grouped
from redtest_onnx.cli.help import Command
from redtest_onnx.cli.outputs import Outputs
from redtest_onnx.cli.pages import provenance
from redtest_onnx.cli.parameters import given_options
from redtest_onnx.data.saved_activations import holds_activations, read_activations
from redtest_onnx.documents.base import write_json
from redtest_onnx.errors import InputError
from redtest_onnx.graph.files import load
from redtest_onnx.report.comparisons import (
    compare_github,
    compare_gitlab,
    compare_markdown,
    match_table,
    save_cross_heatmap,
)
from redtest_onnx.report.file_comparisons import files_notes, files_table, tensor_table, tensor_words
from redtest_onnx.report.page.others import compare_page
from redtest_onnx.report.page.provenance import file_facts
from redtest_onnx.report.page.render import save_page
from redtest_onnx.report.table import Table
from redtest_onnx.report.table_formats import TABLE_FORMATS, TableFormat
from redtest_onnx.runtime.session import RunOptions
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analyze import AnalysisSettings
from redtest_onnx.similarity.compare import Comparison, compare, compare_arrays
from redtest_onnx.similarity.documents import compare_document, files_document
from redtest_onnx.similarity.files import FileComparison, compare_files
from redtest_onnx.similarity.tensors import DIVERGES_BELOW

_TEXTS: dict[str, Callable[[Comparison, tuple[str, str]], str]] = {
    "github": compare_github,
    "gitlab": compare_gitlab,
}

_OF_ACTIVATIONS = frozenset(
    {"first", "second", "pooling", "estimator", "kernel"}
    | {"png", "html", "form", "json_path", "force", "verbose", "quiet"}
    | {"seed", "device", "threads", "memory", "isolate"}
)
"""Parameters that may be given for saved activations; where and how models run is of no account."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CompareOptions:
    """What is compared, and how that is shown.

    Attributes:
        other_data: samples for the second side.
        diverges_below: signal-to-noise ratio in dB.
        all_tensors: whether every matching tensor is listed.
        png: the picture.
        html: the page.
        form: format of the result on stdout.
    """

    other_data: Path | None
    diverges_below: float
    all_tensors: bool
    png: Path | None
    html: Path | None
    form: str


@click.command(
    "compare",
    cls=Command,
    examples=(
        "redtest-onnx compare float.onnx int8.onnx --data calibration.npz",
        "redtest-onnx compare a.onnx b.onnx --data images.zip --html compare.html",
        "redtest-onnx compare a.npz b.npz",
    ),
)
@click.argument("first", type=options.FilePath)
@click.argument("second", type=options.FilePath, required=False)
@click.option(
    "--other-data", type=options.FilePath, help="Samples for SECOND, or for FIRST again; pairs with --data."
)
@click.option("--png", type=file_names.PICTURE, help="Write the heat map as a picture (.png, .svg, .pdf).")
@click.option(
    "--diverges-below",
    type=float,
    default=DIVERGES_BELOW,
    show_default=True,
    metavar="DB",
    help="Signal-to-noise ratio of a tensor below which it diverges.",
)
@click.option("--all-tensors", is_flag=True, help="List every matching tensor, not only the worst.")
@click.option("--html", type=file_names.PAGE, help="Write a page with the heat map and all matches.")
@click.option(
    "--format",
    "form",
    type=click.Choice([*TABLE_FORMATS, "github", "gitlab"]),
    default="table",
    show_default=True,
    help="Format of the result on stdout; markdown is a summary for pull requests, github an annotation, "
    "gitlab a code quality report.",
)
@options.measure_options
@options.data_options
@options.run_options
@options.output_kind_option
@options.output_options
@grouped(asked=CompareOptions, given=OutputOptions)
def command(
    first: Path, second: Path | None, asked: CompareOptions, given: OutputOptions, **values: Any
) -> None:
    """Hold SECOND against FIRST: size, speed, outputs, every matching tensor, similarity of all layers.

    Both are models on the same --data, such as a float model and its int8 version: the first tensor that
    diverges is named. Without SECOND, FIRST is one model on --data and on --other-data; or both hold
    activations as `expose --save` or numpy.savez writes them. Then only the similarity of layers is measured.
    """
    given.start_log()
    form, png, html, json_path = asked.form, asked.png, asked.html, given.json_path
    tables = cast(TableFormat, form) if form in ("table", "csv", "json") else None
    screen = replace(given, form=tables or "table").screen(taken=tables is None)
    run = options.run_options_of(values)
    source = options.data_options_of(values)
    saved = holds_activations(first)
    _refuse_unused(saved, second)
    compared = (first, *([] if second is None else [second]))
    Outputs.of(
        {"--png": png, "--html": html, "--json": json_path},
        force=given.force,
        reads=(*source.reads(*compared), asked.other_data),
        models=compared,
    )
    settings = AnalysisSettings(**values)
    files: FileComparison | None = None
    if saved:
        layers: Comparison | None = _arrays(first, second or first, settings)
    else:
        sides = _sides(screen, first, second, source, asked.other_data, settings, run)
        with screen.progress() as progress:
            if second is None:
                layers = compare(*sides, settings, progress)
            else:
                files = compare_files(
                    *sides, settings, diverges_below=asked.diverges_below, progress=progress
                )
                layers = files.layers
    if layers is None and (png or html or tables is None):
        raise InputError(
            "the similarity of layers can't be measured, which pages, pictures and summaries show",
            where=str(first),
            hint="leave out --html, --png and --format; --json holds the rest",
        )
    titles = first.name, (second or asked.other_data or first).name
    beside: tuple[Table, ...] = ()
    notes: list[str] = []
    if files is not None:
        beside, notes = _show_files(screen, files, titles, every=asked.all_tensors)
    if layers is not None:
        if tables is None and json_path != "-":
            summary = compare_markdown(layers, titles, beside[:1], notes)
            click.echo(summary if form == "markdown" else _TEXTS[form](layers, titles), nl=False)
        screen.show(match_table(layers), *_summary(layers))
        if html:
            facts = (*file_facts("Rows", first), *file_facts("Columns", second or first))
            facts += tuple(("Note", note) for note in notes)
            save_page(compare_page(layers, titles, provenance(), facts, beside), html)
        if png:
            save_cross_heatmap(layers, titles, png)
    if json_path and files is not None:
        write_json(files_document(files, titles), json_path)
    elif json_path and layers is not None:
        write_json(compare_document(layers, titles), json_path)


def _show_files(
    screen: Screen, files: FileComparison, titles: tuple[str, str], *, every: bool
) -> tuple[tuple[Table, ...], list[str]]:
    """Show what was found of two files; the tables and the words, for pages."""
    found = files_table(files.files, titles), tensor_table(files.tensors, every=every)
    tables = tuple(table for table in found if table.rows)  # of equal models no tensor differs
    about_files, about_tensors = files_notes(files.files), tensor_words(files.tensors, every=every)
    screen.detail(tables[0])
    screen.show(*about_files)
    for table in tables[1:]:
        screen.detail(table)
    screen.show(*about_tensors)
    return tables, [*about_files, *about_tensors]


def _refuse_unused(saved: bool, second: Path | None) -> None:
    """Refuse options that do nothing without two models: those of tensors, and of runs beside activations."""
    for name, flag in given_options(click.get_current_context()).items():
        if saved and name not in _OF_ACTIVATIONS:
            why, instead = (
                "saved activations are compared as they are",
                "; `expose --save` chooses tensors and samples",
            )
        elif second is None and name in ("diverges_below", "all_tensors"):
            why, instead = "tensors are compared of two models", ""
        else:
            continue
        raise InputError(f"{flag} does nothing here: {why}", hint=f"leave it out{instead}")


def _arrays(first: Path, second: Path, settings: AnalysisSettings) -> Comparison:
    if not holds_activations(second):
        raise InputError(
            f"activations can't be compared with {second.name}",
            where=str(first),
            hint="give two files or folders of activations",
        )
    sides = []
    for path in (first, second):
        saved = read_activations(path, least=1)
        for name, reason in saved.others:
            log.warning("%s: %s is left out, %s", path, name, reason)
        sides.append(saved.arrays)
    return compare_arrays(sides[0], sides[1], settings, (str(first), str(second)))


def _sides(
    screen: Screen,
    first: Path,
    second: Path | None,
    source: options.DataOptions,
    other_data: Path | None,
    settings: AnalysisSettings,
    run: RunOptions,
) -> tuple[Workbench, Workbench]:
    if second is None and other_data is None:
        raise InputError(
            "there is nothing to compare it with",
            where=str(first),
            hint="give a second model, or other samples with --other-data",
        )
    model = load(first)
    other = model if second is None else load(second)
    one = Workbench(model, source.open(model), run, seed=settings.seed)
    two = Workbench(other, source.open(other, path=other_data), run, seed=settings.seed)
    # Of two models on synthetic inputs one warning is enough.
    screen.warn_synthetic(two.data if two.data.synthetic else one.data)
    return one, two


def _summary(comparison: Comparison) -> list[str]:
    return [
        f"Measured on {comparison.batches} x {comparison.samples} samples, pooling "
        f"{comparison.settings.pooling}, {comparison.settings.kernel} kernel, estimator "
        f"{comparison.settings.estimator}."
    ]
