"""`redtest-onnx compare`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import click

from redtest_onnx.cli import options
from redtest_onnx.cli.console import Screen
from redtest_onnx.cli.outputs import Outputs
from redtest_onnx.cli.pages import provenance
from redtest_onnx.data.arrays import load_arrays
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
from redtest_onnx.report.figures import check_figure
from redtest_onnx.report.page.others import compare_page
from redtest_onnx.report.page.provenance import file_facts
from redtest_onnx.report.page.render import save_page
from redtest_onnx.report.table_formats import TABLE_FORMATS, TableFormat
from redtest_onnx.runtime.session import RunOptions
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analyze import AnalysisSettings
from redtest_onnx.similarity.compare import Comparison, compare, compare_arrays
from redtest_onnx.similarity.documents import compare_document

_TEXTS: dict[str, Callable[[Comparison, tuple[str, str]], str]] = {
    "markdown": compare_markdown,
    "github": compare_github,
    "gitlab": compare_gitlab,
}


@click.command("compare")
@click.argument("first", type=options.FilePath)
@click.argument("second", type=options.FilePath, required=False)
@click.option(
    "--other-data", type=options.FilePath, help="Samples for SECOND, or for FIRST again; pairs with --data."
)
@click.option("--png", type=options.FilePath, help="Write the heat map as a picture (.png, .svg, .pdf).")
@click.option("--html", type=options.FilePath, help="Write a page with the heat map and all matches.")
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
@options.output_options
def command(
    first: Path,
    second: Path | None,
    other_data: Path | None,
    png: Path | None,
    html: Path | None,
    form: str,
    json_path: str | None,
    force: bool,
    verbose: int,
    quiet: bool,
    **values: Any,
) -> None:
    """Measure the similarity of all layers of FIRST with all of SECOND.

    Both are models on the same --data; or, without SECOND, FIRST is one model on --data and on --other-data;
    or both are .npz files of activations, one array [n, ...] per layer.
    """
    options.configure_logging(verbose, quiet)
    tables = cast(TableFormat, form) if form in ("table", "csv", "json") else None
    screen = Screen(quiet=quiet, json_on_stdout=json_path == "-" or tables is None, form=tables or "table")
    check_figure(png)
    outputs = Outputs.of({"--png": png, "--html": html, "--json": json_path}, force=force)
    run = options.run_options_of(values)
    source = options.data_options_of(values)
    outputs.spare(source.data, other_data)
    outputs.spare_models(first, *([] if second is None else [second]))
    settings = AnalysisSettings(**values)
    if first.suffix.lower() == ".npz":
        comparison = _arrays(first, second or first, settings)
    else:
        comparison = _models(screen, first, second, source, other_data, settings, run)
    titles = first.name, (second or other_data or first).name
    if tables is None and json_path != "-":
        click.echo(_TEXTS[form](comparison, titles), nl=False)
    screen.show(match_table(comparison), *_summary(comparison))
    if html:
        files = (*file_facts("Rows", first), *file_facts("Columns", second or first))
        save_page(compare_page(comparison, titles, provenance(), files), html)
    if png:
        save_cross_heatmap(comparison, titles, png)
    if json_path:
        write_json(compare_document(comparison, titles), json_path)


def _arrays(first: Path, second: Path, settings: AnalysisSettings) -> Comparison:
    if second.suffix.lower() != ".npz":
        raise InputError(
            f"activations can't be compared with {second.name}", where=str(first), hint="give two .npz files"
        )
    return compare_arrays(load_arrays(first), load_arrays(second), settings, (str(first), str(second)))


def _models(
    screen: Screen,
    first: Path,
    second: Path | None,
    source: options.DataOptions,
    other_data: Path | None,
    settings: AnalysisSettings,
    run: RunOptions,
) -> Comparison:
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
    for side in (one, two):
        screen.warn_synthetic(side.data)
    with screen.progress() as progress:
        return compare(one, two, settings, progress)


def _summary(comparison: Comparison) -> list[str]:
    return [
        f"Measured on {comparison.batches} x {comparison.samples} samples, pooling "
        f"{comparison.settings.pooling}, {comparison.settings.kernel} kernel, estimator "
        f"{comparison.settings.estimator}."
    ]
