"""What an interrupted `prune` had found out already is kept beside its output."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from redtest_onnx.cli.console import Screen
from redtest_onnx.documents.base import write_json
from redtest_onnx.graph.writing import write_atomic
from redtest_onnx.pruning.plan import Plan
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analyze import Analysis
from redtest_onnx.similarity.documents import analyze_document


@dataclass
class Unfinished:
    """What is known so far.

    Attributes:
        analysis: the analysis, once it is finished; None where it came from a file.
        plan: the plan, once it is finished; None where it came from a file.
    """

    analysis: Analysis | None = None
    plan: Plan | None = None


@contextmanager
def kept_if_interrupted(screen: Screen, bench: Workbench, output: Path) -> Iterator[Unfinished]:
    """Write what is known to files beside the output if the block is interrupted, and say how to go on.

    Args:
        screen: where that is said.
        bench: the original.
        output: where the result would go.
    """
    known = Unfinished()
    try:
        yield known
    except KeyboardInterrupt:
        options = []
        if known.analysis is not None:
            path = output.with_name(f"{output.name}.analysis.json")
            write_json(analyze_document(bench.model, bench.cost, known.analysis, 0.0), str(path))
            options.append(f"--analysis {path}")
        if known.plan is not None:
            path = output.with_name(f"{output.name}.plan.json")
            write_atomic(path, known.plan.save)
            options.append(f"--plan {path}")
        if options:
            screen.note(f"What was found is kept; the same command with {' '.join(options)} continues.")
        raise
