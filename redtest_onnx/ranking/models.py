"""Measures of finished models: any ONNX file is a candidate."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from redtest_onnx.data.dataset import Dataset
from redtest_onnx.data.splits import sample_indices
from redtest_onnx.errors import InputError
from redtest_onnx.graph.files import load
from redtest_onnx.graph.model import Model
from redtest_onnx.ranking.candidate import Candidate
from redtest_onnx.ranking.table import AccuracyTable, candidate_values
from redtest_onnx.runtime.latency import measure_latency
from redtest_onnx.runtime.session import RunOptions
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analyze import Analysis, AnalysisSettings, analyze

_LATENCY_SECONDS = 0.5


@dataclass(frozen=True)
class ModelMeasurement:
    """Measures a model file; called in whatever process an engine runs it.

    Attributes:
        samples: opens the samples for a model.
        settings: of the similarity analysis.
        options: device and threads.
        latency: whether to time the model.
        metrics: table whose numbers take the place of measured ones, by file name; None for none.
    """

    samples: Callable[[Model], Dataset]
    settings: AnalysisSettings
    options: RunOptions
    latency: bool
    metrics: AccuracyTable | None = None

    def __call__(self, path: str) -> Candidate:
        """Load, run and compare the layers of one model.

        Raises:
            InputError: it is no model, or does not run on the data.
        """
        model = load(path)
        with Workbench(model, self.samples(model), self.options, seed=self.settings.seed) as bench:
            candidate = measure_candidate(path, bench, self.settings, timed=self.latency)
        return replace(candidate, **_known(self.metrics, Path(path)))


def measure_candidate(
    name: str, bench: Workbench, settings: AnalysisSettings, *, timed: bool = False
) -> Candidate:
    """Accuracy, cost and redundancy of one model.

    Args:
        name: what the candidate is called.
        bench: the model and samples for it; accuracy needs labels.
        settings: of the similarity analysis, and how many samples tell the accuracy.
        timed: whether to measure latency.

    Raises:
        InputError: the model does not run on the data, or has fewer than two layers.
    """
    analysis = analyze(bench, settings)
    accuracy = None
    if bench.data.labelled:
        indices = sample_indices(bench.data, settings.samples * settings.batches, settings.seed)
        accuracy = bench.evaluator(indices).reference.accuracy
    return Candidate(
        name=name,
        accuracy=accuracy,
        parameters=bench.cost.parameters,
        macs=bench.cost.macs,
        latency_ms=measure_latency([bench], seconds=_LATENCY_SECONDS)[0].p50 if timed else None,
        msrs=_defined(analysis),
        msrs_from="model",
        layers=len(analysis.layers),
        undefined=len(analysis.undefined),
    )


def find_models(paths: Iterable[Path]) -> Iterator[Path]:
    """The files among the given paths, and every .onnx file in the folders among them, in order.

    Raises:
        InputError: a folder has no .onnx files.
    """
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        inside = sorted(path.rglob("*.onnx"))
        if not inside:
            raise InputError("has no .onnx files", where=str(path), hint="give files, or another folder")
        yield from inside


def _defined(analysis: Analysis) -> float | None:
    value = analysis.redundancy.value
    return None if math.isnan(value) else value


def _known(table: AccuracyTable | None, path: Path) -> dict[str, Any]:
    """What a table knows of a model."""
    if table is None:
        return {}
    row = table.row_of(str(path))
    return {} if row is None else candidate_values(table.row(row))
