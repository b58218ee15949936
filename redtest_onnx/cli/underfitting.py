"""A threshold from a saved analysis of a network that underfits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from redtest_onnx.errors import InputError
from redtest_onnx.similarity.analyze import Analysis
from redtest_onnx.similarity.saved import read_analysis
from redtest_onnx.similarity.sweep import ThresholdProposal, propose_threshold


def is_saved_analysis(path: Path) -> bool:
    """Whether a file is meant as an analysis, not as a model."""
    return path.suffix.lower() == ".json" and path.is_file()


def saved_proposal(path: Path, analysis: Analysis) -> ThresholdProposal:
    """The threshold that a saved analysis of a network that underfits proposes.

    Raises:
        InputError: it is missing, no saved analysis, or one of another measurement.
    """
    if path.suffix.lower() != ".json":
        raise InputError(
            "is no saved analysis, which --underfitting takes beside a saved analysis",
            where=str(path),
            hint=f"write one with: redtest-onnx analyze {path.name} --data DATA --json small.json",
        )
    small = read_analysis(path)
    if (own := _measured(small.analysis)) != (asked := _measured(analysis)):
        raise InputError(
            f"was measured with {_words(own)}, the other analysis with {_words(asked)}",
            where=str(path),
            hint="analyze both models with the same options",
        )
    return propose_threshold(small.analysis, analysis, small.label)


def _measured(analysis: Analysis) -> dict[str, Any]:
    """What two scores must have in common to be held against each other."""
    settings = analysis.settings
    return {
        "samples": analysis.samples,
        "batches": analysis.batches,
        "estimator": settings.estimator,
        "kernel": settings.kernel,
        "pooling": settings.pooling,
    }


def _words(measured: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in measured.items())
