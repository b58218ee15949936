"""What `prune --dry-run` leaves: a plan and its document."""

from __future__ import annotations

from pathlib import Path

from redtest_onnx.cli.console import Screen
from redtest_onnx.documents.base import write_json
from redtest_onnx.pruning.documents import plan_document
from redtest_onnx.pruning.plan import Plan
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analyze import Analysis


def finish_dry_run(
    screen: Screen,
    bench: Workbench,
    plan: Plan,
    analysis: Analysis,
    plan_path: Path | None,
    json_path: str | None,
) -> None:
    """Write the plan and the document that were asked for."""
    if plan_path:
        plan.save(plan_path, force=True)  # `Outputs` asked before any work
        screen.show(f"Plan written to {plan_path}; apply it with --plan {plan_path}")
    if json_path:
        write_json(plan_document(bench.model, bench.cost, plan, analysis.layers), json_path)
