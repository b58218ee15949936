"""One pass for two purposes: answers to the samples that judge are kept while layers are measured."""

from __future__ import annotations

import logging
from math import prod

import numpy as np
import onnx

from redtest_onnx.arrays import Indices
from redtest_onnx.errors import InputError, TooFewLayersError
from redtest_onnx.graph import operators as ops
from redtest_onnx.runtime.answers import Answers
from redtest_onnx.runtime.devices import resolve_device
from redtest_onnx.runtime.evaluate import Evaluation, Evaluator
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analyze import Analysis, AnalysisSettings, Progress, analyze, batches_of

log = logging.getLogger(__name__)

_LEAST_MACS = 10**10  # of a pass over the samples, from which on it is worth saving
_MOST_BYTES = 1 << 26  # of answers


def analyze_and_answer(
    bench: Workbench, settings: AnalysisSettings | None = None, progress: Progress | None = None
) -> Analysis:
    """As `analyze`; what the model answers to the samples that judge results stays in `bench.answers`.

    That is so where it saves a pass worth speaking of; else the answers are None.

    Raises:
        InputError: as `analyze`.
    """
    settings = settings or AnalysisSettings()
    measured = np.concatenate(batches_of(bench.data, settings)) if len(bench.data) else np.array([], np.int64)
    answers = _worth_keeping(bench, measured)
    analysis = analyze(bench, settings, progress, answers)
    bench.answers = answers if answers is not None and answers.complete else None
    return analysis


def analyze_and_match(
    bench: Workbench, pruned: Workbench, settings: AnalysisSettings
) -> tuple[Evaluator, Evaluation, Analysis | None] | None:
    """Measure a pruned model and hold its answers against the original's, in one pass.

    Args:
        bench: the original, after `analyze_and_answer`.
        pruned: what became of it.
        settings: of the original's analysis.

    Returns:
        What holds models against the original, the pruned model held against it, and its analysis (None
        where fewer than two layers are left); None where the answers of one side were not kept.
    """
    before = bench.answers
    after = None if before is None else before.beside(pruned.model)
    if before is None or after is None or pruned.opened is not pruned:
        return None
    analysis = analyze_if_possible(pruned, settings, after)
    if not after.complete:
        return None
    how = bench.outputs, bench.fixed_batch, bench.samples_per_run
    evaluator = Evaluator(before, bench.judging, *how)
    return evaluator, evaluator.match_sets(after), analysis


def analyze_if_possible(
    bench: Workbench, settings: AnalysisSettings, answers: Answers | None = None
) -> Analysis | None:
    """As `analyze`; None where fewer than two layers are left to compare, or it fails, which is said."""
    try:
        return analyze(bench, settings, None, answers)
    except TooFewLayersError:
        return None
    except InputError as error:
        log.warning("the redundancy of the result is not measured: %s", error.what)
        return None


def _worth_keeping(bench: Workbench, measured: Indices) -> Answers | None:
    """Room for the answers to the samples that judge results.

    Args:
        bench: the model.
        measured: the samples that its layers are measured on.

    Returns:
        None where they would not be the same in other runs (random numbers, dynamic quantisation of a whole
        batch), not all of these samples are measured, and where a pass costs little.
    """
    samples = bench.judging
    if bench.opened is not bench or samples.data is not bench.data or bench.fixed_batch not in (None, 1):
        return None
    if resolve_device(bench.options.device) != "cpu" or not np.isin(samples.indices, measured).all():
        return None
    if (bench.cost.macs or 0) * len(samples.indices) < _LEAST_MACS or any(map(_differs, bench.index.nodes)):
        return None
    axes, shapes = bench.resolved.batch_axes, bench.shapes
    tensors = [tensor for output in bench.outputs for tensor in output.tensors]
    names = dict.fromkeys(tensor.name for tensor in tensors)
    plain = all(tensor.reader is None and axes.get(tensor.name) == 0 for tensor in tensors)
    if not plain or not names or any(output.sets for output in bench.outputs):
        return None
    size = sum(8 * prod(shapes.sizes.get(name, ())) for name in names) * len(samples.indices)
    if size > _MOST_BYTES:
        return None
    return Answers(bench.model, bench.options, names, samples.indices)


def _differs(node: onnx.NodeProto) -> bool:
    """Whether a node's result for a sample depends on chance, or on the other samples of its run."""
    return ops.qualified(node) in ops.RANDOM | {"Dropout"} or "Dynamic" in node.op_type
