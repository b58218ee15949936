"""`redtest-onnx search`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click

from redtest_onnx.cli import file_names, options, ranking_options
from redtest_onnx.cli.console import Screen
from redtest_onnx.cli.groups import OutputOptions, grouped
from redtest_onnx.cli.help import Command
from redtest_onnx.cli.outputs import Outputs
from redtest_onnx.cli.pages import provenance
from redtest_onnx.cli.parameters import DeviceName
from redtest_onnx.cli.search_requests import (
    PLACES,
    check_places,
    kept_if_interrupted,
    refuse_begun,
    refuse_changes,
    search_settings_of,
)
from redtest_onnx.cli.tracked_search import note_candidate, note_ranking
from redtest_onnx.cli.tracking_options import document_path, tracking_options, tracking_options_of
from redtest_onnx.documents.base import write_json
from redtest_onnx.ranking.accuracy import BENCHMARK_DATA, BenchmarkData
from redtest_onnx.ranking.candidate import MeasuredCandidate
from redtest_onnx.ranking.documents import ranking_document
from redtest_onnx.ranking.rank import Ranking, RankingSettings, UnrankedEntry, rank_candidates
from redtest_onnx.report.numbers import plural
from redtest_onnx.report.page.others import ranking_page
from redtest_onnx.report.page.render import save_page
from redtest_onnx.report.ranking_figures import save_ranking_figure
from redtest_onnx.search.evaluate import MSRS_SOURCES
from redtest_onnx.search.pytorch import require_torch
from redtest_onnx.search.rows import RowSpace
from redtest_onnx.search.search import SearchBudget, SearchProblem, SearchResult, search
from redtest_onnx.search.settings import SearchSettings
from redtest_onnx.search.store import Failure, Store
from redtest_onnx.search.strategies import STRATEGIES

# What may be given from run to run of the same search.
_FREE = frozenset(
    {*PLACES, "resume", "evaluations", "seconds", "target", "expected", "top", "best"}
    | {"engine", "workers", "address", "track", "run_name"}
    | {"png", "html", "form", "json_path", "force", "verbose", "quiet"}
)
_EVALUATIONS = 100
_ENDS = {
    "evaluations": "",
    "seconds": " The time is used up; --resume goes on.",
    "space": " Nothing new is left to propose.",
}


@dataclass(frozen=True)
class SearchOptions:
    """Where results are kept, and when a search ends.

    Attributes:
        output: a new SQLite file.
        resume: one that is there.
        evaluations: at most so many.
        seconds: at most so long.
    """

    output: Path | None
    resume: Path | None
    evaluations: int | None
    seconds: float | None


@dataclass(frozen=True)
class SearchOutputs:
    """What is shown of a search.

    Attributes:
        top: rows of the table.
        png: the picture.
        html: the page.
    """

    top: int
    png: Path | None
    html: Path | None


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
@click.option(
    "-o", "--output", type=file_names.SEARCH, help="SQLite file of results. [default: search.sqlite]"
)
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
@click.option(
    "--models", type=file_names.OUTPUT, help="Folder to keep the trained networks in as ONNX files."
)
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
@click.option("--png", type=file_names.PICTURE, help="Write accuracy over cost as a picture.")
@click.option("--html", type=file_names.PAGE, help="Write a page with all candidates.")
@ranking_options.score_options
@ranking_options.engine_options
@tracking_options
@options.training_data_options
@options.format_option
@options.output_options
@click.pass_context
@grouped(asked=SearchOptions, shown=SearchOutputs, given=OutputOptions)
def command(
    context: click.Context,
    /,
    asked: SearchOptions,
    shown: SearchOutputs,
    given: OutputOptions,
    **values: Any,
) -> None:
    """Search a space of architectures for accuracy at low cost and redundancy.

    Every result is in the SQLite file as soon as it is there: `rank FILE` shows them at any time, and
    --resume goes on after an interruption.
    """
    given.start_log()
    screen = given.screen()
    resume = asked.resume
    path = resume or asked.output or Path("search.sqlite")
    new, old = (None, path) if resume else (path, None)
    named = {"--png": shown.png, "--html": shown.html, "--json": given.json_path, "--output": new}
    reads = (values["data"], values["metrics"], values["benchmark"])
    if new and not given.force:
        refuse_begun(new)
    outputs = Outputs.of(named, force=given.force, kept={"--resume": old}, reads=reads)
    tracking = tracking_options_of(values)
    engine = ranking_options.engine_options_of(values)
    benchmark_data: BenchmarkData | None = values["benchmark_data"]
    ranking = ranking_options.ranking_settings_of(values)
    if resume:
        refuse_changes(context, _FREE)
        store = context.with_resource(Store.open(resume))
        settings = SearchSettings.from_json(store.settings, resume)
        check_places(screen, settings, resume, values)
    else:
        settings = search_settings_of({**values, "benchmark_data": benchmark_data}, ranking)
    outputs.spare(*(Path(place) for place in (settings.data, settings.metrics, settings.benchmark) if place))
    space, evaluation = settings.make_space(), settings.evaluation()
    if not settings.complete:
        require_torch()
        evaluation.check()  # before there is a file
    if not resume:
        store = context.with_resource(Store.create(path, settings.as_json(), force=given.force))
    rows = len(space.names) if isinstance(space, RowSpace) else None
    evaluations = asked.evaluations
    if evaluations is None:
        evaluations = rows if rows and settings.strategy == "all" else _EVALUATIONS
    with tracking.open("search") as tracked:
        tracked.parameters(settings.as_json())
        with kept_if_interrupted(screen, store, settings, path), screen.progress() as progress:
            found = search(
                evaluation,
                SearchProblem(space, settings.make_strategy(), settings.fitness(), settings.window),
                store,
                SearchBudget(evaluations if rows is None else min(evaluations, rows), asked.seconds),
                engine=engine,
                progress=progress,
                report=partial(note_candidate, tracked, settings.fitness()),
            )
        ranked = _report(screen, found, settings.ranking(ranking), shown)
        if given.json_path:
            document = ranking_document("search", ranked)
            document["evaluated"], document["reason"] = found.evaluated, found.reason
            write_json(document, given.json_path)
        note_ranking(tracked, ranked, found)
        tracked.artefacts(path, shown.png, shown.html, document_path(given.json_path))
        places = tracked.where
    screen.show(*(f"Tracked by {place}." for place in places))


def _report(
    screen: Screen, found: SearchResult, settings: RankingSettings, outputs: SearchOutputs
) -> Ranking:
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
    return ranking
