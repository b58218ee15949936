"""`redtest-onnx rank`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from redtest_onnx.cli import file_names, options, ranking_options
from redtest_onnx.cli.groups import OutputOptions, grouped
from redtest_onnx.cli.help import Command
from redtest_onnx.cli.outputs import Outputs
from redtest_onnx.cli.pages import provenance
from redtest_onnx.documents.base import write_json
from redtest_onnx.engines.run import EngineOptions, run_all
from redtest_onnx.errors import InputError
from redtest_onnx.ranking.candidate import Candidate
from redtest_onnx.ranking.documents import ranking_document
from redtest_onnx.ranking.models import ModelMeasurement, find_models
from redtest_onnx.ranking.rank import UnrankedEntry, rank_candidates
from redtest_onnx.ranking.table import AccuracyTable
from redtest_onnx.report.families import save_family_figure
from redtest_onnx.report.page.others import ranking_page
from redtest_onnx.report.page.render import save_page
from redtest_onnx.report.ranking_figures import save_ranking_figure
from redtest_onnx.search.store import Failure, Store
from redtest_onnx.similarity.analyze import AnalysisSettings, Progress

_RUNS = frozenset({".sqlite", ".db"})


@dataclass(frozen=True)
class RankOutputs:
    """What is shown of a ranking.

    Attributes:
        top: rows of the table.
        png: the picture.
        html: the page.
        family: the picture of redundancy over cost.
    """

    top: int
    png: Path | None
    html: Path | None
    family: Path | None


@click.command(
    "rank",
    cls=Command,
    examples=(
        "redtest-onnx rank models/ --data validation.zip",
        "redtest-onnx rank a.onnx b.onnx --data validation.zip --cost latency",
        "redtest-onnx rank --metrics table.csv --benchmark-data cifar100 --png figure.png",
    ),
)
@click.argument("models", type=options.FilePath, nargs=-1)
@click.option(
    "--metrics",
    type=options.FilePath,
    help="CSV with a column `name` (the file's), `accuracy` and other measures that take the place of ours; "
    "without MODELS its rows are ranked.",
)
@click.option(
    "--png", type=file_names.PICTURE, help="Write accuracy over cost as a picture (.png, .svg, .pdf)."
)
@click.option("--html", type=file_names.PAGE, help="Write a page with all candidates.")
@click.option(
    "--family",
    type=file_names.PICTURE,
    help="Write MSRS, accuracy and cost of all models side by side as a picture (.png, .svg, .pdf).",
)
@ranking_options.score_options
@ranking_options.benchmark_option
@ranking_options.engine_options
@options.measure_options
@options.data_options
@options.run_options
@options.format_option
@options.output_options
@grouped(shown=RankOutputs, given=OutputOptions)
def command(
    models: tuple[Path, ...], metrics: Path | None, shown: RankOutputs, given: OutputOptions, **values: Any
) -> None:
    """Put trained MODELS (files, folders, or the .sqlite file of a search) in order.

    The order is by accuracy, cost and redundancy. Accuracy comes from labels in --data or from --metrics;
    without MODELS the rows of --metrics are the candidates.
    """
    given.start_log()
    screen = given.screen()
    table = AccuracyTable.read(metrics) if metrics else None
    if table is None and not models:
        raise InputError("there is nothing to rank", hint="give MODELS, or --metrics table.csv, or both")
    named = {"--png": shown.png, "--html": shown.html, "--family": shown.family, "--json": given.json_path}
    settings = ranking_options.ranking_settings_of(values)
    engine = ranking_options.engine_options_of(values)
    run = options.run_options_of(values)
    data = options.data_options_of(values)
    Outputs.of(named, force=given.force, reads=(*data.reads(*models), metrics), models=models)
    measurement = ModelMeasurement(
        samples=data.open,
        settings=AnalysisSettings(**values),
        options=run,
        latency=settings.cost == "latency",
        metrics=table,
    )
    candidates: list[Candidate]
    failed: list[UnrankedEntry] = []
    if data.data and not any(path.suffix not in _RUNS for path in models):
        raise InputError(
            "--data measures MODELS, and there are none", hint="give models, or leave --data out"
        )
    if table is not None and not models:
        candidates = table.candidates()
    else:
        with screen.progress() as progress:
            candidates, failed = _measure(list(find_models(models)), measurement, engine, progress)
    ranking = rank_candidates(candidates, settings, failed, table)
    ranking_options.show_ranking(screen, ranking, shown.top)
    if shown.html:
        save_page(ranking_page(ranking, provenance()), shown.html)
    if shown.png:
        save_ranking_figure(ranking, shown.png)
    if shown.family:
        save_family_figure([row.candidate for row in ranking.rows], settings.cost, shown.family)
    if given.json_path:
        write_json(ranking_document("rank", ranking), given.json_path)


def _measure(
    paths: list[Path], measurement: ModelMeasurement, engine: EngineOptions, progress: Progress
) -> tuple[list[Candidate], list[UnrankedEntry]]:
    """Candidates in the order of their files, and what could not be measured."""
    candidates: list[Candidate] = []
    failed: list[UnrankedEntry] = []
    for path in (path for path in paths if path.suffix in _RUNS):
        with Store.open(path) as store:
            for outcome in store.outcomes().values():
                if isinstance(outcome, Failure):
                    failed.append(UnrankedEntry(outcome.name, outcome.error))
                else:
                    candidates.append(outcome)
    files = [str(path) for path in paths if path.suffix not in _RUNS]
    measured: dict[str, Candidate] = {}
    for done, finished in enumerate(run_all(measurement, files, engine), start=1):
        progress(done, len(files), "measuring models")
        if finished.value is None:
            failed.append(UnrankedEntry(finished.piece, finished.error or ""))
        else:
            measured[finished.piece] = finished.value
    candidates += [measured[name] for name in files if name in measured]
    return candidates, sorted(failed, key=lambda item: item.name)
