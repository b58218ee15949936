"""What `prune` says and writes of a plan."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from redtest_onnx.cli.console import Screen
from redtest_onnx.documents.base import write_json
from redtest_onnx.layers.layer import Layer
from redtest_onnx.pruning.documents import plan_document
from redtest_onnx.pruning.plan import Plan
from redtest_onnx.report.prunings import plan_table, removal_sentence, widths_table
from redtest_onnx.report.tables import layer_table
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analyze import Analysis


def nothing_removable(
    screen: Screen,
    bench: Workbench,
    layers: Sequence[Layer],
    json_path: str | None,
) -> bool:
    """Give the reasons where no layer can be removed; nothing is written then but the JSON."""
    if any(layer.removable for layer in layers):
        return False
    screen.explain(f"No layer of {bench.label} can be removed; nothing is written.")
    screen.show(layer_table(layers))
    if json_path:
        nothing = Plan("none", bench.digest, ())
        write_json(plan_document(bench.model, bench.cost, nothing, layers), json_path)
    return True


def show_plan(
    screen: Screen, plan: Plan, analysis: Analysis, reason: str, *, alone: bool, both: bool = False
) -> None:
    """Show the layers that go, or for what reason none does.

    Args:
        screen: where.
        plan: what goes.
        analysis: what it was planned on.
        reason: why nothing goes.
        alone: whether nothing else is shown.
        both: whether what goes from a branch goes from the other one, too.
    """
    if plan.empty:
        screen.explain(f"Nothing is removed and nothing is written: {reason}.")
        return
    screen.show(f"{removal_sentence(plan, analysis.layers)} (criterion {plan.criterion}):")
    for table in (plan_table(plan) if plan.steps else None, widths_table(plan)):
        if table is not None:
            (screen.show if alone else screen.detail)(table)
    other = "they go from its other branch, too" if both else "its other branch stays"
    screen.show(*(f"They are layers of {branch}; {other}." for branch in analysis.branches))


def finish_dry_run(
    screen: Screen,
    bench: Workbench,
    plan: Plan,
    analysis: Analysis,
    plan_path: Path | None,
    json_path: str | None,
) -> None:
    """Write the plan and the document of a run that removes nothing."""
    if plan_path:
        plan.save(plan_path, force=True)  # `Outputs` asked before any work
        screen.show(f"Plan written to {plan_path}; apply it with --plan {plan_path}")
    if json_path:
        write_json(plan_document(bench.model, bench.cost, plan, analysis.layers), json_path)
