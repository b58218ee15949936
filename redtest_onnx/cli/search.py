"""`redtest-onnx search`."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from redtest_onnx.cli import options, ranking_options
from redtest_onnx.cli.console import Screen
from redtest_onnx.cli.help import Command
from redtest_onnx.cli.outputs import Outputs
from redtest_onnx.cli.pages import provenance
from redtest_onnx.cli.parameters import DeviceName
from redtest_onnx.cli.tracked_search import note_candidate, note_ranking
from redtest_onnx.cli.tracking_options import document_path, tracking_options, tracking_options_of
from redtest_onnx.data.user_code import names_function
from redtest_onnx.documents.base import write_json
from redtest_onnx.errors import InputError
from redtest_onnx.ranking.accuracy import BENCHMARK_DATA
from redtest_onnx.ranking.candidate import MeasuredCandidate
from redtest_onnx.ranking.correlation import correlations
from redtest_onnx.ranking.documents import ranking_document
from redtest_onnx.ranking.rank import Ranking, RankingSettings, UnrankedEntry, rank_candidates
from redtest_onnx.report.figures import check_figure
from redtest_onnx.report.numbers import plural
from redtest_onnx.report.page.others import ranking_page
from redtest_onnx.report.page.render import save_page
from redtest_onnx.report.rankings import save_ranking_figure
from redtest_onnx.report.table_formats import TableFormat
from redtest_onnx.search.pytorch import require_torch
from redtest_onnx.search.search import SearchBudget, SearchResult, search
from redtest_onnx.search.settings import SearchSettings
from redtest_onnx.search.space import get_space
from redtest_onnx.search.store import Failure, Store
from redtest_onnx.search.strategies import STRATEGIES

# Options that name what a search reads and writes.
_PLACES = ("data", "metrics", "benchmark", "models")

# What may be given from run to run of the same search.
_FREE = frozenset(
    {*_PLACES, "resume", "evaluations", "seconds", "target", "expected", "top"}
    | {"engine", "workers", "address", "track", "run_name"}
    | {"png", "html", "form", "json_path", "force", "verbose", "quiet"}
)
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
        "redtest-onnx search --space size --data digits.npz --by S2 --cost latency",
        "redtest-onnx search --resume search.sqlite --evaluations 400",
    ),
)
@click.option(
    "--space",
    default="topology",
    show_default=True,
    help="topology (NATS-Bench), topology-WIDTHxCELLS, size, or an installed one.",
)
@click.option("--output", type=options.FilePath, help="SQLite file of results. [default: search.sqlite]")
@click.option("--resume", type=options.FilePath, help="Go on with the search in this file.")
@click.option(
    "--strategy",
    type=click.Choice(STRATEGIES),
    default="evolution",
    show_default=True,
    help="random, regularised evolution, or Optuna's tree-structured Parzen estimator.",
)
@click.option(
    "--evaluations",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="Different architectures to evaluate, those of earlier runs included.",
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
@click.option("--metrics", type=options.FilePath, help="CSV with `architecture` and `accuracy`.")
@click.option("--benchmark", type=options.FilePath, help="Unpacked folder of NATS-Bench (topology).")
@click.option(
    "--benchmark-data",
    type=click.Choice(BENCHMARK_DATA),
    default="cifar10",
    show_default=True,
    help="Which of its data sets; with --benchmark also whose w, beta, M and T of RedTest serve.",
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
@tracking_options
@options.training_data_options
@options.format_option
@options.output_options
@click.pass_context
def command(
    context: click.Context,
    /,
    output: Path | None,
    resume: Path | None,
    evaluations: int,
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
    require_torch()
    tracking = tracking_options_of(values)
    engine = ranking_options.engine_options_of(values)
    benchmark_data = values["benchmark_data"]
    ranking = ranking_options.ranking_settings_of(values)
    values["benchmark_data"] = benchmark_data
    if values["benchmark"] is None:
        ranking = replace(ranking, benchmark=None)
    if resume:
        _refuse_changes(context)
        store = Store.open(resume)
        settings = SearchSettings.from_json(store.settings, resume)
        _check_places(screen, settings, resume, values)
        _spare_inputs(outputs, settings)
    else:
        settings = _settings(values, *ranking.weights, cost=ranking.cost, by=ranking.by)
        _spare_inputs(outputs, settings)
        store = Store.create(path, settings.as_json(), force=force)
    with tracking.open("search") as tracked:
        tracked.parameters(settings.as_json())
        with store, screen.progress() as progress:
            found = search(
                settings.evaluation(),
                get_space(settings.space),
                settings.make_strategy(),
                settings.fitness(),
                store,
                SearchBudget(evaluations, seconds),
                window=settings.window,
                engine=engine,
                progress=progress,
                report=partial(note_candidate, tracked, settings.fitness()),
            )
        ranked = _report(
            screen, found, settings.ranking(ranking.target, ranking.expected), top, png, html, json_path
        )
        note_ranking(tracked, ranked, found)
        tracked.artefacts(path, png, html, document_path(json_path))
        places = tracked.where
    screen.show(*(f"Tracked by {place}." for place in places))


def _settings(values: dict[str, Any], exponent: float, beta: float, **score: Any) -> SearchSettings:
    images = asdict(options.images_of(values))
    if values["data"] is None and values["metrics"] is None and values["benchmark"] is None:
        raise InputError(
            "nothing tells the accuracy of a candidate",
            hint="give --data to train with, or --metrics, or --benchmark",
        )
    if values["data"] is None and score["by"] == "S3" and values["metrics"] is None:
        raise InputError(
            "S3 needs the MSRS of trained networks", hint="give --data to train with, or choose --by S2"
        )
    if values["models"]:
        values["models"].mkdir(parents=True, exist_ok=True)
    for name in ("data", "metrics", "benchmark", "models"):
        values[name] = str(values[name].resolve()) if values[name] else None
    get_space(values["space"])
    if values["strategy"] == "random":
        values["window"] = None
    return SearchSettings(**values, **score, images=images, exponent=exponent, beta=beta)


def _spare_inputs(outputs: Outputs, settings: SearchSettings) -> None:
    outputs.spare(*(Path(place) for place in (settings.data, settings.metrics, settings.benchmark) if place))


def _refuse_changes(context: click.Context) -> None:
    """A search that goes on is the same search."""
    given = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name is not None
        and parameter.name not in _FREE
        and context.get_parameter_source(parameter.name) is click.core.ParameterSource.COMMANDLINE
    ]
    if given:
        raise InputError(
            f"--resume takes what the search depends on from its file, not from {', '.join(given)}",
            hint="leave these options out, or begin a new search with --output",
        )


def _check_places(screen: Screen, settings: SearchSettings, file: Path, given: dict[str, Any]) -> None:
    """Show what a search file makes this run read and write, and refuse what the user did not allow.

    The file may come from anywhere. What it names may lie below its own folder; everything else has to be
    named again, and so has what runs code: a benchmark, whose files
    are pickles, and a function of a Python file.

    Raises:
        InputError: naming the option that allows it.
    """
    for name in _PLACES:
        place: str | None = getattr(settings, name)
        again: Path | None = given[name]
        if again is not None and str(again.resolve()) != place:
            raise InputError(
                f"the search in it was begun with {f'--{name} {place}' if place else f'no --{name}'}",
                where=str(file),
                hint="name the same, or begin a new search with --output",
            )
        if place is None:
            continue
        inside = Path(place).resolve().is_relative_to(file.resolve().parent)
        runs = name == "benchmark" or names_function(place)
        if again is None and (runs or not inside):
            raise InputError(
                f"it takes --{name} from {place}",
                where=str(file),
                hint=f"if that is yours, say so: --{name} {place}",
            )
        screen.note(f"--{name} as the file says: {place}")


def _report(
    screen: Screen,
    found: SearchResult,
    settings: RankingSettings,
    top: int,
    png: Path | None,
    html: Path | None,
    json_path: str | None,
) -> Ranking:
    candidates = [outcome for outcome in found.outcomes if isinstance(outcome, MeasuredCandidate)]
    failed = [UnrankedEntry(o.name, o.error) for o in found.outcomes if isinstance(o, Failure)]
    ranking = rank_candidates(candidates, settings, failed)
    proxies = correlations(candidates)
    ranking_options.show_ranking(screen, ranking, top)
    table = f"{len(found.outcomes)} are in the table"
    ended = f"Evaluated {plural(found.evaluated, 'architecture')}, {table}.{_ENDS[found.reason]}"
    screen.show(ended)
    if proxies:
        told = ", ".join(f"{item.proxy} {item.spearman:+.2f}" for item in proxies)
        screen.show(f"Rank correlation (Spearman) with accuracy: {told}.")
    if html:
        save_page(ranking_page(ranking, provenance(), title="Search", notes=[ended]), html)
    if png:
        save_ranking_figure(ranking, png)
    if json_path:
        document = ranking_document("search", ranking)
        document["proxies"] = [asdict(item) for item in proxies]
        document["evaluated"], document["reason"] = found.evaluated, found.reason
        write_json(document, json_path)
    return ranking
