"""What `search` was asked for: the settings of a new search, and what a search that goes on may change."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from redtest_onnx.cli import options
from redtest_onnx.cli.console import Screen
from redtest_onnx.cli.parameters import given_options
from redtest_onnx.data.user_code import names_function
from redtest_onnx.errors import InputError, OutputError
from redtest_onnx.ranking.accuracy import BenchmarkData
from redtest_onnx.ranking.rank import RankingSettings
from redtest_onnx.ranking.table import AccuracyTable
from redtest_onnx.report.numbers import plural
from redtest_onnx.search.settings import SearchSettings
from redtest_onnx.search.store import Store

PLACES = ("data", "metrics", "benchmark", "models")
"""Options that name what a search reads and writes."""


def search_settings_of(values: dict[str, Any], ranking: RankingSettings) -> SearchSettings:
    """The settings of a new search.

    Raises:
        InputError: nothing tells accuracy or MSRS, or the space is not known.
    """
    images = asdict(options.images_of(values))
    table, benchmark, data, msrs = (values[name] for name in ("metrics", "benchmark", "data", "msrs"))
    if data is None and table is None and benchmark is None:
        raise InputError(
            "nothing tells the accuracy of a candidate",
            hint="give --data to train with, or --metrics, or --benchmark",
        )
    measured = data is not None or msrs not in (None, "table")
    if ranking.by == "S3" and not measured and not (table and AccuracyTable.read(table).has_any("msrs")):
        raise InputError(
            "S3 needs the MSRS of candidates, and nothing tells it",
            hint="give --metrics with a column msrs, --data to train networks for it, or --msrs untrained; "
            "or choose --by S2",
        )
    _check_msrs(msrs, table=table, benchmark=benchmark, data=data)
    if values["models"]:
        values["models"].mkdir(parents=True, exist_ok=True)
    for name in ("data", "metrics", "benchmark", "models"):
        values[name] = str(values[name].resolve()) if values[name] else None
    values["rows"] = values["space"] is None and (table or benchmark) is not None
    values["space"] = values["space"] or "topology"
    exponent, beta = ranking.weights
    constants: BenchmarkData | None = values["benchmark_data"]
    values["constants"] = constants or ("cifar10" if benchmark else None)
    values["benchmark_data"] = constants or "cifar10"
    strategy = values.pop("strategy")
    made = SearchSettings(
        **values,
        strategy=strategy or "evolution",
        cost=ranking.cost,
        by=ranking.by,
        images=images,
        exponent=exponent,
        beta=beta,
    )
    if strategy is None and made.complete:
        made = replace(made, strategy="all")
    if made.strategy in ("random", "all"):
        made = replace(made, window=None)
    return made


def _check_msrs(msrs: str | None, *, table: object, benchmark: object, data: object) -> None:
    """Refuse a source of MSRS that lacks what it is measured with."""
    needs = {
        "table": ("--metrics with a column msrs", table),
        "weights": ("--benchmark with weights and --data with images", benchmark and data),
        "trained": ("--data with images", data),
    }
    what, given = needs.get(msrs or "", ("", True))
    if not given:
        raise InputError(f"--msrs {msrs} needs {what}")


def refuse_changes(context: click.Context, free: frozenset[str]) -> None:
    """A search that goes on is the same search: refuse options that are not `free` to change.

    Raises:
        InputError: naming them.
    """
    given = [flag for name, flag in given_options(context).items() if name not in free]
    if given:
        raise InputError(
            f"--resume takes what the search depends on from its file, not from {', '.join(given)}",
            hint="leave these options out, or begin a new search with --output",
        )


def refuse_begun(path: Path) -> None:
    """Refuse to begin a search where there is one.

    Raises:
        OutputError: the file holds the results of a search.
    """
    if not path.is_file():
        return
    try:
        with Store.open(path):
            pass
    except InputError:
        return  # whatever it is, it can't be continued
    raise OutputError(
        "holds a search already",
        where=str(path),
        hint=f"--resume {path} continues it; --force throws it away",
    )


@contextmanager
def kept_if_interrupted(screen: Screen, store: Store, settings: SearchSettings, path: Path) -> Iterator[None]:
    """Say how a search that is interrupted is resumed.

    Args:
        screen: where.
        store: its results.
        settings: what they depend on.
        path: of the store.
    """
    try:
        yield
    except KeyboardInterrupt:
        kept = plural(len(store.outcomes()), "architecture")
        command = ["redtest-onnx", "search", "--resume", str(path)]
        for name in PLACES:
            place: str | None = getattr(settings, name)
            if place is not None and _has_to_be_named(name, place, path):
                command += [f"--{name}", place]
        screen.note(f"{path} holds the results of {kept}; to continue from there: {shlex.join(command)}")
        raise


def _has_to_be_named(name: str, place: str, file: Path) -> bool:
    """Whether --resume takes a place only if it is given again."""
    inside = Path(place).resolve().is_relative_to(file.resolve().parent)
    return name == "benchmark" or names_function(place) or not inside


def check_places(screen: Screen, settings: SearchSettings, file: Path, given: dict[str, Any]) -> None:
    """Show what a search file makes this run read and write, and refuse what the user did not allow.

    The file may come from anywhere. What it names may lie below its own folder; everything else has to be
    named again, and so has what runs code: a benchmark, whose files
    are pickles, and a function of a Python file.

    Raises:
        InputError: naming the option that allows it.
    """
    for name in PLACES:
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
        if again is None and _has_to_be_named(name, place, file):
            raise InputError(
                f"it takes --{name} from {place}",
                where=str(file),
                hint=f"if that is yours, say so: --{name} {place}",
            )
        screen.note(f"--{name} as the file says: {place}")
