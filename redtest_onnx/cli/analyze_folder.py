"""`redtest-onnx analyze FOLDER`: every model in it, on the engines that a search runs on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from redtest_onnx.cli.console import Screen
from redtest_onnx.cli.options import DataOptions
from redtest_onnx.documents.base import Document, tool, write_json
from redtest_onnx.engines.run import EngineOptions, run_all
from redtest_onnx.errors import InputError
from redtest_onnx.graph.files import load
from redtest_onnx.ranking.models import find_models
from redtest_onnx.report.table import Column, Table
from redtest_onnx.runtime.session import RunOptions
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analyze import AnalysisSettings, analyze
from redtest_onnx.similarity.documents import analyze_document


@dataclass(frozen=True)
class FolderAnalysis:
    """Analyses a model file; called in whatever process an engine runs it."""

    data: DataOptions
    settings: AnalysisSettings
    run: RunOptions

    def __call__(self, path: str) -> Document:
        """The document that `analyze` writes of one model.

        Raises:
            InputError: it is no model, has too few layers, or does not run on the data.
        """
        begin = perf_counter()
        model = load(path)
        bench = Workbench(model, self.data.open(model), self.run, seed=self.settings.seed)
        analysis = analyze(bench, self.settings)
        return analyze_document(model, bench.cost, analysis, perf_counter() - begin)


def analyze_folder(
    folder: Path, work: FolderAnalysis, engine: EngineOptions, screen: Screen, json_path: str | None
) -> None:
    """Analyse all models, show them in one table, and name what could not be analysed.

    Raises:
        InputError: no model could be.
    """
    paths = [str(path) for path in find_models([folder])]
    found: dict[str, Document] = {}
    failed: dict[str, str] = {}
    with screen.progress() as progress:
        for done, finished in enumerate(run_all(work, paths, engine), start=1):
            progress(done, len(paths), "analysing models")
            if finished.value is None:
                failed[finished.piece] = finished.error or ""
            else:
                found[finished.piece] = finished.value
    if not found:
        name, why = min(failed.items())
        raise InputError(f"no model could be analysed; of {name}: {why}", where=str(folder))
    models = [found[path] for path in paths if path in found]
    if any(model["data"]["synthetic"] for model in models):
        screen.note(
            "Synthetic (random) inputs: no --data was given. Similarities on noise say little about real "
            "inputs."
        )
    lines = [f"  {name}: {why}" for name, why in sorted(failed.items())]
    screen.show(_table(models), *([f"{len(failed)} could not be analysed:", *lines] if failed else []))
    if json_path:
        document: Document = {
            "schema": "redtest-onnx/analyze-folder/1",
            "tool": tool(),
            "models": models,
            "failed": [{"path": name, "reason": why} for name, why in sorted(failed.items())],
        }
        write_json(document, json_path)


def _table(models: list[Document]) -> Table:
    columns = (
        Column("model", "model", "name"),
        Column("parameters", "parameters", "count", drop=2),
        Column("macs", "MACs", "count", drop=3),
        Column("layers", "layers", "integer", drop=4),
        Column("pairs", "pairs", "integer", drop=5),
        Column("msrs", "MSRS", "decimal"),
    )
    rows = []
    for model in models:
        head, score = model["model"], model["msrs"]
        msrs = math.nan if score["value"] is None else score["value"]
        layers = len(model["layers"])
        rows.append((head["path"], head["parameters"], head["macs"], layers, score["pairs"], msrs))
    return Table("models", "Models", columns, tuple(rows))
