"""Where the accuracy of an architecture comes from if it is not trained for it: a table or a benchmark."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from redtest_onnx.errors import InputError
from redtest_onnx.graph.reading import read_text

NUMBERS = ("accuracy", "test_accuracy", "latency_ms", "parameters", "macs", "msrs")
BenchmarkData = Literal["cifar10", "cifar100", "ImageNet16-120"]
BENCHMARK_DATA: tuple[BenchmarkData, ...] = get_args(BenchmarkData)
_NAMES = ("name", "architecture", "model", "file")


class AccuracySource(Protocol):
    """Knows measures of architectures."""

    def look_up(self, architecture: str) -> Mapping[str, float]:
        """What is known, by names of `Candidate`'s attributes; accuracy at least.

        Raises:
            InputError: nothing is known of this architecture.
        """


@dataclass(frozen=True)
class AccuracyTable:
    """Measures in a CSV file with a column `name` (or `architecture`, `model`, `file`) and `accuracy`.

    Further columns `latency_ms`, `parameters`, `macs` and `msrs` take the place of what would be measured;
    empty cells do not.
    """

    path: Path

    def look_up(self, architecture: str) -> Mapping[str, float]:
        """The row of this name."""
        rows = read_table(self.path)
        if architecture not in rows or "accuracy" not in rows[architecture]:
            raise InputError(f"has no accuracy for {architecture!r}", where=str(self.path))
        return rows[architecture]


@lru_cache(maxsize=4)
def read_table(path: Path) -> dict[str, dict[str, float]]:
    """The numbers of each row of a CSV file by its name.

    Raises:
        InputError: unreadable, no column of names, a name twice, or a value that is no number.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(path), newline=""), restval=""))
    except csv.Error as error:
        raise InputError(f"can't be read: {error}", where=str(path)) from error
    column = next((name for name in _NAMES if rows and name in rows[0]), None)
    if column is None:
        raise InputError(f"has no column of names; one of {', '.join(_NAMES)} is needed", where=str(path))
    table: dict[str, dict[str, float]] = {}
    for line, row in enumerate(rows, start=2):
        name = row[column]
        if None in row:
            raise InputError(f"line {line}: it has more cells than columns", where=str(path))
        if name in table:
            raise InputError(f"line {line}: {name!r} is there twice", where=str(path))
        table[name] = {kind: _number(row[kind], kind, line, path) for kind in NUMBERS if row.get(kind)}
    return table


def _number(text: str, kind: str, line: int, path: Path) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise InputError(f"line {line}: {kind} is {text!r}, no number", where=str(path)) from error
    if kind.endswith("accuracy") and not 0 <= value <= 1:
        raise InputError(
            f"line {line}: accuracy {text} is no share of 1", where=str(path), hint="write 92.5 % as 0.925"
        )
    if not math.isfinite(value) or value < 0:
        raise InputError(f"line {line}: {kind} is {text!r}, no size", where=str(path))
    return int(value) if kind in ("parameters", "macs") else value


@dataclass(frozen=True)
class NatsBench:
    """The files of NATS-Bench's topology space, read by the package `nats_bench`.

    Accuracy is on the validation images after 12 epochs, which is what a search may see; test accuracy after
    200. Costs are the benchmark's own: multiply-accumulates, which it calls FLOPs, and the time of a batch.

    Attributes:
        path: the unpacked folder `NATS-tss-v1_0-...-simple`.
        data: which images.
    """

    path: Path
    data: BenchmarkData = "cifar10"

    def look_up(self, architecture: str) -> Mapping[str, float]:
        """Accuracy and costs of the architecture."""
        api = _benchmark(self.path)
        index = api.query_index_by_arch(architecture)
        if index < 0:
            raise InputError(f"{architecture!r} is not in the benchmark", where=str(self.path))
        if not (self.path / f"{index:06d}.pickle.pbz2").is_file():
            raise InputError(f"its record {index:06d}.pickle.pbz2 is missing", where=str(self.path))
        validation = "cifar10-valid" if self.data == "cifar10" else self.data
        early = api.get_more_info(index, validation, hp="12", is_random=False)
        late = api.get_more_info(index, self.data, hp="200", is_random=False)
        cost = api.get_cost_info(index, validation, hp="12")
        return {
            "accuracy": float(early["valid-accuracy"]) / 100,
            "test_accuracy": float(late["test-accuracy"]) / 100,
            "parameters": round(float(cost["params"]) * 1e6),
            "macs": round(float(cost["flops"]) * 1e6),
            "latency_ms": float(cost["latency"]) * 1e3,
        }


@lru_cache(maxsize=1)
def _benchmark(path: Path) -> Any:
    try:
        import nats_bench
    except ImportError as error:
        raise InputError(
            "reading the benchmark's files needs the package nats_bench", hint="pip install nats_bench"
        ) from error
    if not (path / "meta.pickle.pbz2").is_file():
        raise InputError("has no meta.pickle.pbz2", where=str(path), hint="give the unpacked folder")
    return nats_bench.create(str(path), "tss", fast_mode=True, verbose=False)
