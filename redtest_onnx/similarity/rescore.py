"""Another threshold, steepness or gate for what was measured already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from redtest_onnx.documents.base import Document
from redtest_onnx.layers.granularity import Granularity
from redtest_onnx.layers.layer import Layer
from redtest_onnx.metrics.msrs import msrs
from redtest_onnx.similarity.analyze import Analysis, AnalysisSettings, Redundancy, redundancy_of
from redtest_onnx.similarity.documents import redundancy_document, settings_document
from redtest_onnx.similarity.saved import SavedAnalysis


@dataclass(frozen=True, eq=False)
class RescoredAnalysis:
    """An analysis under another score.

    Attributes:
        analysis: with the new score.
        notes: a sentence for everything that could not be scored anew.
    """

    analysis: Analysis
    notes: tuple[str, ...]


def rescore(
    analysis: Analysis,
    *,
    threshold: float | None = None,
    alpha: float | None = None,
    gate: bool | None = None,
) -> RescoredAnalysis:
    """Score the similarities of an analysis anew; nothing is run.

    Args:
        analysis: what was measured.
        threshold: similarity of a redundant pair; that of the analysis if None.
        alpha: steepness, infinite for a count; likewise.
        gate: whether only pairs above the threshold count; likewise.

    Raises:
        InputError: alpha is not positive, or the threshold is not finite.
    """
    before = analysis.redundancy
    settings = replace(
        analysis.settings,
        threshold=before.threshold if threshold is None else threshold,
        alpha=before.alpha if alpha is None else alpha,
        gate=before.gate if gate is None else gate,
    )
    if (settings.threshold, settings.alpha, settings.gate) == (before.threshold, before.alpha, before.gate):
        return RescoredAnalysis(analysis, ())
    stack, notes = analysis.hsic_batches, []
    if stack is not None:
        redundancy = redundancy_of(stack, analysis.similarity, settings)
    else:
        redundancy = _of_matrix(analysis, settings)
        if len(before.per_batch) > 1:
            notes.append(
                "The file has no similarities of single batches: the score is that of all of them together, "
                "without scores of batches, their deviation and a standard error."
            )
            if settings.estimator == "paper":
                notes.append("The estimator 'paper' reports the mean of the batches' scores instead.")
    if analysis.without_largest is not None:
        notes.append("What MSRS is without the samples that dominate layers can't be told from the file.")
    found = replace(analysis, redundancy=redundancy, settings=settings, without_largest=None)
    return RescoredAnalysis(found, tuple(notes))


def restricted(analysis: Analysis, layers: Sequence[Layer], granularity: Granularity) -> Analysis | None:
    """An analysis of some of the tensors that were measured; nothing is run.

    Args:
        analysis: what was measured.
        layers: those to tell of, such as blocks, which end where their last sub-layers do.
        granularity: what they are.

    Returns:
        The analysis of these layers; None if one of their tensors was not measured. What it would be without
        samples that dominate layers is left out, since it isn't known for other pairs.
    """
    place = {layer.tensor: layer.index for layer in analysis.layers}
    if any(layer.tensor not in place for layer in layers):
        return None
    chosen = [place[layer.tensor] for layer in layers]
    settings = replace(
        analysis.settings, threshold=analysis.redundancy.threshold, granularity=granularity, layers="auto"
    )
    grid = np.ix_(chosen, chosen)
    names = {analysis.layers[k].name: layer.name for k, layer in zip(chosen, layers, strict=True)}
    found = replace(
        analysis,
        layers=tuple(replace(layer, index=k) for k, layer in enumerate(layers)),
        similarity=analysis.similarity[grid],
        settings=settings,
        features=tuple(analysis.features[k] for k in chosen),
        top_share=tuple(analysis.top_share[k] for k in chosen),
        dominated=tuple(names[name] for name in analysis.dominated if name in names),
        without_largest=None,
    )
    stack = analysis.hsic_batches
    if stack is None:
        return replace(found, redundancy=_of_matrix(found, settings))
    stack = stack[:, chosen][:, :, chosen]
    return replace(found, redundancy=redundancy_of(stack, found.similarity, settings), hsic_batches=stack)


def rescored_document(saved: SavedAnalysis, analysis: Analysis) -> Document:
    """The document of a saved analysis with another score in it.

    What was varied or proposed under the score before is left out.
    """
    kept = saved.document
    if analysis is not saved.analysis:
        kept = {key: value for key, value in kept.items() if key not in ("sweep", "proposed_threshold")}
    document = {
        **kept,
        "msrs": redundancy_document(analysis.redundancy),
        "settings": settings_document(analysis.settings),
    }
    return document if analysis.without_largest is not None else {**document, "without_largest": None}


def _of_matrix(analysis: Analysis, settings: AnalysisSettings) -> Redundancy:
    assert settings.threshold is not None
    score = msrs(analysis.similarity, settings.alpha, settings.threshold, settings.gate)
    single = len(analysis.redundancy.per_batch) == 1
    return replace(
        analysis.redundancy,
        value=score.value,
        std=None,
        standard_error=None,
        per_batch=(score.value,) if single else (),
        pairs=score.pairs,
        undefined=score.undefined,
        alpha=settings.alpha,
        threshold=settings.threshold,
        gate=settings.gate,
    )
