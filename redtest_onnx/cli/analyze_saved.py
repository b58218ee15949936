"""`redtest-onnx analyze` on what it wrote before."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from redtest_onnx.documents.base import write_json
from redtest_onnx.errors import InputError
from redtest_onnx.report.heatmap import save_heatmap
from redtest_onnx.report.model_explorer import write_explorer
from redtest_onnx.similarity.analyze import Analysis
from redtest_onnx.similarity.rescore import rescore, rescored_document
from redtest_onnx.similarity.saved import read_analysis

_SCORE = frozenset({"threshold", "alpha", "gate"})
_FREE = frozenset({"model", *_SCORE, "png", "explorer", "form", "json_path", "force", "verbose", "quiet"})


@dataclass(frozen=True)
class SavedOutputs:
    """What is written of an analysis that was read.

    Attributes:
        png: the heat map.
        explorer: folder or file for Model Explorer.
        json_path: the document; "-" for stdout.
    """

    png: Path | None
    explorer: Path | None
    json_path: str | None


def is_saved_analysis(path: Path) -> bool:
    """Whether a file is meant as an analysis, not as a model."""
    return path.suffix.lower() == ".json" and path.is_file()


def analyze_saved(
    context: click.Context, path: Path, outputs: SavedOutputs
) -> tuple[Analysis, tuple[str, ...]]:
    """Score a saved analysis anew with the options that were given, and write what was asked for.

    Returns:
        The analysis under the new score, and what could not be scored.

    Raises:
        InputError: unreadable, or options that need the model.
    """
    given = _given(context)
    if wrong := sorted(option for name, option in given.items() if name not in _FREE):
        raise InputError(
            f"a saved analysis takes a new score, not {', '.join(wrong)}",
            where=str(path),
            hint="--threshold, --alpha and --gate are its options; analyze the model for others",
        )
    saved = read_analysis(path)
    values: dict[str, Any] = {name: context.params[name] for name in _SCORE if name in given}
    found = rescore(saved.analysis, **values)
    analysis = found.analysis
    if outputs.explorer:
        write_explorer(outputs.explorer, analysis.layers, analysis.adjacent)
    if outputs.png:
        save_heatmap(analysis, saved.label, outputs.png)
    if outputs.json_path:
        write_json(rescored_document(saved, analysis), outputs.json_path)
    return analysis, found.notes


def _given(context: click.Context) -> dict[str, str]:
    """Options of the command line, by their parameters."""
    return {
        parameter.name: parameter.opts[0]
        for parameter in context.command.params
        if parameter.name is not None
        and context.get_parameter_source(parameter.name) is click.core.ParameterSource.COMMANDLINE
    }
