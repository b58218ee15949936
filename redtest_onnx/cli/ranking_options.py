"""Options that `rank` and `search` share: scores, and where the work runs."""

from __future__ import annotations

from typing import Any

import click

from redtest_onnx.cli.console import Screen
from redtest_onnx.cli.options import Command, apply
from redtest_onnx.engines.run import EngineOptions
from redtest_onnx.ranking.accuracy import BENCHMARK_DATA
from redtest_onnx.ranking.candidate import COSTS
from redtest_onnx.ranking.expected import ExpectedMsrs
from redtest_onnx.ranking.rank import Ranking, RankingSettings
from redtest_onnx.ranking.score import SCORES
from redtest_onnx.report.numbers import plural
from redtest_onnx.report.rankings import (
    correlation_table,
    means_table,
    measure_name,
    origin_words,
    ranking_table,
    score_words,
)

_MOST_NAMED = 20


def score_options(function: Command) -> Command:
    """How candidates are scored."""
    return apply(
        function,
        click.option(
            "--cost",
            type=click.Choice(COSTS),
            default="macs",
            show_default=True,
            help="The cost that counts beside accuracy.",
        ),
        click.option(
            "--by",
            type=click.Choice(SCORES),
            default="S3",
            show_default=True,
            help="Accuracy alone, with cost, or with cost and redundancy.",
        ),
        click.option("--exponent", type=float, help="Weight of cost, at most 0. [default: RedTest's]"),
        click.option("--beta", type=float, help="Weight of redundancy, at least 0. [default: RedTest's]"),
        click.option(
            "--target",
            type=click.FloatRange(min=0, min_open=True),
            help="Cost that scales the score. [default: median]",
        ),
        click.option(
            "--expected",
            type=click.FloatRange(min=0, min_open=True),
            help="M, the MSRS that counts as usual. [default: RedTest's 35]",
        ),
        click.option(
            "--top", type=click.IntRange(min=1), default=20, show_default=True, help="Rows of the table."
        ),
        click.option(
            "--best",
            type=click.IntRange(min=1),
            help="Candidates that the means under S1, S2 and S3 are taken of. [default: a tenth, at most 20]",
        ),
    )


def benchmark_option(function: Command) -> Command:
    """Whose constants score."""
    return apply(
        function,
        click.option(
            "--benchmark-data",
            "benchmark_data",
            type=click.Choice(BENCHMARK_DATA),
            help="Take w, beta, M and T from RedTest for this data set. [default: w and beta of cifar10]",
        ),
    )


def engine_options(function: Command) -> Command:
    """Where the work runs."""
    return apply(
        function,
        click.option(
            "--engine",
            type=click.Choice(["local", "ray"]),
            default="local",
            show_default=True,
            help="Processes of this machine, or a Ray cluster.",
        ),
        click.option(
            "--workers",
            type=click.IntRange(min=1),
            default=1,
            show_default=True,
            help="Local processes; more than one disturb each other's latency.",
        ),
        click.option("--address", help="Of a Ray cluster, such as auto or host:6379. [default: start one]"),
    )


def ranking_settings_of(values: dict[str, Any]) -> RankingSettings:
    """Take the score options out of a command's values."""
    names = ("cost", "by", "exponent", "beta", "target", "expected", "best")
    benchmark = values.pop("benchmark_data", None)
    return RankingSettings(**{name: values.pop(name) for name in names}, benchmark=benchmark)


def engine_options_of(values: dict[str, Any]) -> EngineOptions:
    """Take the engine options out of a command's values."""
    return EngineOptions(values.pop("engine"), values.pop("workers"), values.pop("address"))


def show_ranking(screen: Screen, ranking: Ranking, top: int) -> None:
    """The ranking on stdout."""
    settings = ranking.settings
    lines = [
        f"{plural(len(ranking.rows), 'candidate')} by {score_words(settings)}; * is on the Pareto front of "
        f"accuracy, {measure_name(settings.cost)} and MSRS."
    ]
    if ranking.fit is not None and settings.by == "S3":
        lines.append(_expected(ranking.fit))
    lines += origin_words(ranking)
    if ranking.unranked:
        lines.append(f"{len(ranking.unranked)} not ranked:")
        lines += [f"  {item.name}: {item.reason}" for item in ranking.unranked[:_MOST_NAMED]]
        if len(ranking.unranked) > _MOST_NAMED:
            lines.append(f"  and {len(ranking.unranked) - _MOST_NAMED} more: all are in --json")
    screen.show(ranking_table(ranking, top), *lines)
    if ranking.means:
        screen.detail(means_table(ranking))
    if ranking.correlations:
        screen.detail(correlation_table(ranking))


def _expected(fit: ExpectedMsrs) -> str:
    """What MSRS networks of a depth have here."""
    low, high = fit.depths
    if len(fit.coefficients) == 1:
        return f"The mean MSRS of {plural(fit.points, 'candidate')} is {fit}."
    source = f"{fit.points} candidates of {low} to {high} layers"
    return f"MSRS over the number of layers L: {fit}, fitted to {source} (r2 {fit.r2:.2f}); not in the score."
