"""What an analysis found: layers, their similarities and the redundancy these add up to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from redtest_onnx.arrays import Float64s
from redtest_onnx.documents.base import Document
from redtest_onnx.documents.result import Result
from redtest_onnx.graph.cost import Cost
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.probe.exposure import UnexposedTensor
from redtest_onnx.layers.layer import Layer
from redtest_onnx.similarity.documents import analyze_document
from redtest_onnx.similarity.settings import AnalysisSettings


@dataclass(frozen=True)
class Redundancy:
    """The Model Structural Redundancy Score.

    Attributes:
        value: the score: about the number of pairs of layers more similar than `threshold`.
        std: its standard deviation over batches; None for a single batch.
        standard_error: of the value, from the batches; None for a single batch.
        per_batch: the score of each batch.
        pairs: number of pairs that were counted.
        undefined: number of pairs left out because a layer's similarity is undefined.
        alpha: steepness used.
        threshold: threshold used.
        gate: whether pairs below the threshold were left out.
    """

    value: float
    std: float | None
    standard_error: float | None
    per_batch: tuple[float, ...]
    pairs: int
    undefined: int
    alpha: float
    threshold: float
    gate: bool


@dataclass(frozen=True)
class WithoutLargest:
    """What is measured when samples that dominate a layer are left out.

    Attributes:
        samples: how many, of all batches.
        msrs: the score on the others; NaN where these samples are so large that rounding hides what the
            others differ in.
        adjacent: similarity of each layer with the next one, [L - 1]; NaN where undefined.
    """

    samples: int
    msrs: float
    adjacent: tuple[float, ...]


@dataclass(frozen=True, repr=False)
class Analysis(Result):
    """What was measured on a model.

    Attributes:
        layers: the series of layers.
        similarity: [L, L] float64, CKA between the layers by the estimator of the settings; NaN where
            undefined.
        redundancy: the MSRS.
        settings: how it was measured, with the threshold that was used.
        source: where the samples came from.
        synthetic: whether they are synthetic (random).
        labelled: whether they have labels.
        samples: number of samples per batch.
        batches: number of batches.
        features: number of features per layer after pooling.
        null95: similarity that 95 % of pairs of layers stay below if their samples are shuffled; what lies
            below it is chance.
        top_share: per layer, the share of the top 1 % of samples by norm (at least one) in a batch's total.
        dominated: names of layers in which few samples carry far more than their part, so that they decide
            the similarity.
        without_largest: what is measured without these samples; None if there are none, with the estimator
            "exact", and where fewer than four others would be left.
        forward_s: seconds spent running the model.
        metric_s: seconds spent on similarities.
        branches: branches of If that were opened because of what is fed, in words.
        hsic_batches: [B, L, L] float64, HSIC of each batch, from which batches are scored with another
            threshold; None for a single batch, and where a file that was read has none.
        model: what was measured; None for an analysis that was read from a file.
        cost: of the model; likewise.
        unmeasured: tensors without a similarity, with the reason, where all layers were asked for.
    """

    layers: tuple[Layer, ...]
    similarity: Float64s
    redundancy: Redundancy
    settings: AnalysisSettings
    source: str
    synthetic: bool
    labelled: bool
    samples: int
    batches: int
    features: tuple[int, ...]
    null95: float
    top_share: tuple[float, ...]
    dominated: tuple[str, ...]
    without_largest: WithoutLargest | None
    forward_s: float
    metric_s: float
    branches: tuple[str, ...] = ()
    hsic_batches: Float64s | None = field(default=None, compare=False)
    model: Model | None = field(default=None, compare=False)
    cost: Cost | None = field(default=None, compare=False)
    unmeasured: tuple[UnexposedTensor, ...] = field(default=(), compare=False)

    def summary(self) -> str:
        """Layers and score."""
        score = self.redundancy
        return (
            f"{len(self.layers)} layers, MSRS {score.value:.1f} above {score.threshold:g}, "
            f"{sum(layer.removable for layer in self.layers)} layers can be removed; "
            f"{self.batches} x {self.samples} samples of {self.source}"
        )

    def to_dict(self) -> Document:
        """The document of `analyze --json`; without `model` if the analysis was read from a file."""
        return analyze_document(self.model, self.cost, self, self.forward_s + self.metric_s)

    def records(self) -> list[dict[str, Any]]:
        """One entry per layer, with its similarity to the one before it."""
        before = (None, *self.adjacent)
        return [
            {
                "layer": layer.name,
                "kind": layer.kind,
                "parameters": layer.parameters,
                "macs": layer.macs,
                "similarity": value,
                "removable": layer.removable,
                "reason": layer.reason,
            }
            for layer, value in zip(self.layers, before, strict=True)
        ]

    @property
    def adjacent(self) -> tuple[float, ...]:
        """Similarity of each layer with the next one, [L - 1]."""
        return tuple(float(v) for v in np.diagonal(self.similarity, offset=1))

    def repeated(
        self, threshold: float, removable: Callable[[Layer], bool]
    ) -> tuple[tuple[Layer, float], ...]:
        """After RedTest's Algorithm 3: walk the layers; one as similar as `threshold` goes.

        Ours compares with the last kept layer, where the paper's compares with the one before, kept or not: a
        chain of small changes does not go as a whole.

        Args:
            threshold: similarity from which on a layer repeats the one before.
            removable: whether a layer may go; those that may not are kept and compared with.

        Returns:
            The layers that go, each with its similarity to the last kept one.
        """
        kept, found = self.layers[0], []
        for layer in self.layers[1:]:
            similarity = float(self.similarity[kept.index, layer.index])
            if removable(layer) and similarity >= threshold:
                found.append((layer, similarity))
            else:
                kept = layer
        return tuple(found)

    @property
    def undefined(self) -> tuple[Layer, ...]:
        """Layers whose similarity is undefined since they do not vary."""
        return tuple(layer for layer in self.layers if np.isnan(self.similarity[layer.index, layer.index]))
