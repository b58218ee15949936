"""Measures of weights and their pruning as JSON documents."""

from __future__ import annotations

from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from redtest_onnx.documents.base import Document, document_head, number
from redtest_onnx.graph.cost import Cost
from redtest_onnx.graph.model import Model

if TYPE_CHECKING:
    from redtest_onnx.weight_sparsity.iterative.iterative import IterativePruning
    from redtest_onnx.weight_sparsity.iterative.stages import Stage
    from redtest_onnx.weight_sparsity.measure import Group, Neurons, Sparsity
    from redtest_onnx.weight_sparsity.pipeline import WeightPruning


def sparsity_document(
    model: Model | None, cost: Cost | None, sparsity: Sparsity, total_s: float | None = None
) -> Document:
    """What `sparsity` measured."""
    return {
        **document_head("sparsity", model, cost),
        "weights": sparsity.elements,
        "zeros": sparsity.zeros,
        "eta": sparsity.eta,
        "overall": [
            {
                **_group(group, sparsity.elements),
                "retained_share_by_scope": sparsity.retained(k),
            }
            for k, group in enumerate(sparsity.overall)
        ],
        "tensors": [
            {
                **{key: value for key, value in asdict(tensor).items() if key not in ("groups", "neurons")},
                "groups": [
                    {**_group(group, tensor.elements), "neurons": _neurons(neurons)}
                    for group, neurons in zip(tensor.groups, tensor.neurons, strict=True)
                ],
            }
            for tensor in sparsity.tensors
        ],
        "histogram": asdict(sparsity.histogram),
        "skipped": [asdict(item) for item in sparsity.skipped],
        "timing": {"total_s": total_s},
    }


def iteration_documents(found: IterativePruning) -> list[Document]:
    """Figures of all trainings."""
    return [
        {
            **asdict(record),
            "pq_index": [{scope: number(v) for scope, v in pair.items()} for pair in record.pq_index],
            "chosen": record == found.chosen,
        }
        for record in found.iterations
    ]


def pruning_document(
    pruning: WeightPruning, settings: Document, output: Path | None, iterations: list[Document]
) -> Document:
    """What `sparsity --method` did."""
    return {
        **document_head("sparsity", pruning.original, pruning.stages[0].cost),
        "settings": settings,
        "stages": [_stage(stage) for stage in pruning.stages],
        "shares": [
            {"stage": name, "weights": weights, "compressed_bytes": packed}
            for name, weights, packed in stage_shares(pruning)
        ],
        "tensors": [asdict(kept) for kept in pruning.tensors],
        "removed_channels": [asdict(cut) for cut in pruning.cuts],
        "iterations": iterations,
        "evaluation": {"source": pruning.evaluated_on, "samples": pruning.evaluated},
        "output": None if output is None else str(output),
    }


def stage_shares(pruning: WeightPruning) -> list[tuple[str, float, float]]:
    """Of what was saved in weights and in compressed bytes, the share of each step."""
    stages = pruning.stages
    nonzero = stages[0].nonzero - stages[-1].nonzero
    packed = stages[0].compressed_bytes - stages[-1].compressed_bytes
    return [
        (
            stage.name,
            (before.nonzero - stage.nonzero) / nonzero if nonzero else 0.0,
            (before.compressed_bytes - stage.compressed_bytes) / packed if packed else 0.0,
        )
        for before, stage in pairwise(stages)
    ]


def _stage(stage: Stage) -> Document:
    return {
        "name": stage.name,
        "weights": stage.weights,
        "nonzero": stage.nonzero,
        **asdict(stage.cost),
        "file_bytes": stage.file_bytes,
        "compressed_bytes": stage.compressed_bytes,
        "latency_ms": asdict(stage.latency),
        "accuracy": number(stage.accuracy),
        "same_answer": number(stage.same),
    }


def _group(group: Group, elements: int) -> Document:
    return {
        "p": group.p,
        "q": group.q,
        "pq_index": number(group.index),
        "retained": group.retained,
        "retained_share": group.retained / elements,
    }


def _neurons(neurons: Neurons) -> Document:
    names = ("min", "quarter", "median", "three_quarters", "max")
    return {
        "count": neurons.count,
        "undefined": neurons.undefined,
        "pq_index": dict(zip(names, map(number, neurons.quantiles), strict=True)),
        "retained": neurons.retained,
    }
