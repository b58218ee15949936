"""Results as JSON documents, whose fields other programs may rely on."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from redtest_onnx.graph.cost import Cost
from redtest_onnx.graph.files import write_atomic
from redtest_onnx.graph.model import Model, TensorSpec, dtype_name
from redtest_onnx.layers.layer import Layer
from redtest_onnx.metrics.agreement.summary import Agreement
from redtest_onnx.pruning.plan import Plan
from redtest_onnx.pruning.prune import Measures, Pruning
from redtest_onnx.pruning.repair.repair import Repair
from redtest_onnx.runtime.outputs.kinds import ModelOutput
from redtest_onnx.similarity.analyze import Analysis, WithoutLargest

if TYPE_CHECKING:
    from redtest_onnx.pruning.rounds import Round
    from redtest_onnx.training.finetune import FineTuning, ValidationResult
    from redtest_onnx.training.settings import TrainingSettings

Document = dict[str, Any]


def inspect_document(
    model: Model, cost: Cost, layers: Iterable[Layer], outputs: Iterable[ModelOutput] = ()
) -> Document:
    """What `inspect` found."""
    return {
        **document_head("inspect", model, cost),
        "layers": [layer_document(layer) for layer in layers],
        "outputs": [
            {
                "name": output.name,
                "kind": output.kind,
                "axis": output.axis,
                "why": output.why,
                "steers": output.steers,
                "tensors": [tensor.name for tensor in output.tensors],
                "note": output.note,
            }
            for output in outputs
        ],
    }


def analyze_document(model: Model, cost: Cost, analysis: Analysis, total_s: float) -> Document:
    """What `analyze` measured."""
    redundancy, settings = analysis.redundancy, analysis.settings
    return {
        **document_head("analyze", model, cost),
        "layers": [
            {**layer_document(layer), "features": features, "top_share": number(share)}
            for layer, features, share in zip(
                analysis.layers, analysis.features, analysis.top_share, strict=True
            )
        ],
        "cka": _matrix(analysis.similarity),
        "adjacent": [number(v) for v in analysis.adjacent],
        "msrs": {
            "value": number(redundancy.value),
            "std": number(redundancy.std),
            "standard_error": number(redundancy.standard_error),
            "per_batch": [number(v) for v in redundancy.per_batch],
            "pairs": redundancy.pairs,
            "undefined_pairs": redundancy.undefined,
            "alpha": redundancy.alpha,
            "threshold": redundancy.threshold,
            "gate": redundancy.gate,
        },
        "null95": number(analysis.null95),
        "dominated": list(analysis.dominated),
        "without_largest": _without_largest(analysis.without_largest),
        "data": {
            "source": analysis.source,
            "samples": analysis.samples,
            "batches": analysis.batches,
            "synthetic": analysis.synthetic,
            "labels": analysis.labelled,
        },
        "settings": asdict(settings),
        "timing": {
            "forward_s": analysis.forward_s,
            "metric_s": analysis.metric_s,
            "total_s": total_s,
        },
        "memory": {"peak_rss_bytes": peak_rss_bytes()},
    }


def plan_document(model: Model, cost: Cost, plan: Plan, layers: Iterable[Layer]) -> Document:
    """What `prune --dry-run` would do."""
    return {
        **document_head("prune", model, cost),
        "plan": _plan(plan),
        "layers": [layer_document(layer) for layer in layers],
        "output": None,
    }


def prune_document(model: Model, pruning: Pruning, output: Path, rounds: Iterable[Round] = ()) -> Document:
    """What `prune` did; `rounds` are those with training."""
    return {
        **document_head("prune", model, pruning.before.cost),
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
                "training": _training(item.finetuning),
            }
            for item in rounds
        ],
        "evaluation": {"source": pruning.evaluated_on, "samples": pruning.evaluated},
        "output": str(output),
    }


def finetune_document(
    model: Model, cost: Cost, result: FineTuning, settings: TrainingSettings, output: Path
) -> Document:
    """What `finetune` did."""
    return {
        **document_head("finetune", model, cost),
        "settings": settings.fixed(),
        **_training(result),
        "output": str(output),
    }


def agreement_document(agreement: Agreement) -> Document:
    """The agreement of all outputs together; `value` is the verdict, that of the output that agrees least."""
    return {
        "value": number(agreement.value),
        "top1": number(agreement.top1),
        "cosine": number(agreement.cosine),
        "relative_l2": number(agreement.relative_l2),
    }


def output_documents(agreement: Agreement) -> list[Document]:
    """The agreement of each output by its kind."""
    return [
        {
            "name": part.name,
            "kind": part.kind,
            "axis": part.axis,
            "measure": part.measure,
            "agreement": number(part.agreement),
            "steers": part.steers,
            "tensors": list(part.tensors),
            "details": {key: number(value) for key, value in part.details.items()},
            "note": part.note,
        }
        for part in agreement.outputs
    ]


def layer_document(layer: Layer) -> Document:
    """One layer of the series."""
    fields = asdict(layer)
    return {
        **fields,
        "shape": list(layer.shape) if layer.shape is not None else None,
        "removable": layer.removable,
    }


def write_json(document: Document, target: str) -> None:
    """Write a document to a file, or to stdout for "-"."""
    text = json.dumps(document, indent=2, allow_nan=False) + "\n"
    if target == "-":
        sys.stdout.write(text)
    else:
        write_atomic(Path(target), lambda path: path.write_text(text, encoding="utf-8"))


def peak_rss_bytes() -> int | None:
    """Largest resident memory of this process so far; None where the system doesn't tell."""
    if os.name != "posix":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def tool() -> Document:
    """Who wrote a document."""
    return {"name": "redtest-onnx", "version": version("redtest-onnx")}


def document_head(command: str, model: Model, cost: Cost) -> Document:
    """What every document begins with."""
    return {
        "schema": f"redtest-onnx/{command}/1",
        "tool": tool(),
        "model": {
            "path": str(model.path) if model.path else None,
            "sha256": model.sha256,
            "ir_version": model.proto.ir_version,
            "opsets": model.opsets,
            "producer": " ".join(filter(None, (model.proto.producer_name, model.proto.producer_version))),
            "inputs": [_spec(spec) for spec in model.inputs],
            "outputs": [_spec(spec) for spec in model.outputs],
            **asdict(cost),
        },
    }


def _spec(spec: TensorSpec) -> Document:
    shape = None if spec.shape is None else list(spec.shape)
    return {"name": spec.name, "dtype": dtype_name(spec.dtype), "shape": shape}


def _training(result: FineTuning) -> Document:
    return {
        "epochs": [{key: _plain(value) for key, value in record.items()} for record in result.history],
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
    return None if judged is None else {key: _plain(value) for key, value in asdict(judged).items()}


def _plan(plan: Plan) -> Document:
    return {"criterion": plan.criterion, "steps": [asdict(step) for step in plan.steps]}


def _repair(repair: Repair) -> Document:
    fields = {key: value for key, value in asdict(repair).items() if key != "refits"}
    refits = [{key: _plain(value) for key, value in asdict(refit).items()} for refit in repair.refits]
    return {**fields, "operators": refits}


def _plain(value: object) -> object:
    return number(value) if isinstance(value, float) else value


def _measures(measures: Measures) -> Document:
    return {
        **asdict(measures.cost),
        "file_bytes": measures.file_bytes,
        "latency_ms": asdict(measures.latency),
        "msrs": number(measures.msrs),
        "accuracy": number(measures.accuracy),
    }


def _without_largest(without: WithoutLargest | None) -> Document | None:
    if without is None:
        return None
    adjacent = [number(value) for value in without.adjacent]
    return {"samples": without.samples, "msrs": number(without.msrs), "adjacent": adjacent}


def _matrix(values: npt.NDArray[np.float64]) -> list[list[float | None]]:
    return [[number(value) for value in row] for row in values]


def number(value: float | None) -> float | None:
    """JSON has no NaN: what is undefined is null."""
    return float(value) if value is not None and math.isfinite(value) else None
