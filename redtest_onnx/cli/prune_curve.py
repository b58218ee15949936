"""`prune --curve`: a series of models instead of one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from redtest_onnx.cli.console import Screen
from redtest_onnx.cli.pages import provenance
from redtest_onnx.documents.base import write_json
from redtest_onnx.errors import InputError, OutputError
from redtest_onnx.graph.files import save
from redtest_onnx.graph.model_folder import is_model_folder
from redtest_onnx.pruning.budget import Budget
from redtest_onnx.pruning.curve import Curve, trade_off_curve
from redtest_onnx.pruning.prune import PruneSettings
from redtest_onnx.report.curve_figure import save_curve_figure
from redtest_onnx.report.curves import chosen_words, curve_chart, curve_table
from redtest_onnx.report.page.layers import prune_page
from redtest_onnx.report.page.render import save_page
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analyze import Analysis


@dataclass(frozen=True)
class CurveRequest:
    """Where a series goes.

    Attributes:
        folder: of the models.
        html: page of the chosen one with the chart; None for none.
        png: picture of accuracy, cost and MSRS over the series; None for none.
        json_path: document of all; None for none.
        force: whether models in the folder may be written over.
    """

    folder: Path
    html: Path | None
    png: Path | None
    json_path: str | None
    force: bool

    def check(self, model: Path, others: dict[str, bool]) -> None:
        """Refuse what a series can't do, before any work.

        Args:
            model: what is pruned.
            others: whether an option was given that belongs to a single result, by its flag.

        Raises:
            InputError: one was, the model is a folder with side files, or a page of many models is asked for.
            OutputError: the folder holds files and `force` is not set, or is none.
        """
        if given := [flag for flag, there in others.items() if there]:
            raise InputError(f"--curve makes a series of models: {', '.join(given)} can't be given with it")
        if model.is_dir() and is_model_folder(model):
            raise InputError(
                "--curve takes an .onnx file or a folder of several models; this holds one with side files",
                where=str(model),
                hint="name its file",
            )
        if model.is_dir() and (self.html is not None or self.png is not None):
            raise InputError(
                "--html and --png are for the series of one model", where=str(model), hint="name its file"
            )
        if model.is_dir() and self.folder.resolve().is_relative_to(model.resolve()):
            raise OutputError(
                "lies in the folder of the models", where=str(self.folder), hint="name another folder"
            )
        if self.folder.exists() and not self.folder.is_dir():
            raise OutputError("is not a folder", where=str(self.folder), hint="--curve names a folder")
        if self.folder.is_dir() and any(self.folder.iterdir()) and not self.force:
            raise OutputError(
                "the folder holds files already", where=str(self.folder), hint="--force writes into it"
            )


def prune_curve(
    screen: Screen,
    bench: Workbench,
    budget: Budget,
    settings: PruneSettings,
    request: CurveRequest,
    saved: Analysis | None,
) -> int | None:
    """Make the series, write its models, show and save the trade-off; the exit code.

    Raises:
        OutputError: the model keeps weights in a file that is called like one of the series.
    """
    stem = bench.model.path.stem if bench.model.path else "model"
    for file in bench.model.external_files:
        same = file.resolve().parent == request.folder.resolve()
        if same and re.fullmatch(rf"{re.escape(stem)}\.removed-\d+\.onnx", file.name, re.IGNORECASE):
            raise OutputError(
                "holds weights that the model reads", where=str(file), hint="--curve another folder"
            )
    with screen.progress() as progress:
        curve = trade_off_curve(bench, settings, analysis=saved, budget=budget, progress=progress)
    if not curve.points:
        screen.show("No model of the series can be written:", *_skipped(curve))
        return 1
    request.folder.mkdir(parents=True, exist_ok=True)
    files = curve_files(request.folder, stem, curve)
    for point, file in zip(curve.points, files, strict=True):
        save(point.pruning.model, file, force=request.force)
    screen.show(curve_table(curve, files), *_skipped(curve), _choice(curve, files))
    index = curve.chosen if curve.chosen is not None else 0
    if request.html is not None:
        pruning = curve.points[index].pruning
        page = prune_page(bench.model, pruning, files[index], provenance(), curve=curve_chart(curve))
        save_page(page, request.html)
    if request.png is not None:
        save_curve_figure(curve, bench.label.rpartition("/")[2], request.png)
    if request.json_path:
        write_json(curve.document([str(file) for file in files]), request.json_path)
    return None


def curve_files(folder: Path, stem: str, curve: Curve) -> list[Path]:
    """Where the models of a series go."""
    return [folder / f"{stem}.removed-{point.removed:02d}.onnx" for point in curve.points]


def _skipped(curve: Curve) -> list[str]:
    return [f"Without {count} layers there is no model: {reason}." for count, reason in curve.skipped]


def _choice(curve: Curve, files: list[Path]) -> str:
    if curve.chosen is None:
        return f"None is within {curve.max_drop:.1%} loss on held-out samples; all are in {files[0].parent}."
    return chosen_words(curve, str(files[curve.chosen]))
