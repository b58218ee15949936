"""The trade-off between size and quality: a series of models, each pruned, repaired and measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from redtest_onnx.documents.base import Document, document_head
from redtest_onnx.errors import InputError, NegativeVerdictError
from redtest_onnx.pruning.budget import DEFAULT_MAX_DROP, Budget, protected_by
from redtest_onnx.pruning.counting import adapters_where_fitted, counted_analysis
from redtest_onnx.pruning.criteria import base as criteria
from redtest_onnx.pruning.criteria.base import CriterionContext, SetChoice
from redtest_onnx.pruning.documents import prune_document
from redtest_onnx.pruning.prune import PruneSettings, Pruning, prune
from redtest_onnx.pruning.targets import plan_of
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analyze import Analysis, Progress

POINTS = 8


@dataclass(frozen=True, eq=False)
class CurvePoint:
    """A model of the series.

    Attributes:
        pruning: the model with its proof.
        loss: of accuracy, or of agreement without labels, on samples that chose the repair; on those it is
            judged on where nothing was repaired. Infinite where nothing can be judged.
    """

    pruning: Pruning
    loss: float

    @property
    def removed(self) -> int:
        """Number of layers that were removed."""
        return len(self.pruning.plan.steps)

    @property
    def quality(self) -> float | None:
        """Accuracy, or agreement with the original without labels; None where neither can be told."""
        accuracy = self.pruning.after.accuracy
        return self.pruning.agreement.value if accuracy is None else accuracy

    @property
    def share(self) -> float:
        """Share of the original's parameters that remains."""
        before = self.pruning.before.cost.parameters
        return self.pruning.after.cost.parameters / max(before, 1)


@dataclass(frozen=True, eq=False)
class Curve:
    """A series of models from one analysis and one ranking.

    Attributes:
        points: by number of removed layers.
        skipped: numbers of layers without a model, with the reason.
        chosen: index of the point with the fewest parameters within the limit; None if none is.
        max_drop: the limit.
    """

    points: tuple[CurvePoint, ...]
    skipped: tuple[tuple[int, str], ...]
    chosen: int | None
    max_drop: float

    @property
    def unit(self) -> str:
        """What is counted: "block" of a transformer, else "layer"."""
        return self.points[0].pruning.plan.unit if self.points else "layer"

    @property
    def front(self) -> frozenset[int]:
        """Indices of the points that no other equals or beats in size and quality, and beats in one."""
        known = [(i, p.share, -p.quality) for i, p in enumerate(self.points) if p.quality is not None]
        return frozenset(
            i
            for i, size, loss in known
            if not any(s <= size and q <= loss and (s < size or q < loss) for _, s, q in known)
        )

    def document(self, outputs: Sequence[str]) -> Document:
        """The series as JSON: a document of `prune` for each point.

        Args:
            outputs: the file of each point.
        """
        head = self.points[0].pruning if self.points else None
        original = None if head is None else head.original
        return {
            **document_head("curve", original, None if head is None else head.before.cost),
            "points": [
                {**prune_document(point.pruning, None), "output": output, "loss": _finite(point.loss)}
                for point, output in zip(self.points, outputs, strict=True)
            ],
            "skipped": [{"layers": count, "reason": reason} for count, reason in self.skipped],
            "chosen": self.chosen,
            "max_drop": self.max_drop,
        }


def trade_off_curve(
    bench: Workbench,
    settings: PruneSettings | None = None,
    *,
    analysis: Analysis | None = None,
    budget: Budget | None = None,
    points: int = POINTS,
    progress: Progress | None = None,
) -> Curve:
    """Prune a model to a series of sizes, with one analysis and one ranking of its layers.

    Args:
        bench: the model and calibration samples.
        settings: in which order layers go and how what remains is repaired.
        analysis: an earlier analysis of the same model.
        budget: `protect` and `max_drop` count; the latter chooses the point.
        points: at most so many models, from few layers to all that can go.
        progress: called as work is done.

    Raises:
        InputError: see `analyze`.
        NegativeVerdictError: no layer can be removed.
    """
    settings, budget = settings or PruneSettings(), budget or Budget()
    settings = replace(settings, distil=replace(settings.distil, unasked_macs=0.0))  # many models, soon
    analysis = counted_analysis(bench, settings.similarity, counts=True, given=analysis, progress=progress)
    protected, fitted = (
        protected_by(analysis.layers, budget.protect),
        adapters_where_fitted(bench, settings.repair),
    )
    context = CriterionContext(
        bench.opened, analysis, allowed=lambda layer: protected(layer) and fitted(layer)
    )
    proposed = criteria.proposals(settings.criterion, context)
    ranking = list(islice(iter(proposed), len(analysis.layers)))
    if not ranking:
        raise NegativeVerdictError("no layer can be removed", where=bench.label, hint="see `inspect`")
    counts = np.unique(np.linspace(len(ranking) / points, len(ranking), points).round().clip(1).astype(int))
    found: list[CurvePoint] = []
    skipped: list[tuple[int, str]] = []
    for done, count in enumerate(map(int, counts)):
        whole = proposed.of_count(count) if isinstance(proposed, SetChoice) else None
        plan = plan_of(bench.opened, settings.criterion, ranking[:count] if whole is None else whole)
        try:
            pruning = prune(bench, plan, analysis, settings)
            found.append(CurvePoint(pruning, _loss(pruning)))
        except (InputError, NegativeVerdictError) as error:
            skipped.append((count, error.what))
        if progress:
            progress(done + 1, len(counts), "pruning to a series of sizes")
    limit = DEFAULT_MAX_DROP if budget.max_drop is None else budget.max_drop
    within = [i for i, point in enumerate(found) if point.loss <= limit]
    chosen = min(within, key=lambda i: (found[i].share, found[i].loss)) if within else None
    return Curve(tuple(found), tuple(skipped), chosen, limit)


def _loss(pruning: Pruning) -> float:
    if pruning.repair.loss is not None:
        return pruning.repair.loss
    if pruning.before.accuracy is not None and pruning.after.accuracy is not None:
        return pruning.before.accuracy - pruning.after.accuracy
    return float("inf") if pruning.agreement.value is None else 1 - pruning.agreement.value


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
