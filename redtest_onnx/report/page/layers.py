"""Pages about the layers of one model: inspect, analyze, prune."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from redtest_onnx.graph.cost import Cost
from redtest_onnx.graph.model import Model
from redtest_onnx.layers.layer import Layer
from redtest_onnx.pruning.plan import Plan
from redtest_onnx.pruning.prune import Pruning
from redtest_onnx.report import numbers
from redtest_onnx.report.agreement import agreement_notes
from redtest_onnx.report.cautions import cautions, redundancy_words
from redtest_onnx.report.numbers import plural
from redtest_onnx.report.page.model import (
    Card,
    Columns,
    Item,
    Matrix,
    Page,
    PageAxis,
    Panel,
    Point,
    Points,
    Tone,
    finite,
)
from redtest_onnx.report.page.provenance import Provenance, model_facts, output_fact, settings_fact
from redtest_onnx.report.prunings import (
    judged_words,
    prune_headline,
    removal_words,
    repair_table,
    repair_words,
    widths_table,
)
from redtest_onnx.report.table import Table
from redtest_onnx.report.tables import comparison_table, layer_table, run_words
from redtest_onnx.similarity.analyze import Analysis

SYNTHETIC = (
    "Measured on synthetic (random) inputs, which say little about real ones. Measure again with --data "
    "before you act on these figures."
)
PLANNED = "to be removed"
_GRAPH = (
    "The graph itself",
    "Netron (netron.app) shows it; --model-explorer gives these figures to Google's Model Explorer.",
)
Latencies = Sequence[float | None]


def inspect_page(model: Model, cost: Cost, layers: Sequence[Layer], provenance: Provenance) -> Page:
    """What `inspect` found."""
    removable = sum(layer.removable for layer in layers)
    name = _name(model)
    return Page(
        title=f"{name}: {plural(len(layers), 'layer')}",
        headline=f"{removable:,} of {plural(len(layers), 'layer')} can be removed; the table gives the "
        "reason for each of the others.",
        cards=(*cost_cards(cost, model.file_bytes), Card("Removable layers", f"{removable:,}")),
        charts=(_columns(layers),) if layers else (),
        tables=(layer_table(layers),),
        facts=(*model_facts(model), *provenance.facts),
        protect="layers",
    )


def analysis_page(
    model: Model,
    cost: Cost,
    analysis: Analysis,
    provenance: Provenance,
    *,
    plan: Plan | None = None,
    latency_ms: Latencies | None = None,
) -> Page:
    """What `analyze` measured, with the layers that `prune --dry-run` would remove marked.

    Args:
        model: the model.
        cost: of the model.
        analysis: what was measured.
        provenance: how.
        plan: layers that would be removed.
        latency_ms: [L], time of each layer where it was measured.
    """
    removed = frozenset(step.region for step in plan.steps) if plan else frozenset()
    score = analysis.redundancy
    spread = (
        f"± {score.std:,.1f} over batches, " if score.std is not None and math.isfinite(score.std) else ""
    )
    title = f"{_name(model)}: redundancy of {plural(len(analysis.layers), 'layer')}"
    if plan:
        title = f"{_name(model)}: plan to remove {removal_words(plan, analysis.layers)}"
    widths = widths_table(plan) if plan else None
    adjacent = finite(analysis.adjacent)
    candidates = sum(
        layer.removable and value is not None and value >= score.threshold
        for layer, value in zip(analysis.layers[1:], adjacent, strict=True)
    )
    return Page(
        title=title,
        headline=f"{redundancy_words(score)}. "
        f"{plural(candidates, 'removable layer repeats', 'removable layers repeat')} the one before.",
        warnings=_warnings(analysis),
        cards=(
            Card("MSRS", numbers.msrs(score.value), f"{spread}of {score.pairs:,} pairs"),
            *cost_cards(cost, model.file_bytes),
            Card("Candidates", f"{candidates:,}", f"of {plural(len(analysis.layers), 'layer')}"),
        ),
        matrices=(similarity_matrix(analysis, "similarity", removed),),
        charts=(_columns(analysis.layers, removed, analysis, latency_ms),),
        tables=(_layers(analysis, removed, latency_ms, PLANNED), *([widths] if widths else [])),
        facts=(*model_facts(model), *_data_facts(analysis), _GRAPH, *provenance.facts),
        protect="layers",
        marking=PLANNED,
    )


def prune_page(
    model: Model,
    pruning: Pruning,
    output: Path,
    provenance: Provenance,
    *,
    curve: Points | None = None,
    latency_ms: Latencies | None = None,
) -> Page:
    """What `prune` did.

    Args:
        model: the original.
        pruning: the result.
        output: the file written.
        provenance: how.
        curve: the trade-off between cost and quality, with the chosen point.
        latency_ms: [L], time of each layer of the original where it was measured.
    """
    analysis = pruning.analysis
    removed = frozenset(step.region for step in pruning.plan.steps)
    matrices = [similarity_matrix(analysis, "before", removed)]
    if not pruning.plan.empty and pruning.analysis_after is not None:
        matrices.append(similarity_matrix(pruning.analysis_after, "after"))
    details = (widths_table(pruning.plan), repair_table(pruning.repair))
    return Page(
        title=f"{_name(model)}: {removal_words(pruning.plan, analysis.layers)} removed",
        headline=prune_headline(pruning),
        warnings=_warnings(analysis),
        cards=_prune_cards(pruning),
        matrices=tuple(matrices),
        charts=(*([curve] if curve else []), _columns(analysis.layers, removed, analysis, latency_ms)),
        tables=(
            comparison_table(pruning),
            _layers(analysis, removed, latency_ms),
            *filter(None, details),
        ),
        facts=(
            *model_facts(model),
            output_fact(output),
            ("Criterion", pruning.plan.criterion),
            ("Repair", repair_words(pruning.repair)),
            ("Compared on", judged_words(pruning)),
            *(("Note", note) for note in agreement_notes(pruning.agreement.outputs)),
            *_data_facts(analysis),
            _GRAPH,
            *provenance.facts,
        ),
        protect="layers",
    )


def trade_off(
    points: Sequence[Point], quality: str = "agreement with the original", note: str = ""
) -> Points:
    """The chart of a series of budgets, for `prune_page`.

    Args:
        points: one for each model: x its share of the original's parameters, y its quality as a share of 1;
            `front` on all that none beats in both, `chosen` on the one that was written.
        quality: what y is.
        note: how one was chosen, in a sentence.
    """
    return Points(
        "Trade-off between size and quality",
        PageAxis("parameters that remain", "share"),
        PageAxis(quality, "share"),
        tuple(points),
        f"Each point is a model that was pruned, repaired and measured. {note}".rstrip(),
    )


def _name(model: Model) -> str:
    return model.path.name if model.path else model.label


def _warnings(analysis: Analysis) -> tuple[str, ...]:
    return (*([SYNTHETIC] if analysis.synthetic else []), *cautions(analysis))


def _data_facts(analysis: Analysis) -> tuple[tuple[str, str], ...]:
    batches = plural(analysis.batches, "batch", "batches")
    return (
        ("Measured on", f"{batches} of {plural(analysis.samples, 'sample')} of {analysis.source}"),
        settings_fact(analysis.settings),
    )


def _layers(
    analysis: Analysis, removed: Collection[str], latency_ms: Latencies | None, marking: str = "removed"
) -> Table:
    similarity = [None, *analysis.adjacent]
    return layer_table(analysis.layers, similarity, latency_ms=latency_ms, removed=removed, marking=marking)


def layer_items(layers: Iterable[Layer], removed: Collection[str] = ()) -> tuple[Item, ...]:
    """Layers along an axis."""
    return tuple(
        Item(
            layer.name,
            f"{layer.kind}, {numbers.count(layer.parameters)} parameters, {numbers.count(layer.macs)} MACs",
            layer.name in removed,
        )
        for layer in layers
    )


def similarity_matrix(analysis: Analysis, title: str, removed: Collection[str] = ()) -> Matrix:
    """The CKA of all pairs of layers."""
    items = layer_items(analysis.layers, removed)
    return Matrix(title, items, items, analysis.similarity)


def _columns(
    layers: Sequence[Layer],
    removed: Collection[str] = (),
    analysis: Analysis | None = None,
    latency_ms: Latencies | None = None,
) -> Columns:
    panels = [
        Panel("parameters", "count", tuple(float(layer.parameters) for layer in layers)),
        Panel("MACs", "count", tuple(None if v.macs is None else float(v.macs) for v in layers)),
    ]
    if latency_ms is not None:
        panels.append(Panel("latency of the layer", "milliseconds", finite(latency_ms)))
    if analysis is not None:
        similarity = (None, *finite(analysis.adjacent))
        threshold = analysis.redundancy.threshold
        panels.append(
            Panel("similarity to the layer before (dashed: threshold)", "similarity", similarity, threshold)
        )
    return Columns("Layer by layer", layer_items(layers, removed), tuple(panels))


def cost_cards(cost: Cost, file_bytes: int) -> tuple[Card, ...]:
    """What a model costs."""
    return (
        Card("Parameters", numbers.count(cost.parameters)),
        Card("MACs", numbers.count(cost.macs), "per sample"),
        Card("File", numbers.size(file_bytes)),
        Card("Activations at the peak", numbers.size(cost.peak_activation_bytes), run_words(cost)),
    )


def _prune_cards(pruning: Pruning) -> tuple[Card, ...]:
    a, b = pruning.before, pruning.after
    cards = [
        _saving("Parameters", a.cost.parameters, b.cost.parameters, numbers.count),
        _saving("MACs", a.cost.macs, b.cost.macs, numbers.count),
        _saving("File", a.file_bytes, b.file_bytes, numbers.size),
        _saving("Latency, median", a.latency.p50, b.latency.p50, numbers.milliseconds),
        _saving("MSRS", a.msrs, b.msrs, numbers.msrs),
    ]
    if a.accuracy is not None and b.accuracy is not None:
        points = (b.accuracy - a.accuracy) * 100
        tone: Tone = "good" if points >= 0 else "bad" if points <= -1 else ""
        cards.append(Card("Accuracy", f"{points:+.2f} points", f"{a.accuracy:.2%} → {b.accuracy:.2%}", tone))
    if pruning.agreement.value is not None:
        ends = numbers.interval95(pruning.agreement.interval)
        detail = f"95% interval {ends}, {numbers.plural(pruning.evaluated, 'sample')}" if ends else ""
        cards.append(Card("Agreement with the original", f"{pruning.agreement.value:.2%}", detail))
    return tuple(cards)


def _saving(title: str, before: float | None, after: float | None, show: numbers.Show) -> Card:
    detail = f"{show(before)} → {show(after)}"
    if not before or after is None or math.isnan(after):
        return Card(title, show(after), detail)
    change = after / before - 1
    tone: Tone = "good" if change < -0.005 else "bad" if change > 0.005 else ""
    return Card(title, f"{change:+.1%}", detail, tone)
