"""`redtest-onnx analyze` on what it wrote before."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from redtest_onnx.cli.analyze_job import AnalyzeRequest, summary
from redtest_onnx.cli.console import Screen
from redtest_onnx.cli.parameters import given_options
from redtest_onnx.cli.underfitting import saved_proposal
from redtest_onnx.documents.base import write_json
from redtest_onnx.errors import InputError
from redtest_onnx.report.heatmap import save_heatmap
from redtest_onnx.report.model_explorer import write_explorer
from redtest_onnx.report.sweeps import proposal_words, save_sweep_figure, sweep_table
from redtest_onnx.report.tables import layer_table
from redtest_onnx.similarity.rescore import rescore, rescored_document
from redtest_onnx.similarity.saved import read_analysis
from redtest_onnx.similarity.sweep import sweep_scores

_SCORE = frozenset({"threshold", "alpha", "gate"})
_OUTPUTS = frozenset({"png", "explorer", "sweep", "underfitting", "json_path", "force"})
_FREE = frozenset({"model", *_SCORE, *_OUTPUTS, "form", "verbose", "quiet"})
_NO_SAMPLES = "Samples per batch are not varied: that takes the model and its data."


def analyze_saved(context: click.Context, request: AnalyzeRequest, screen: Screen) -> None:
    """Score a saved analysis anew with the options that were given; show and write what was asked for.

    Raises:
        InputError: unreadable, or options that need the model.
    """
    path, given = request.model, given_options(context)
    if wrong := sorted(option for name, option in given.items() if name not in _FREE):
        raise InputError(
            f"a saved analysis takes a new score, not {', '.join(wrong)}",
            where=str(path),
            hint="--threshold, --alpha, --gate and --sweep are its options; analyze the model for others",
        )
    saved = read_analysis(path)
    values: dict[str, Any] = {name: context.params[name] for name in _SCORE if name in given}
    found = rescore(saved.analysis, **values)
    analysis, notes = found.analysis, list(found.notes)
    swept = sweep_scores(analysis, where=str(path)) if request.sweep else None
    proposal = saved_proposal(request.underfitting, analysis) if request.underfitting else None
    if proposal:
        notes.append(proposal_words(proposal))
    if request.explorer:
        write_explorer(request.explorer, analysis.layers, analysis.adjacent)
    if request.png:
        save_heatmap(analysis, saved.label, request.png)
    if request.sweep and swept:
        save_sweep_figure(swept, request.sweep, proposal)
        notes.append(_NO_SAMPLES)
    if request.json_path:
        document = rescored_document(saved, analysis)
        if swept:
            document["sweep"] = swept.to_dict()
        if proposal:
            document["proposed_threshold"] = asdict(proposal)
        write_json(document, request.json_path)
    screen.show(layer_table(analysis.layers, [None, *analysis.adjacent]), *summary(analysis))
    if swept:
        screen.detail(sweep_table(swept))
    screen.show(*notes)
