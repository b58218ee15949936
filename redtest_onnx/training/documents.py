"""Fine-tuning as a JSON document."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from redtest_onnx.documents.base import Document, document_head, number, plain

if TYPE_CHECKING:
    from redtest_onnx.training.finetune import FineTuning, ValidationResult


def finetune_document(result: FineTuning, output: Path | None) -> Document:
    """What `finetune` did."""
    return {
        **document_head("finetune", result.original, result.cost),
        "settings": result.settings.fixed(),
        **training_document(result),
        "output": None if output is None else str(output),
    }


def training_document(result: FineTuning) -> Document:
    """What a training brought."""
    return {
        "epochs": [{key: plain(value) for key, value in record.items()} for record in result.history],
        "best_epoch": result.best_epoch,
        "samples": result.trained_on,
        "start": {key: number(value) for key, value in asdict(result.start).items()},
        "validation": _judged(result.validated),
        "test": _judged(result.tested),
        "verification": {
            "largest_difference": number(result.verification.largest),
            "tolerance": result.verification.tolerance,
        },
    }


def _judged(judged: ValidationResult | None) -> Document | None:
    return None if judged is None else {key: plain(value) for key, value in asdict(judged).items()}
