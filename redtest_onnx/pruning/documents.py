"""Plans and prunings as JSON documents."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from redtest_onnx.documents.agreement import agreement_document, output_documents
from redtest_onnx.documents.base import Document, document_head, layer_document, number, plain
from redtest_onnx.graph.cost import Cost
from redtest_onnx.graph.model import Model
from redtest_onnx.layers.layer import Layer

if TYPE_CHECKING:
    from redtest_onnx.pruning.plan import Plan
    from redtest_onnx.pruning.prune import Measures, Pruning
    from redtest_onnx.pruning.repair.repair import Repair
    from redtest_onnx.pruning.rounds import Round


def plan_document(model: Model, cost: Cost, plan: Plan, layers: Iterable[Layer]) -> Document:
    """What `prune --dry-run` would do."""
    return {
        **document_head("prune", model, cost),
        "plan": _plan(plan),
        "layers": [layer_document(layer) for layer in layers],
        "output": None,
    }


def prune_document(pruning: Pruning, output: Path | None, rounds: Iterable[Round] = ()) -> Document:
    """What `prune` did; `rounds` are those with training."""
    return {
        **document_head("prune", pruning.original, pruning.before.cost),
        "plan": _plan(pruning.plan),
        "layers": [layer_document(layer) for layer in pruning.analysis.layers],
        "before": _measures(pruning.before),
        "after": _measures(pruning.after),
        "repair": _repair(pruning.repair),
        "agreement": agreement_document(pruning.agreement),
        "outputs": output_documents(pruning.agreement),
        "rounds": [
            {
                "plan": _plan(item.plan),
                "repair": _repair(item.repair),
                "training": item.finetuning.document(),
            }
            for item in rounds
        ],
        "signature_changes": [asdict(change) for change in pruning.signature_changes],
        "evaluation": {
            "source": pruning.evaluated_on,
            "samples": pruning.evaluated,
            "apart": pruning.judged_apart,
        },
        "provider": None if pruning.provider is None else pruning.provider.to_dict(),
        "output": None if output is None else str(output),
    }


def _plan(plan: Plan) -> Document:
    return plan.fields()


def _repair(repair: Repair) -> Document:
    fields = {key: value for key, value in asdict(repair).items() if key != "refits"}
    refits = [{key: plain(value) for key, value in asdict(refit).items()} for refit in repair.refits]
    return {**fields, "operators": refits}


def _measures(measures: Measures) -> Document:
    return {
        **asdict(measures.cost),
        "file_bytes": measures.file_bytes,
        "latency_ms": asdict(measures.latency),
        "msrs": number(measures.msrs),
        "accuracy": number(measures.accuracy),
    }
