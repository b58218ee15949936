"""What a search depends on, as one value that its file keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from redtest_onnx.checks import Natural, Positive, check_settings
from redtest_onnx.data.images import ImageOptions
from redtest_onnx.errors import InputError
from redtest_onnx.graph.model import first_line
from redtest_onnx.ranking.accuracy import AccuracySource, BenchmarkData, Joined, NatsBench
from redtest_onnx.ranking.candidate import CostName
from redtest_onnx.ranking.rank import RankingSettings
from redtest_onnx.ranking.score import ScoreName, ScoreWeights
from redtest_onnx.ranking.table import AccuracyTable
from redtest_onnx.runtime.devices import Device, check_device
from redtest_onnx.search.evaluate import CandidateEvaluation, MsrsSource
from redtest_onnx.search.recipe import Recipe
from redtest_onnx.search.rows import RowArchitectures, RowSpace, row_space
from redtest_onnx.search.search import Fitness
from redtest_onnx.search.size import SizeSpace
from redtest_onnx.search.space import ImageTask, Space, get_space
from redtest_onnx.search.strategies import Strategy, StrategyName, make_strategy

TASKS: dict[BenchmarkData, ImageTask] = {
    "cifar10": ImageTask(classes=10),
    "cifar100": ImageTask(classes=100),
    "ImageNet16-120": ImageTask(size=16, classes=120),
}
"""Images and classes of the benchmark's data sets."""


@dataclass(frozen=True)
class SearchSettings:
    """Everything that decides which candidates a search finds, paths as absolute text.

    Attributes:
        space: name of the search space; with a source, what its rows are architectures of.
        data: images to train with; None without training.
        images: how image files become inputs.
        epochs: of each training.
        batch_size: images per step of it.
        metrics: CSV that knows accuracy; None if training tells it.
        benchmark: folder of NATS-Bench that knows accuracy; None likewise.
        benchmark_data: which of its data sets.
        models: folder for the trained networks; None keeps none.
        strategy: how proposals are made.
        population: of evolution.
        tournament: of evolution.
        window: proposals open at a time; None if none of them depends on another.
        cost: which cost counts.
        by: the score that is raised.
        exponent: weight of cost.
        beta: weight of redundancy.
        seed: of everything.
        device: where networks are trained; on a GPU the same seed need not find the same weights.
        msrs: what MSRS is measured on; None takes the table's, else that of networks trained on `data`.
        constants: whose T of RedTest serves; the median cost if None.
        rows: whether `space` is none that the user named, so that rows may have any names.
    """

    space: str
    data: str | None
    images: Mapping[str, Any]
    epochs: Natural
    batch_size: Positive
    metrics: str | None
    benchmark: str | None
    benchmark_data: BenchmarkData
    models: str | None
    strategy: StrategyName
    population: Positive
    tournament: Positive
    window: Positive | None
    cost: CostName
    by: ScoreName
    exponent: float
    beta: float
    seed: Natural
    device: Device = "cpu"
    msrs: MsrsSource | None = None
    constants: BenchmarkData | None = None
    rows: bool = False

    def __post_init__(self) -> None:
        check_settings(self)
        check_device(self.device)

    @classmethod
    def from_json(cls, values: Mapping[str, Any], where: Path) -> SearchSettings:
        """Read what `as_json` gave.

        Raises:
            InputError: the file was written by another version.
        """
        try:
            found = TypeAdapter(cls).validate_python(dict(values))
            found.image_options()
        except (TypeError, ValueError, InputError) as error:
            raise InputError(
                f"was written by another version of this tool, or is damaged ({first_line(error)})",
                where=str(where),
            ) from error
        return found

    def as_json(self) -> dict[str, Any]:
        """The settings as JSON values."""
        return asdict(self)

    def image_options(self) -> ImageOptions:
        """How image files become inputs; JSON has no tuples.

        Raises:
            InputError: a value that can't be.
        """
        given: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in self.images.items()
        }
        return ImageOptions(**given)

    def evaluation(self) -> CandidateEvaluation:
        """What is done with each architecture."""
        space = self.make_space()
        return CandidateEvaluation(
            space=RowArchitectures(space.base) if isinstance(space, RowSpace) else space,
            data=Path(self.data) if self.data else None,
            images=self.image_options(),
            recipe=Recipe(self.epochs, self.batch_size),
            seed=self.seed,
            source=self._source,
            wanted=self.wanted,
            msrs=self.msrs,
            weights=self._benchmark,
            task=TASKS[self.benchmark_data] if self.benchmark else None,
            models=Path(self.models) if self.models else None,
            device=self.device,
        )

    def make_space(self) -> Space:
        """What is searched: the rows of the table or benchmark if there is one, else the whole space.

        Raises:
            InputError: there are no rows, or they are not of the space that the user named.
        """
        space = get_space(self.space)
        if self._source is None:
            return space
        if self.rows:
            return row_space(self._source.names, None, space, SizeSpace())
        return row_space(self._source.names, space)

    @property
    def wanted(self) -> tuple[str, ...]:
        """What every candidate needs beside accuracy."""
        cost = "latency_ms" if self.cost == "latency" else self.cost
        redundancy = self.by == "S3" or self.data is not None or self.msrs is not None
        return (cost, "msrs") if redundancy else (cost,)

    @property
    def complete(self) -> bool:
        """Whether all numbers are in the table or benchmark, so that no network is built."""
        if self._source is None or self.models or self.msrs not in (None, "table"):
            return False
        measurable = [name for name in self.wanted if name != "msrs" or (self.data and self.msrs is None)]
        return self._source.has_all(tuple(measurable))

    def make_strategy(self) -> Strategy:
        """A fresh strategy."""
        return make_strategy(
            self.strategy,
            self.make_space(),
            self.seed,
            population=self.population,
            tournament=self.tournament,
        )

    def fitness(self) -> Fitness:
        """What the strategy raises.

        T and M scale all scores alike and do not matter here.
        """
        objective = ScoreWeights(self.cost, 1.0, self.exponent, self.beta, 1.0)
        return lambda candidate: objective.score(candidate, self.by)

    def ranking(self, asked: RankingSettings) -> RankingSettings:
        """How the candidates that were found are put in order; T, M and the means are as asked now."""
        return replace(
            asked,
            cost=self.cost,
            by=self.by,
            exponent=self.exponent,
            beta=self.beta,
            benchmark=self.constants,
        )

    @property
    def _benchmark(self) -> NatsBench | None:
        return NatsBench(Path(self.benchmark), self.benchmark_data) if self.benchmark else None

    @cached_property
    def _source(self) -> AccuracySource | None:
        table = AccuracyTable.read(Path(self.metrics)) if self.metrics else None
        if self._benchmark is None:
            return table
        return Joined(self._benchmark, table) if table else self._benchmark
