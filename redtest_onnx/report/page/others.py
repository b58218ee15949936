"""Pages of the other commands: compare, sparsity, rank, search, audit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from redtest_onnx.auditing.run import Audit
from redtest_onnx.graph.model import Model
from redtest_onnx.ranking.rank import Ranking, RankingEntry
from redtest_onnx.ranking.score import SCORES
from redtest_onnx.report import numbers
from redtest_onnx.report.audits import audit_table
from redtest_onnx.report.comparisons import compare_headline, match_table
from redtest_onnx.report.numbers import plural
from redtest_onnx.report.page.layers import SYNTHETIC, cost_cards
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
    finite,
)
from redtest_onnx.report.page.provenance import Facts, Provenance, model_facts, settings_fact
from redtest_onnx.report.ranking_figures import candidate_label, staircase
from redtest_onnx.report.rankings import (
    correlation_table,
    means_table,
    origin_words,
    ranking_table,
    score_words,
)
from redtest_onnx.report.sparsity import sparsity_table, sparsity_words
from redtest_onnx.report.table import Column, Table
from redtest_onnx.similarity.compare import Comparison
from redtest_onnx.text import digits
from redtest_onnx.weight_sparsity.measure import Sparsity

_COSTS = {
    "latency": PageAxis("latency", "milliseconds", log=True),
    "parameters": PageAxis("parameters", "count", log=True),
    "macs": PageAxis("MACs per sample", "count", log=True),
}


def compare_page(
    comparison: Comparison,
    titles: tuple[str, str],
    provenance: Provenance,
    files: Facts = (),
    side_by_side: Sequence[Table] = (),
) -> Page:
    """What `compare` measured of two sides.

    Args:
        comparison: the similarity of their layers.
        titles: what they are called.
        provenance: how.
        files: their names with their digests, and what to mind.
        side_by_side: size, cost, latency and outputs, and the tensors that match, where both are models.
    """
    rows = tuple(map(Item, comparison.rows))
    columns = tuple(map(Item, comparison.columns))
    source = comparison.sources[0]
    if comparison.sources[1] != source:
        source = f"{source} and {comparison.sources[1]}"
    batches = plural(comparison.batches, "batch", "batches")
    return Page(
        title=f"{titles[0]} (rows) and {titles[1]} (columns)",
        headline=compare_headline(comparison),
        cards=_change_cards(side_by_side[0]) if side_by_side else (),
        matrices=(Matrix("similarity", rows, columns, comparison.similarity),),
        tables=(match_table(comparison), *side_by_side),
        facts=(
            *(files or (("Rows", titles[0]), ("Columns", titles[1]))),
            ("Measured on", f"{batches} of {plural(comparison.samples, 'sample')} of {source}"),
            settings_fact(comparison.settings),
            *provenance.facts,
        ),
    )


def _change_cards(table: Table) -> tuple[Card, ...]:
    """The main rows of a table of two sides and their change."""
    cards = []
    for measure, *cells in table.rows:
        before, after, change = (
            column.text(cell) for column, cell in zip(table.columns[1:], cells, strict=True)
        )
        title = str(measure)
        if title.startswith(("activation peak", "latency p90", "95% interval")):
            continue
        if before not in ("", "-"):
            cards.append(Card(f"{title[0].upper()}{title[1:]}", change, f"{before} → {after}"))
        elif after not in ("", "-"):
            cards.append(Card(f"{title[0].upper()}{title[1:]}", after))
    return tuple(cards)


def sparsity_page(
    model: Model, sparsity: Sparsity, provenance: Provenance, stages: Sequence[Table] = ()
) -> Page:
    """What `sparsity` measured of the weights, with what pruning of them did stage by stage."""
    words = sparsity_words(sparsity)
    items = tuple(
        Item(t.name, f"{t.kind}, {'x'.join(map(str, t.shape))}, {plural(t.elements, 'weight')}")
        for t in sparsity.tensors
    )
    panels = [
        Panel(
            f"PQ Index, p={group.p:g} q={group.q:g} (dashed: all weights)",
            "decimal",
            finite([t.groups[k].index for t in sparsity.tensors]),
            None if math.isnan(group.index) else group.index,
        )
        for k, group in enumerate(sparsity.overall)
    ]
    panels.append(Panel("weights", "count", tuple(float(t.elements) for t in sparsity.tensors)))
    return Page(
        title=f"{(model.path or Path(model.label)).name}: weights",
        headline=words[0],
        cards=(
            Card("Weights", numbers.count(sparsity.elements), plural(len(sparsity.tensors), "tensor")),
            Card("Zeros", f"{sparsity.zeros / sparsity.elements:.1%}" if sparsity.elements else "-"),
            *(
                Card(
                    f"PQ Index p={g.p:g} q={g.q:g}", numbers.decimal(g.index), _retained(g.retained, sparsity)
                )
                for g in sparsity.overall
            ),
        ),
        charts=(
            *([Columns("Tensor by tensor", items, tuple(panels))] if items else []),
            _histogram(sparsity),
        ),
        tables=(*stages, _numbered(sparsity_table(sparsity))),
        facts=(
            *model_facts(model),
            *(("PQ Index", line) for line in words[1 : len(panels)]),
            *(("Note", line) for line in words[len(panels) :]),
            *provenance.facts,
        ),
        protect="tensors",
    )


def _numbered(table: Table) -> Table:
    """With the positions that charts write below their columns."""
    columns = (Column("index", "#", "integer"), *table.columns)
    return replace(table, columns=columns, rows=tuple((k, *row) for k, row in enumerate(table.rows)))


def _retained(retained: float, sparsity: Sparsity) -> str:
    return f"up to {1 - retained / sparsity.elements:.0%} may be spared" if sparsity.elements else ""


def _histogram(sparsity: Sparsity) -> Columns:
    histogram = sparsity.histogram
    filled = [k for k, number in enumerate(histogram.counts) if number] or [0]
    chosen = range(filled[0], filled[-1] + 1)
    items = tuple(
        Item(f"magnitudes {10 ** histogram.edges[k]:.2g} to {10 ** histogram.edges[k + 1]:.2g}")
        for k in chosen
    )
    counts = tuple(float(histogram.counts[k]) for k in chosen)
    return Columns(
        "Magnitudes of the weights",
        items,
        (Panel("weights", "count", counts),),
        "From small to large on a logarithmic scale; zeros are not among them.",
        numbered=False,
        ends=tuple(f"{10 ** histogram.edges[k]:.2g}" for k in (filled[0], filled[-1] + 1)),
    )


def ranking_page(
    ranking: Ranking,
    provenance: Provenance,
    *,
    title: str = "Ranking",
    notes: Sequence[str] = (),
) -> Page:
    """What `rank` or `search` found.

    Args:
        ranking: the candidates in order.
        provenance: how.
        title: heading of the page.
        notes: further sentences for the headline, such as how a search ended.
    """
    settings = ranking.settings
    best = ranking.rows[0].candidate
    tables: list[Table] = [ranking_table(ranking)]
    if ranking.means:
        tables.append(means_table(ranking))
    if ranking.correlations:
        tables.append(correlation_table(ranking))
    if ranking.unranked:
        columns = (Column("name", "candidate", "name"), Column("reason", "reason", "reason"))
        rows = tuple((item.name, item.reason) for item in ranking.unranked)
        tables.append(Table("unranked", "Not ranked", columns, rows))
    return Page(
        title=f"{title}: {plural(len(ranking.rows), 'candidate')}",
        headline=" ".join(
            [
                f"{best.name} is first by {settings.by}: accuracy {numbers.percent(best.accuracy)}, "
                f"{numbers.count(best.parameters)} parameters, {numbers.count(best.macs)} MACs.",
                *origin_words(ranking),
                *notes,
            ]
        ),
        charts=tuple(_candidates(ranking)),
        tables=tuple(tables),
        facts=(
            *(("Score", score_words(settings, kind)) for kind in SCORES),
            ("Pareto", "A star: no other is as good in accuracy, cost and MSRS, and better in one of them"),
            *provenance.facts,
        ),
    )


def _candidates(ranking: Ranking) -> list[Points]:
    cost = ranking.settings.cost
    rows = [row for row in ranking.rows if row.candidate.accuracy is not None and row.candidate.cost(cost)]
    if not rows:
        return []
    x = [row.candidate.cost(cost) or 0.0 for row in rows]
    y = [row.candidate.accuracy or 0.0 for row in rows]
    front = set(staircase(x, y))
    scores = [row.candidate.msrs for row in rows if row.candidate.msrs is not None]
    low, high = min(scores, default=0.0), max(scores, default=0.0)

    def colour(row: RankingEntry) -> float | None:
        msrs = row.candidate.msrs
        return None if msrs is None or high <= low else (msrs - low) / (high - low)

    points = tuple(
        Point(
            x[k],
            y[k],
            f"{row.place} {Path(row.candidate.name).name}",
            f"MSRS {numbers.decimal(row.candidate.msrs)}, {numbers.count(row.candidate.parameters)} "
            "parameters",
            label=candidate_label(row),
            front=k in front,
            colour=colour(row),
        )
        for k, row in enumerate(rows)
    )
    note = (
        "Numbers are places in the ranking. The line joins the candidates that none beats in both; the stars "
        "of the table count MSRS as a third."
    )
    return [
        Points(
            f"Accuracy and {_COSTS[cost].title}", _COSTS[cost], PageAxis("accuracy", "share"), points, note
        )
    ]


def audit_page(audits: Sequence[Audit], provenance: Provenance) -> Page:
    """What `audit` found in one model, or in several."""
    passed = all(audit.passed for audit in audits)
    failing = sum(len(audit.failing) for audit in audits)
    names = [(audit.model.path or Path(audit.model.label)).name for audit in audits]
    what = names[0] if len(names) == 1 else plural(len(names), "model")
    verdict = "passed" if passed else "failed"
    headline = f"Audited for {audits[0].profile.name}: "
    headline += "nothing that fails was found." if passed else f"{plural(failing, 'finding')} to mend."
    return Page(
        title=f"{what}: audit {verdict}",
        headline=headline,
        warnings=(SYNTHETIC,) if audits[0].measured["synthetic_inputs"] else (),
        cards=(
            Card("Verdict", verdict, f"profile {audits[0].profile.name}", "good" if passed else "bad"),
            *(cost_cards(audits[0].cost, audits[0].model.file_bytes) if len(audits) == 1 else ()),
            *_latency_card(audits),
        ),
        tables=tuple(
            audit_table(
                audit, key=f"findings{k}", title=f"Findings in {name}" if len(names) > 1 else "Findings"
            )
            for k, (audit, name) in enumerate(zip(audits, names, strict=True))
        ),
        facts=(
            *(fact for audit in audits for fact in model_facts(audit.model)),
            ("Profile", audits[0].profile.name),
            *provenance.facts,
        ),
    )


def _latency_card(audits: Sequence[Audit]) -> tuple[Card, ...]:
    latency = audits[0].measured["latency_ms"]
    if len(audits) > 1 or not latency:
        return ()
    tail = f"p99 {digits(latency['p99'])} ms"
    return (Card("Latency, median", numbers.milliseconds(latency["p50"]), tail),)
