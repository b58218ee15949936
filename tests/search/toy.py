"""A space of somebody else, small and quick: chains of convolutions, run by ONNX Runtime without PyTorch.

As a program it is the driver of a search: toy.py FILE EVALUATIONS ENGINE WORKERS [ADDRESS].
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nets import Net

import redtest_onnx as rt
from redtest_onnx.engines.run import EngineOptions
from redtest_onnx.errors import InputError
from redtest_onnx.graph.cost import model_cost
from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.graph.shapes import infer_shapes
from redtest_onnx.ranking.candidate import MeasuredCandidate
from redtest_onnx.search.search import SearchBudget, SearchProblem, SearchResult, search
from redtest_onnx.search.space import ImageTask
from redtest_onnx.search.store import Store
from redtest_onnx.search.strategies import RegularisedEvolution, Strategy

WIDTHS = ("1", "2", "3", "4", "5", "6")


@dataclass(frozen=True)
class ChainSpace:
    """Four convolutions, spelled by their widths: 3-1-4-1."""

    name = "chain"

    @property
    def choices(self) -> dict[str, tuple[str, ...]]:
        return {f"conv{k}": WIDTHS for k in range(4)}

    def spell(self, values: Mapping[str, str]) -> str:
        return "-".join(values[name] for name in self.choices)

    def parse(self, architecture: str) -> dict[str, str]:
        return dict(zip(self.choices, architecture.split("-"), strict=True))

    def key(self, architecture: str) -> str:
        return architecture

    def depth(self, architecture: str) -> int:
        return 4

    def build(self, architecture: str, task: ImageTask) -> object:
        net = Net(input=["n", 1, 4, 4])
        x, channels = "input", 1
        for width in map(int, self.parse(architecture).values()):
            x, channels = net("Relu", net.conv(x, channels, width)), width
        return net.model(net("GlobalAveragePool", x, name="logits"))


@dataclass(frozen=True)
class ChainWork:
    """Measures a chain; what it takes for accuracy follows from the widths. Fails for 1-1-..."""

    seconds: float = 0.0
    busy: int = 0

    def __call__(self, architecture: str) -> MeasuredCandidate:
        begin = time.perf_counter()
        space = ChainSpace()
        if architecture.startswith("1-1-"):
            raise InputError("is too narrow")
        model = space.build(architecture, ImageTask())
        assert isinstance(model, rt.Model)
        data = rt.open_data(None, model, count=16)
        analysis = rt.analyze(model, data, rt.AnalysisSettings(samples=16), rt.RunOptions(threads=1))
        cost = model_cost(GraphIndex(model.graph), infer_shapes(model, {"input": (1, 1, 4, 4)}))
        time.sleep(self.seconds)
        matrix = np.ones((64, 64))
        for _ in range(self.busy):
            matrix = np.tanh(matrix)
        value = analysis.redundancy.value
        return MeasuredCandidate(
            name=architecture,
            key=architecture,
            depth=4,
            accuracy=sum(map(int, architecture.split("-"))) / 24,
            parameters=cost.parameters,
            macs=cost.macs,
            msrs=None if value != value else value,
            layers=4,
            seconds=time.perf_counter() - begin,
            worker=str(os.getpid()),
        )


def evolution(seed: int = 0) -> Strategy:
    return RegularisedEvolution(ChainSpace(), seed, population=6, tournament=3)


def run(store: Store, evaluations: int, engine: EngineOptions, work: ChainWork) -> SearchResult:
    return search(
        work,
        SearchProblem(ChainSpace(), evolution(), lambda candidate: candidate.accuracy, window=4),
        store,
        SearchBudget(evaluations),
        engine=engine,
    )


def table(path: Path) -> list[tuple[object, ...]]:
    """What must not depend on who evaluated when; another process may round a similarity differently."""
    with Store.open(path) as store:
        return [
            (o.name, o.accuracy, o.macs, round(o.msrs or 0.0, 3))
            if isinstance(o, MeasuredCandidate)
            else (o.name, o.error)
            for o in store.outcomes().values()
        ]


if __name__ == "__main__":
    path, evaluations, name, workers, *address = sys.argv[1:]
    options = EngineOptions(name, int(workers), *address)  # type: ignore[arg-type]
    there = Path(path).exists()
    with Store.open(Path(path)) if there else Store.create(Path(path), {}) as opened:
        run(opened, int(evaluations), options, ChainWork(seconds=0.3))
