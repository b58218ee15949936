"""`prune FOLDER --curve`: a series of every model in a folder, on the engines that a search runs on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from redtest_onnx.cli.console import Screen
from redtest_onnx.cli.options import DataOptions, evaluation_data
from redtest_onnx.cli.prune_curve import curve_files
from redtest_onnx.documents.base import Document, tool, write_json
from redtest_onnx.engines.run import EngineOptions, run_all
from redtest_onnx.errors import NegativeVerdictError
from redtest_onnx.graph.files import load, save
from redtest_onnx.pruning.budget import Budget
from redtest_onnx.pruning.curve import trade_off_curve
from redtest_onnx.pruning.prune import PruneSettings
from redtest_onnx.ranking.models import find_models
from redtest_onnx.report.numbers import plural
from redtest_onnx.report.table import Column, Table
from redtest_onnx.runtime.session import RunOptions
from redtest_onnx.runtime.workbench import Workbench


@dataclass(frozen=True)
class SavedCurve:
    """The series of one model, whose files are written.

    Attributes:
        document: as `prune --curve --json` gives it.
        files: of the series, from few removed layers to many.
        removed: number of layers that are gone in the chosen one; None if none was chosen, like what follows.
        share: of the parameters that it keeps.
        quality: accuracy, or agreement with the original.
    """

    document: Document
    files: tuple[str, ...]
    removed: int | None
    share: float | None
    quality: float | None


@dataclass(frozen=True)
class CurveOfModel:
    """Makes and writes the series of a model file; called in whatever process an engine runs it.

    Attributes:
        models: folder that the models are in.
        folder: to write to; files keep their place below the folder of the models.
        data: samples.
        evaluation: samples for accuracy; None for the split `test` of `data`.
        run: device and threads.
        settings: in which order layers go, and how the rest is repaired.
        budget: what is protected, and the loss within which a model is chosen.
    """

    models: Path
    folder: Path
    data: DataOptions
    evaluation: Path | None
    run: RunOptions
    settings: PruneSettings
    budget: Budget

    def __call__(self, path: str) -> SavedCurve:
        """The series of one model.

        Raises:
            InputError: it is no model, or doesn't run on the data.
            NegativeVerdictError: no layer can be removed, or no model of the series can be written.
        """
        model = load(path)
        evaluation = evaluation_data(self.data, model, self.evaluation)
        seed = self.settings.similarity.seed
        with Workbench(model, self.data.open(model), self.run, seed=seed, evaluation=evaluation) as bench:
            curve = trade_off_curve(bench, self.settings, budget=self.budget)
        if not curve.points:
            reason = curve.skipped[0][1] if curve.skipped else "no layer can be removed"
            raise NegativeVerdictError(f"no model of the series can be written: {reason}", where=path)
        folder = self.folder / Path(path).parent.relative_to(self.models)
        folder.mkdir(parents=True, exist_ok=True)
        files = curve_files(folder, Path(path).stem, curve)
        for point, file in zip(curve.points, files, strict=True):
            save(point.pruning.model, file, force=True)
        names = tuple(map(str, files))
        chosen = None if curve.chosen is None else curve.points[curve.chosen]
        return SavedCurve(
            curve.document(names),
            names,
            None if chosen is None else chosen.removed,
            None if chosen is None else chosen.share,
            None if chosen is None else chosen.quality,
        )


def curve_folder(work: CurveOfModel, engine: EngineOptions, screen: Screen, json_path: str | None) -> int:
    """Make the series of all models, show what was chosen of each, and name what has none; the exit code."""
    paths = [str(path) for path in find_models([work.models])]
    made: dict[str, SavedCurve] = {}
    failed: dict[str, str] = {}
    with screen.progress() as progress:
        for done, finished in enumerate(run_all(work, paths, engine), start=1):
            progress(done, len(paths), "pruning models to series of sizes")
            found = finished.value
            if found is None:
                failed[finished.piece] = finished.error or ""
            elif missing := [name for name in found.files if not Path(name).is_file()]:
                failed[finished.piece] = (
                    f"a worker wrote {missing[0]}, which is not here: it has another disk"
                )
            else:
                made[finished.piece] = found
    lines = [f"  {name}: {why}" for name, why in sorted(failed.items())]
    told = [f"{len(failed)} have no series:", *lines] if failed else []
    limit = f"{max((found.document['max_drop'] for found in made.values()), default=0):.1%}"
    without = [
        f"None of {path} is within {limit} loss on held-out samples: nothing is chosen of its "
        f"{plural(len(found.files), 'model')}."
        for path, found in sorted(made.items())
        if found.removed is None
    ]
    screen.show(*([_table(made)] if made else []), *without, *told)
    if made:
        screen.show(f"All models are in {work.folder}; chosen is the smallest within the largest drop.")
    if json_path:
        document: Document = {
            "schema": "redtest-onnx/curve-folder/1",
            "tool": tool(),
            "models": [made[path].document for path in paths if path in made],
            "failed": [{"path": name, "reason": why} for name, why in sorted(failed.items())],
        }
        write_json(document, json_path)
    return 0 if made else 1


def _table(made: dict[str, SavedCurve]) -> Table:
    columns = (
        Column("model", "model", "name"),
        Column("series", "models", "integer", drop=3),
        Column("removed", "removed", "integer", drop=2),
        Column("share", "parameters", "share", bar=True),
        Column("quality", "accuracy or agreement", "share", bar=True),
    )
    rows = [
        (path, len(found.files), found.removed, found.share, found.quality)
        for path, found in sorted(made.items())
    ]
    return Table("curves", "Chosen of each series", columns, tuple(rows))
