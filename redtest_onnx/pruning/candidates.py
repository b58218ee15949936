"""What plans lose on held-out samples, for a search that tries many: most of them lose soon."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from redtest_onnx.data.batching import batches
from redtest_onnx.errors import InputError
from redtest_onnx.graph.bypass import bypassed
from redtest_onnx.graph.model import Model
from redtest_onnx.metrics.agreement.classes import MEASURE
from redtest_onnx.pruning.apply import apply_plan
from redtest_onnx.pruning.budget import Losses, drop
from redtest_onnx.pruning.plan import Plan
from redtest_onnx.pruning.repair.fit import FitSettings, Method, fit_to_original, short_fit
from redtest_onnx.pruning.repair.known import GOAL_BYTES, KnownValues
from redtest_onnx.pruning.repair.partial_runner import for_size
from redtest_onnx.runtime.outputs.kinds import ModelOutput
from redtest_onnx.runtime.session import Session, Use
from redtest_onnx.runtime.session_room import SPARED, is_large
from redtest_onnx.runtime.workbench import Workbench

log = logging.getLogger(__name__)

_LOOK = 32  # samples at a time that answers are counted on
_LOOKS = 4
_ROUNDING = 1e-9

Answers = npt.NDArray[np.int64]
Scores = npt.NDArray[Any]


class Candidates:
    """Tries plans against a limit.

    Where a model gives one class per sample, its answers are counted on some samples first. A plan with more
    wrong ones than the limit leaves on all held-out samples together is turned down there; so the result is
    the one of a whole run.

    Args:
        bench: the original, with its branches inlined.
        max_drop: largest loss that is tolerated, see `budget.drop`.
    """

    def __init__(self, bench: Workbench, max_drop: float) -> None:
        self._bench, self._max_drop = bench, max_drop
        self._evaluator = bench.evaluator(bench.splits.choose)
        if not self._evaluator.judged:
            log.warning(
                "no output of %s could be judged, so nothing is removed on its account: say how many layers "
                "to remove, or what its outputs are",
                bench.label,
            )
        # Accuracy may hold where the agreement doesn't.
        self._floor = None if self._evaluator.reference.accuracy_steers else 1.0 - max_drop - _ROUNDING
        self._looks = self._prepared()
        held = bench.cost.peak_activation_bytes
        self._options = for_size(bench.options, [None if held is None else held * _LOOK])
        # No second pool of memory beside the one of the reference.
        self._use: Use = "beside" if is_large(bench.model, SPARED) else "often"

    def loss(self, plan: Plan) -> float:
        """What a plan loses, plainly applied; infinite if that is surely above the limit."""
        return self._loss(plan, lambda: plain_model(self._bench, plan))

    def repaired_loss(self, plan: Plan, quick: FitSettings) -> float:
        """What a plan loses after a repair; infinite if that is surely above the limit."""

        def fitted() -> Model:
            return fit_to_original(self._bench, plain_model(self._bench, plan), plan, quick)[0]

        return self._loss(plan, fitted)

    def _loss(self, plan: Plan, make: Callable[[], Model]) -> float:
        try:
            session = Session(make(), self._options, use=self._use)
            if self._hopeless(session):
                return float("inf")
            return drop(self._evaluator.reference, self._evaluator.evaluate(session, self._floor))
        except InputError as error:
            # What can't be run is no candidate.
            log.info("without %s: %s", ", ".join(step.region for step in plan.steps), error.what)
            return float("inf")

    def _prepared(self) -> list[tuple[dict[str, Any], Answers]]:
        """Inputs and right answers to look at; none where a loss isn't a share of wrong answers."""
        bench, reference = self._bench, self._evaluator.reference
        by_labels = reference.accuracy_steers
        if bench.fixed_batch is not None or not _one_class_per_sample(bench.outputs):
            return []
        if not by_labels and reference.agreement.outputs[0].measure != MEASURE:
            return []  # the scores are compared, not the answers
        chosen = bench.splits.choose[: _LOOK * _LOOKS]
        scores: list[Scores] = []
        for indices, _ in batches(chosen, _LOOK, fixed=False):
            found = _scores(bench.session(), bench.data.inputs(indices))
            if found is None:
                return []
            scores.append(found)
        whole = np.concatenate(scores) if scores else np.zeros((0, 2))
        right = bench.data.labels(chosen) if by_labels else None
        right = whole.argmax(axis=1) if right is None else right
        # Those that the original is least sure of are lost first.
        order = np.argsort(_margins(whole), kind="stable")
        return [
            (bench.data.inputs(chosen[part]), right[part])
            for part in (order[start : start + _LOOK] for start in range(0, len(order), _LOOK))
        ]

    def _hopeless(self, session: Session) -> bool:
        reference, total = self._evaluator.reference, len(self._bench.splits.choose)
        share = reference.accuracy if reference.accuracy_steers and reference.accuracy is not None else 1.0
        wrong = 0
        for feeds, right in self._looks:
            scores = _scores(session, feeds)
            wrong += len(right) if scores is None else int(np.sum(scores.argmax(axis=1) != right))
            # Even with all others right; by less than one answer, since shares are rounded.
            if share - (total - wrong) / total > self._max_drop + 0.5 / total:
                return True
        return False


def losses_within(bench: Workbench, max_drop: float, method: Method) -> Losses:
    """What plans lose on held-out samples, plainly and after a quick repair.

    Args:
        bench: the original, with its branches inlined.
        max_drop: largest loss that is tolerated.
        method: how the result will be repaired.
    """
    candidates = Candidates(bench, max_drop)
    if method == "none" or bench.data.synthetic:
        return Losses(candidates.loss)
    quick = short_fit(method, bench.splits.fit, KnownValues(GOAL_BYTES))
    return Losses(candidates.loss, lambda plan: candidates.repaired_loss(plan, quick))


def _one_class_per_sample(outputs: tuple[ModelOutput, ...]) -> bool:
    """Whether a model's only output is scores [n, classes]."""
    if len(outputs) != 1 or outputs[0].kind != "classes" or outputs[0].axis != 1:
        return False
    return all(t.name == outputs[0].name and t.sample_axis == 0 and not t.mask for t in outputs[0].tensors)


def plain_model(bench: Workbench, plan: Plan) -> Model:
    """The model without a plan's layers, as fast as it can be had, to be run and fitted."""
    if all(step.action == "bypass" for step in plan.steps):
        found = bypassed(bench.model, {step.tensor: step.input for step in plan.steps})
        if found is not None:
            return found
    return apply_plan(bench, plan)


def _scores(session: Session, feeds: dict[str, Any]) -> Scores | None:
    """The scores [n, classes] of each sample; None if the model doesn't give them."""
    scores = next(iter(session.run(feeds).values()))
    return scores if isinstance(scores, np.ndarray) and scores.ndim == 2 and scores.shape[1] > 1 else None


def _margins(scores: Scores) -> npt.NDArray[np.float64]:
    """[n] by how much the highest score of a sample exceeds the second."""
    highest = np.partition(scores.astype(np.float64), -2, axis=1)[:, -2:]
    margins: npt.NDArray[np.float64] = highest[:, 1] - highest[:, 0]
    return margins
