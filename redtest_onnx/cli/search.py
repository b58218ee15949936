"""`redtest-onnx search`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from redtest_onnx.cli import options, ranking_options
from redtest_onnx.cli.console import Screen
from redtest_onnx.cli.help import Command
from redtest_onnx.cli.outputs import Outputs
from redtest_onnx.cli.pages import provenance
from redtest_onnx.cli.parameters import DeviceName
from redtest_onnx.cli.search_requests import PLACES, check_places, refuse_changes, search_settings_of
from redtest_onnx.documents.base import write_json
from redtest_onnx.ranking.accuracy import BENCHMARK_DATA, BenchmarkData
from redtest_onnx.ranking.candidate import MeasuredCandidate
from redtest_onnx.ranking.documents import ranking_document
from redtest_onnx.ranking.rank import RankingSettings, UnrankedEntry, rank_candidates
from redtest_onnx.report.figures import check_figure
from redtest_onnx.report.numbers import plural
from redtest_onnx.report.page.others import ranking_page
from redtest_onnx.report.page.render import save_page
from redtest_onnx.report.ranking_figures import save_ranking_figure
from redtest_onnx.report.table_formats import TableFormat
from redtest_onnx.search.evaluate import MSRS_SOURCES
from redtest_onnx.search.pytorch import require_torch
from redtest_onnx.search.rows import RowSpace
from redtest_onnx.search.search import SearchBudget, SearchResult, search
from redtest_onnx.search.settings import SearchSettings
from redtest_onnx.search.store import Failure, Store
from redtest_onnx.search.strategies import STRATEGIES

# What may be given from run to run of the same search.
_FREE = frozenset(
    {*PLACES, "resume", "evaluations", "seconds", "target", "expected", "top", "best"}
    | {"engine", "workers", "address"}
    | {"png", "html", "form", "json_path", "force", "verbose", "quiet"}
)
_EVALUATIONS = 100
_ENDS = {
    "evaluations": "",
    "seconds": " The time is used up; --resume goes on.",
    "space": " Nothing new is left to propose.",
}


@click.command(
    "search",
    cls=Command,
    examples=(
        "redtest-onnx search --data train.zip --evaluations 200 --workers 2",
        "redtest-onnx search --metrics table.csv --benchmark-data cifar100 --cost latency",
        "redtest-onnx search --resume search.sqlite --evaluations 400",
    ),
)
@click.option(
    "--space",
    help="topology (NATS-Bench), topology-WIDTHxCELLS, size, or an installed one; what the rows of --metrics "
    "are of. [default: topology]",
)
@click.option("--output", type=options.FilePath, help="SQLite file of results. [default: search.sqlite]")
@click.option("--resume", type=options.FilePath, help="Go on with the search in this file.")
@click.option(
    "--strategy",
    type=click.Choice(STRATEGIES),
    help="random, regularised evolution, Optuna's tree-structured Parzen estimator, or all rows of a table. "
    "[default: all where a table has every number, else evolution]",
)
@click.option(
    "--evaluations",
    type=click.IntRange(min=1),
    help="Different architectures to evaluate, those of earlier runs included. [default: 100; every row with "
    "the strategy all]",
)
@click.option(
    "--seconds", type=click.FloatRange(min=0, min_open=True), help="Begin nothing new after this time."
)
@click.option(
    "--epochs",
    type=click.IntRange(min=0),
    default=12,
    show_default=True,
    help="Of each training on --data; 0 measures untrained networks.",
)
@click.option(
    "--batch-size", type=click.IntRange(min=2), default=50, show_default=True, help="Images per step of it."
)
@click.option(
    "--metrics",
    type=options.FilePath,
    help="CSV with `architecture`, `accuracy` and other measures; its rows are what is searched.",
)
@click.option(
    "--benchmark",
    type=options.FilePath,
    help="Unpacked folder of NATS-Bench (topology); the records in it are what is searched.",
)
@click.option(
    "--benchmark-data",
    type=click.Choice(BENCHMARK_DATA),
    help="Which of its data sets, and whose w, beta, M and T of RedTest serve. [default: cifar10, with "
    "--benchmark]",
)
@click.option(
    "--msrs",
    type=click.Choice(MSRS_SOURCES),
    help="What MSRS is measured on: taken from --metrics, on the weights in --benchmark, on networks trained "
    "on --data, or on untrained ones. [default: --metrics, else trained]",
)
@click.option("--models", type=options.FilePath, help="Folder to keep the trained networks in as ONNX files.")
@click.option(
    "--population",
    type=click.IntRange(min=2),
    default=20,
    show_default=True,
    help="Architectures alive in evolution.",
)
@click.option(
    "--tournament",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Of which a parent is the best.",
)
@click.option(
    "--window",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Proposals open at a time, unless random; more workers than that have nothing to do.",
)
@click.option(
    "--device",
    type=DeviceName(),
    default="cpu",
    show_default=True,
    help="Where networks are trained; latency is always the CPU's.",
)
@click.option("--png", type=options.FilePath, help="Write accuracy over cost as a picture.")
@click.option("--html", type=options.FilePath, help="Write a page with all candidates.")
@ranking_options.score_options
@ranking_options.engine_options
@options.training_data_options
@options.format_option
@options.output_options
@click.pass_context
def command(
    context: click.Context,
    /,
    output: Path | None,
    resume: Path | None,
    evaluations: int | None,
    seconds: float | None,
    png: Path | None,
    html: Path | None,
    form: TableFormat,
    top: int,
    json_path: str | None,
    force: bool,
    verbose: int,
    quiet: bool,
    **values: Any,
) -> None:
    """Search a space of architectures for accuracy at low cost and redundancy.

    Every result is in the SQLite file as soon as it is there: `rank FILE` shows them at any time, and
    --resume goes on after an interruption.
    """
    options.configure_logging(verbose, quiet)
    screen = Screen(quiet=quiet, json_on_stdout=json_path == "-", form=form)
    check_figure(png)
    path = resume or output or Path("search.sqlite")
    new, old = (None, path) if resume else (path, None)
    named = {"--png": png, "--html": html, "--json": json_path, "--output": new}
    outputs = Outputs.of(named, force=force, kept={"--resume": old})
    engine = ranking_options.engine_options_of(values)
    benchmark_data: BenchmarkData | None = values["benchmark_data"]
    ranking = ranking_options.ranking_settings_of(values)
    if resume:
        refuse_changes(context, _FREE)
        store = Store.open(resume)
        settings = SearchSettings.from_json(store.settings, resume)
        check_places(screen, settings, resume, values)
    else:
        settings = search_settings_of({**values, "benchmark_data": benchmark_data}, ranking)
    space = settings.make_space()
    if not settings.complete:
        require_torch()
    outputs.spare(*(Path(place) for place in (settings.data, settings.metrics, settings.benchmark) if place))
    if not resume:
        store = Store.create(path, settings.as_json(), force=force)
    rows = len(space.names) if isinstance(space, RowSpace) else None
    if evaluations is None:
        evaluations = rows if rows and settings.strategy == "all" else _EVALUATIONS
    with store, screen.progress() as progress:
        found = search(
            settings.evaluation(),
            space,
            settings.make_strategy(),
            settings.fitness(),
            store,
            SearchBudget(evaluations if rows is None else min(evaluations, rows), seconds),
            window=settings.window,
            engine=engine,
            progress=progress,
        )
    _report(screen, found, settings.ranking(ranking), SearchOutputs(top, png, html, json_path))


@dataclass(frozen=True)
class SearchOutputs:
    """What is shown and written of a search.

    Attributes:
        top: rows of the table.
        png: the picture.
        html: the page.
        json_path: the document; "-" for stdout.
    """

    top: int
    png: Path | None
    html: Path | None
    json_path: str | None


def _report(screen: Screen, found: SearchResult, settings: RankingSettings, outputs: SearchOutputs) -> None:
    candidates = [outcome for outcome in found.outcomes if isinstance(outcome, MeasuredCandidate)]
    failed = [UnrankedEntry(o.name, o.error) for o in found.outcomes if isinstance(o, Failure)]
    ranking = rank_candidates(candidates, settings, failed)
    table = f"{len(found.outcomes)} are in the table"
    ended = f"Evaluated {plural(found.evaluated, 'architecture')}, {table}.{_ENDS[found.reason]}"
    ranking_options.show_ranking(screen, ranking, outputs.top)
    screen.show(ended)
    if outputs.html:
        save_page(ranking_page(ranking, provenance(), title="Search", notes=[ended]), outputs.html)
    if outputs.png:
        save_ranking_figure(ranking, outputs.png)
    if outputs.json_path:
        document = ranking_document("search", ranking)
        document["evaluated"], document["reason"] = found.evaluated, found.reason
        write_json(document, outputs.json_path)
