"""What `prune` did, in words, as a table of its repair and as a summary for pull requests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from redtest_onnx.errors import with_arguments
from redtest_onnx.graph.surgery import is_adapter
from redtest_onnx.layers.layer import Layer
from redtest_onnx.pruning.plan import Plan
from redtest_onnx.pruning.prune import Pruning
from redtest_onnx.pruning.repair.repair import Repair
from redtest_onnx.pruning.units import removed_of
from redtest_onnx.report.agreement import agreement_notes
from redtest_onnx.report.numbers import interval95, milliseconds, plural
from redtest_onnx.report.table import Cell, Column, Table
from redtest_onnx.report.table_formats import markdown_text, table_markdown
from redtest_onnx.report.tables import comparison_table

if TYPE_CHECKING:
    from redtest_onnx.pruning.repair.distilled import TrainingOffer
    from redtest_onnx.pruning.rounds import Round

_MACS_PER_MINUTE = 1.8e12  # of one core of 2025, forward and backward in PyTorch


def prune_headline(pruning: Pruning) -> str:
    """What was removed, what it saves and what it costs."""
    a, b = pruning.before, pruning.after
    if pruning.plan.empty:
        return f"No layer was removed: {with_arguments(pruning.plan.reason or 'the plan names none')}."
    saves = [_change("parameters", a.cost.parameters, b.cost.parameters)]
    if a.cost.macs and b.cost.macs is not None:
        saves.append(_change("MACs", a.cost.macs, b.cost.macs))
    costs = f"{plural(pruning.evaluated, 'sample')} of {pruning.evaluated_on}"
    if ends := interval95(pruning.interval):
        costs += f" (95% interval {ends})"
    if a.accuracy is not None and b.accuracy is not None:
        costs = f"accuracy {a.accuracy:.2%} → {b.accuracy:.2%} on {costs}"
    elif pruning.agreement.value is not None:
        costs = f"the outputs agree by {pruning.agreement.value:.2%} on {costs}"
    else:
        costs = f"outputs differ by {pruning.agreement.relative_l2:.2%} (relative) on {costs}"
    return (
        f"{', '.join(saves)}; latency {milliseconds(a.latency.p50)} → {milliseconds(b.latency.p50)}. "
        f"{costs[0].upper()}{costs[1:]}."
    )


def judged_words(pruning: Pruning) -> str:
    """Which samples tell quality, and whether they chose what they judge."""
    if pruning.judged_apart:
        return f"{plural(pruning.evaluated, 'sample')} of {pruning.evaluated_on}"
    held = f"{plural(pruning.evaluated, 'held-out sample')} of {pruning.evaluated_on}"
    return f"{held}, by which plans and repairs are chosen, too (others: --eval-data)"


def _change(name: str, before: float, after: float) -> str:
    share = after / before - 1 if before else 0.0
    return f"{abs(share):.1%} {'fewer' if share <= 0 else 'more'} {name}"


def removal_words(plan: Plan, layers: Sequence[Layer]) -> str:
    """What a plan takes out, without a verb: layers or blocks, and channels of those that stay.

    Args:
        plan: with the steps.
        layers: all that it could have chosen from.
    """
    words = removed_of(plan, layers)
    if not plan.widths:
        return words
    gone, before = (sum(getattr(width, key) for width in plan.widths) for key in ("removed", "channels"))
    inside = plural(len(plan.widths), "inner width")
    return f"{words} and {gone:,} of {before:,} channels of {inside}"


def removal_sentence(plan: Plan, layers: Sequence[Layer]) -> str:
    """The same with its verb: "1 of 12 layers is removed"."""
    one = len(plan.steps) == 1 and not plan.widths
    return f"{removal_words(plan, layers)} {'is' if one else 'are'} removed"


def repair_words(repair: Repair) -> str:
    """What was fitted, to what, and what held-out samples say of it."""
    if repair.reason is not None:
        return f"Not repaired: {repair.reason}."
    if repair.redrawn:
        lost = "" if repair.loss is None else f" until then {repair.loss * 100:.1f} points are lost"
        names = ", ".join(repair.redrawn)
        return f"Resized and drew anew, to be trained with `finetune`;{lost}: {names}."
    if not repair.refits and repair.method != "none" and repair.training is None:
        return (
            "Nothing was refitted: no operator behind the removed layers has weights that can be solved for "
            "(quantised and computed ones can't), their outputs are the original's already, or no correction "
            "helped on samples held back from the fit."
        )
    adapters = sum(is_adapter(refit.operator) for refit in repair.refits)
    fitted = f"Refitted {plural(len(repair.refits) - adapters, 'operator')}"
    if adapters:
        fitted = f"Fitted {plural(adapters, 'adapter')} and refitted {fitted.removeprefix('Refitted ')}"
    lost = ""
    if repair.loss_plain is not None and repair.loss is not None:
        lost = (
            f"; on {plural(repair.held_out, 'held-out sample')} {repair.loss_plain * 100:.1f} points are "
            f"lost without that, {repair.loss * 100:.1f} with it"
        )
        if repair.loss >= repair.loss_plain and repair.difference is not None:
            lost += (
                f" (its outputs differ from the original's by {repair.difference:.0%}, "
                f"by {repair.difference_plain or 0:.0%} without)"
            )
            if repair.difference > (repair.difference_plain or 0):
                lost += ", which makes it worse; --repair auto keeps what loses least"
    words = f"{fitted} on {plural(repair.fitted_on, 'sample')}{lost}."
    poor = [f for f in repair.refits if (f.rank or 0) < f.unknowns and f.rows < 2 * f.unknowns]
    if poor:
        words += (
            f" {plural(len(poor), 'operator')} had too few samples for the unknowns ({poor[0].operator}: "
            f"{poor[0].rows} rows for {poor[0].unknowns}); more --data would fit better."
        )
    if repair.training is not None:
        words += f" {training_words(repair)}"
    return words if repair.offer is None else f"{words} {_offer_words(repair.offer)}"


def training_words(repair: Repair) -> str:
    """What the training behind a refit did, apart from the closed form."""
    training = repair.training
    assert training is not None
    took = f"{plural(training.steps, 'step')} in {training.seconds:.0f} s"
    if repair.method == "distil":
        return f"Then trained without labels, {took}."
    return f"Training without labels, {took}, is not kept: held-out samples lose no less with it."


def _offer_words(offer: TrainingOffer) -> str:
    """What training could bring that was not done unasked."""
    could = "Training without labels could make up for part of that drop"
    if not offer.installed:
        return f'{could}: pip install "redtest-onnx[torch]".'
    if offer.macs is None:
        return f"{could}: --repair distil."
    minutes = offer.macs / _MACS_PER_MINUTE
    return f"{could}: --repair distil, some {minutes:,.0f} minutes of one core; --repair-time bounds it."


def round_words(done: Round) -> str:
    """What a round of pruning with training removed, and what training brought."""
    judged, tuning = done.finetuning.validated, done.finetuning
    gone = [step.region for step in done.plan.steps]
    if done.plan.widths:
        gone.append(f"{sum(width.removed for width in done.plan.widths):,} channels")
    names = ", ".join(gone)
    losses = [tuning.start.loss, *(epoch["validation_loss"] for epoch in tuning.history)]
    quality = f"validation loss {losses[0]:.4f} -> {losses[tuning.best_epoch]:.4f} by training"
    if judged.before is not None and judged.after is not None:
        quality = f"validation accuracy {judged.before:.2%} -> {judged.after:.2%} by training"
    return f"Without {names}: {repair_words(done.repair)} {plural(len(tuning.history), 'epoch')}: {quality}."


def repair_table(repair: Repair) -> Table | None:
    """The operators that were fitted; None if there are none."""
    if not repair.refits:
        return None
    columns = (
        Column("operator", "operator", "name"),
        Column("explained", "error taken away", "share", drop=1),
        Column("rows", "equations", "integer", drop=2),
        Column("unknowns", "unknowns", "integer", drop=3),
        Column("rank", "rank", "integer", drop=4),
    )
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (fit.operator, fit.explained, fit.rows, fit.unknowns, fit.rank) for fit in repair.refits
    )
    return Table("repair", "Repaired operators", columns, rows)


def plan_table(plan: Plan) -> Table:
    """The layers that a plan removes."""
    columns = (
        Column("name", plan.unit, "name"),
        *((Column("parts", "with", drop=5),) if plan.unit == "block" else ()),
        Column("action", "action", drop=2),
        Column("score", "score", "decimal", drop=3),
        Column("parameters", "parameters", "count", drop=1),
        Column("macs", "MACs", "count", drop=4),
    )
    rows = tuple(
        (
            step.region,
            *((", ".join(part.kind for part in step.parts),) if plan.unit == "block" else ()),
            *(step.action, step.score, step.parameters, step.macs),
        )
        for step in plan.steps
    )
    return Table("plan", "Removed layers", columns, rows)


def widths_table(plan: Plan) -> Table | None:
    """The inner widths that lose channels; None if there are none."""
    if not plan.widths:
        return None
    columns = (
        Column("width", "made by", "name"),
        Column("channels", "channels", "integer", drop=3),
        Column("kept", "kept", "integer"),
        Column("price", "price", "decimal", drop=2),
        Column("parameters", "parameters", "count", drop=1),
        Column("macs", "MACs", "count", drop=4),
    )
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (w.width, w.channels, len(w.kept), w.price, w.parameters, w.macs) for w in plan.widths
    )
    return Table("widths", "Removed channels", columns, rows)


def prune_markdown(pruning: Pruning, name: str, output: Path) -> str:
    """A summary that a team pastes into a pull request."""
    plan, widths = plan_table(pruning.plan), widths_table(pruning.plan)
    removed = removal_words(pruning.plan, pruning.analysis.layers)
    lines = [
        f"### {markdown_text(name)}: {removed} removed",
        "",
        markdown_text(prune_headline(pruning)),
        "",
        table_markdown(comparison_table(pruning)),
        *(f"{markdown_text(note)}\n" for note in agreement_notes(pruning.agreement.outputs)),
    ]
    if plan.rows:
        lines += ["<details><summary>Removed layers</summary>", "", table_markdown(plan), "</details>", ""]
    if widths is not None:
        lines += [
            "<details><summary>Removed channels</summary>",
            "",
            table_markdown(widths),
            "</details>",
            "",
        ]
    lines += [f"{markdown_text(repair_words(pruning.repair))} Written to `{_code(output)}`.", ""]
    return "\n".join(lines)


def _code(path: Path) -> str:
    return str(path).replace("`", "'")
