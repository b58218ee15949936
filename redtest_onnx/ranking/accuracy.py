"""Where the accuracy of an architecture comes from if it is not trained for it: a table or a benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from redtest_onnx.errors import InputError
from redtest_onnx.ranking.table import AccuracyTable

BenchmarkData = Literal["cifar10", "cifar100", "ImageNet16-120"]
BENCHMARK_DATA: tuple[BenchmarkData, ...] = get_args(BenchmarkData)


class AccuracySource(Protocol):
    """Knows measures of architectures."""

    @property
    def names(self) -> tuple[str, ...]:
        """The architectures that it knows, in its order."""

    def has_all(self, measures: tuple[str, ...]) -> bool:
        """Whether it knows the given measures of all of them."""

    def look_up(self, architecture: str) -> Mapping[str, float]:
        """What is known, by names of `Candidate`'s attributes; accuracy at least.

        Raises:
            InputError: nothing is known of this architecture.
        """


_RECORD = ".pickle.pbz2"
_KNOWN = {"accuracy", "test_accuracy", "parameters", "macs", "latency_ms"}


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

    @property
    def names(self) -> tuple[str, ...]:
        """The architectures whose records are in the folder; it need not hold all of them."""
        api = _benchmark(self.path)
        there = sorted(
            int(name) for file in self.path.glob(f"*{_RECORD}") if (name := file.name[:6]).isdigit()
        )
        return tuple(api.arch(index) for index in there if index < len(api))

    def has_all(self, measures: tuple[str, ...]) -> bool:
        """Whether the benchmark knows such measures."""
        return set(measures) <= _KNOWN

    def look_up(self, architecture: str) -> Mapping[str, float]:
        """Accuracy and costs of the architecture."""
        api, index = self._record(architecture)
        early = api.get_more_info(index, self._validation, hp="12", is_random=False)
        late = api.get_more_info(index, self.data, hp="200", is_random=False)
        cost = api.get_cost_info(index, self._validation, hp="12")
        return {
            "accuracy": float(early["valid-accuracy"]) / 100,
            "test_accuracy": float(late["test-accuracy"]) / 100,
            "parameters": round(float(cost["params"]) * 1e6),
            "macs": round(float(cost["flops"]) * 1e6),
            "latency_ms": float(cost["latency"]) * 1e3,
        }

    def weights(self, architecture: str) -> Mapping[str, Any]:
        """The trained weights of the architecture after 12 epochs, by name, in the order of layers.

        Raises:
            InputError: the folder holds results alone, as the one whose name ends in "-simple" does.
        """
        api, index = self._record(architecture)
        trials = api.get_net_param(index, self._validation, None, hp="12")
        found = next((weights for weights in trials.values() if weights is not None), None)
        if found is None:
            raise InputError(
                f"the record of {architecture!r} has no weights",
                where=str(self.path),
                hint="give the folder NATS-tss-v1_0-...-full, or measure MSRS otherwise: @msrs=untrained",
            )
        weights: Mapping[str, Any] = found
        return weights

    @property
    def _validation(self) -> str:
        return "cifar10-valid" if self.data == "cifar10" else self.data

    def _record(self, architecture: str) -> tuple[Any, int]:
        api = _benchmark(self.path)
        index = api.query_index_by_arch(architecture)
        if index < 0:
            raise InputError(f"{architecture!r} is not in the benchmark", where=str(self.path))
        if not (self.path / f"{index:06d}{_RECORD}").is_file():
            raise InputError(f"its record {index:06d}{_RECORD} is missing", where=str(self.path))
        return api, index


@dataclass(frozen=True)
class Joined:
    """A benchmark, with a table whose numbers take the place of the benchmark's.

    Attributes:
        benchmark: says which architectures there are.
        table: knows more of them, such as MSRS.
    """

    benchmark: NatsBench
    table: AccuracyTable

    @property
    def names(self) -> tuple[str, ...]:
        """Those of the benchmark."""
        return self.benchmark.names

    def has_all(self, measures: tuple[str, ...]) -> bool:
        """Whether the table knows of every one what the benchmark does not."""
        rest = [measure for measure in measures if not self.benchmark.has_all((measure,))]
        return (
            all(measure in self.table.row(name) for name in self.names for measure in rest) if rest else True
        )

    def look_up(self, architecture: str) -> Mapping[str, float]:
        """What either knows."""
        return {**self.benchmark.look_up(architecture), **self.table.row(architecture)}


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
