"""Hold models against a reference on the same samples: agreement of outputs by kind, accuracy with labels."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from redtest_onnx.arrays import Counted, Numbers
from redtest_onnx.data.batching import batches
from redtest_onnx.data.dataset import Subset
from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.branches import inline_branches
from redtest_onnx.graph.index import GraphIndex, index_of
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.probe.taps import expose
from redtest_onnx.graph.signature import batch_axes
from redtest_onnx.metrics.agreement.base import MeasureSum
from redtest_onnx.metrics.agreement.boxes import BoxSetSum, are_boxes, centred, corners, from_centre
from redtest_onnx.metrics.agreement.summary import Agreement, DistanceSum
from redtest_onnx.runtime.accuracy import AccuracySum, LabelledOutput, find_labelled
from redtest_onnx.runtime.answers import Answers
from redtest_onnx.runtime.candidate import AnsweredRun, CandidateRun
from redtest_onnx.runtime.candidate import CandidateSession as CandidateSession
from redtest_onnx.runtime.outputs.arrange import BATCH, counted_positions, rows_of, without_uncounted
from redtest_onnx.runtime.outputs.combine import judge_output, with_sets
from redtest_onnx.runtime.outputs.kinds import JudgedTensor, ModelOutput
from redtest_onnx.runtime.outputs.measures import measure_of, most
from redtest_onnx.runtime.session import Session
from redtest_onnx.runtime.session_room import register_holder

log = logging.getLogger(__name__)

Candidate: TypeAlias = Model | Session | CandidateSession | Answers
"""What is held against a reference."""

# Reference outputs up to this part of the memory are kept, so that many candidates can be held against them.
_SHARE = 12
_NAMED = 8  # samples in a message
_SETS = 64  # samples whose rows are matched as sets


@dataclass(frozen=True)
class Evaluation:
    """A model held against the reference.

    Attributes:
        agreement: of its outputs with the reference's.
        accuracy: share of right answers; None without labels.
        samples: number of samples.
        accuracy_steers: whether the reference's accuracy is better than chance, so that a loss of it tells
            something.
    """

    agreement: Agreement
    accuracy: float | None
    samples: int
    accuracy_steers: bool = False


class Evaluator:
    """Evaluates candidates against one reference model.

    Args:
        reference: the original model, ready to run, or its answers to these samples.
        samples: with or without labels.
        outputs: what the outputs are, see `find_outputs`.
        fixed: number of samples that every run must have; None where that is open.
        batch: samples per run where that is open.

    Raises:
        InputError: the model doesn't run, or labels lie outside its classes.
    """

    def __init__(
        self,
        reference: Session | Answers,
        samples: Subset,
        outputs: tuple[ModelOutput, ...],
        fixed: int | None = None,
        batch: int = BATCH,
    ) -> None:
        self._model, self._options, self._fixed = reference.model, reference.options, fixed
        self._data = samples.data
        self.outputs = outputs
        """What the outputs are."""
        self._judged = {tensor: None for output in outputs for tensor in output.tensors}
        self._batches = list(batches(samples.indices, fixed or batch, fixed=fixed is not None))
        self._reference = self._open(reference)
        register_holder(self)
        self._cache: list[dict[str, Any]] = []
        self._measures = {tensor: measure_of(tensor) for tensor in self._judged}
        self._labelled: LabelledOutput | None = find_labelled(self.outputs, self._data)
        self.undefined_samples: tuple[int, ...] = self._observe()
        """Samples for which the reference gives NaN; they agree with nothing."""
        self.reference = self._hold(self._reference)
        """The reference held against itself: its accuracy."""

    def release_sessions(self) -> None:
        """Close the reference's session, if it is large; answers that are kept need none."""
        self._reference.release()

    @property
    def reads_inside(self) -> bool:
        """Whether tensors inside the model are judged, for which a session of its own has to be made."""
        return any(tensor.reader is not None for tensor in self._judged)

    @property
    def judged(self) -> bool:
        """Whether there is anything to judge a candidate by."""
        return self.reference.accuracy_steers or self.reference.agreement.value is not None

    def evaluate(self, model: Candidate, floor: float | None = None) -> Evaluation:
        """Run a model with the reference's signature on the samples.

        Args:
            model: the model, a session of it or one with data of its own, or its answers.
            floor: stop as soon as the agreement of values can't reach so much any more; what is found then is
                that of the samples run, which is below it, too.

        Raises:
            InputError: ONNX Runtime refuses the model or the run.
        """
        return self._hold(self._open(model), floor)

    def match_sets(self, model: Candidate) -> Evaluation:
        """As `evaluate`, with rows of detectors matched as sets, too, sample by sample."""
        run = self._open(model)
        evaluation = self._hold(run)
        sets = self._sets(run) if any(output.sets for output in self.outputs) else {}
        outputs = tuple(
            with_sets(part, sets.get(part.name), decides=output.layers_behind)
            for part, output in zip(evaluation.agreement.outputs, self.outputs, strict=True)
        )
        agreement = Agreement(
            evaluation.agreement.top1, evaluation.agreement.cosine, evaluation.agreement.relative_l2, outputs
        )
        return Evaluation(agreement, evaluation.accuracy, evaluation.samples, evaluation.accuracy_steers)

    def _open(self, given: Candidate) -> CandidateRun:
        """A session that returns the judged tensors, by the names they have in the reference."""
        if isinstance(given, Answers):
            return AnsweredRun(given, self._data)
        data = given.data if isinstance(given, CandidateSession) else self._data
        given = given.session if isinstance(given, CandidateSession) else given
        model, options = (given, self._options) if isinstance(given, Model) else (given.model, given.options)
        wanted = [tensor for tensor in self._judged if tensor.reader is not None]
        names = self._output_names(model)
        if not wanted:
            session = given if isinstance(given, Session) else Session(model, options)
            return CandidateRun(session, names, data)
        view, index = model, index_of(model)
        if any(tensor.name not in index.producer for tensor in wanted):
            shared = [name for name, axis in batch_axes(model).items() if axis is None]
            feeds = data.inputs(self._batches[0][0]) if shared else {}
            view = inline_branches(model, {name: feeds[name] for name in shared}).model
            index = index_of(view)
        found = {tensor.name: _stand_in(index, tensor) for tensor in wanted}
        known = {name: own for name, own in found.items() if own in index.producer}
        session = Session(expose(view, [*names.values(), *known.values()]), options)
        return CandidateRun(session, {**names, **known}, data)

    def _output_names(self, model: Model) -> dict[str, str]:
        """What the reference's judged outputs are called in a model: alike, else by position."""
        own = [output.name for output in model.outputs]
        judged = {output.name for output in self.outputs if output.tensors}
        alike = set(own)
        return {
            output.name: output.name if output.name in alike else own[k]
            for k, output in enumerate(self._model.outputs)
            if output.name in judged
            and (output.name in alike or (k < len(own) and len(own) == len(self._model.outputs)))
        }

    def _observe(self) -> tuple[int, ...]:
        """Show all reference values to what judges by them; returns samples that are NaN."""
        undefined: list[int] = []
        low, high = np.inf, -np.inf
        for k, (indices, count) in enumerate(self._batches):
            feeds = self._data.inputs(indices)
            values = self._reference_values(k, feeds)
            for tensor, measure in self._measures.items():
                rows, counted = self._rows(tensor, values[tensor.name], feeds, len(indices), count)
                measure.observe(rows, counted)
                if self._labelled is not None and tensor is self._labelled.tensor and _is_float(rows):
                    low = np.fmin.reduce(rows, axis=None, initial=low)
                    high = np.fmax.reduce(rows, axis=None, initial=high)
                if isinstance(rows, np.ndarray) and rows.dtype.kind == "f" and len(rows) == count:
                    empty = np.isnan(rows)
                    if counted is not None:
                        empty &= counted.reshape(*counted.shape, *(1,) * (rows.ndim - counted.ndim))
                    bad = empty.any(axis=tuple(range(1, rows.ndim)))
                    undefined.extend(int(i) for i in indices[:count][bad])
        if self._labelled is not None:
            self._labelled = self._labelled.known_for(float(low), float(high))
        found = tuple(sorted(set(undefined)))
        if found:
            shown = ", ".join(map(str, found[:_NAMED])) + (" ..." if len(found) > _NAMED else "")
            log.warning(
                "%s gives NaN for %d of %d samples (%s): they count as not agreeing",
                *(self._model.label, len(found), sum(count for _, count in self._batches), shown),
            )
        return found

    def _hold(self, run: CandidateRun, floor: float | None = None) -> Evaluation:
        sums: dict[JudgedTensor, MeasureSum] = {t: m.start() for t, m in self._measures.items()}
        distance, accuracy = DistanceSum(), AccuracySum(self._labelled, self._data, self._model.label)
        random, samples = self._random_outputs(), 0
        deciding = [t for output in self.outputs if output.steers for t in output.tensors]
        deciding = [t for t in deciding if t.name in run.names and t.name not in random]
        same, masked = run is self._reference, any(tensor.mask for tensor in sums)
        for k, (indices, count) in enumerate(self._batches):
            known = same and not masked and k < len(self._cache)  # then nothing is run or read again
            feeds = {} if known else self._data.inputs(indices)
            reference = self._reference_values(k, feeds)
            own = feeds if same or run.data is self._data else run.data.inputs(indices)
            values = reference if same else run(indices, own)
            numbers: tuple[list[Numbers], list[Numbers]] = ([], [])
            for tensor, total in sums.items():
                if tensor.name not in values:
                    continue
                size = len(indices)
                rows, counted = self._rows(tensor, reference[tensor.name], feeds, size, count)
                other = rows if same else self._rows(tensor, values[tensor.name], feeds, size, count)[0]
                if tensor.name in random:
                    continue
                if isinstance(rows, np.ndarray) is isinstance(other, np.ndarray):
                    total.add(rows, other, counted)
                elif isinstance(rows, np.ndarray):
                    total.add(rows, rows[:0], counted)
                if _is_float(rows) and _is_float(other) and len(rows) == count:
                    fits = counted if other.shape == rows.shape else None
                    numbers[0].append(without_uncounted(rows, fits))
                    numbers[1].append(without_uncounted(other, fits))
            distance.add(*numbers)
            accuracy.add(values, indices, count)
            samples += count
            if floor is not None and any(most(sums[tensor]) < floor for tensor in deciding):
                break
        apart = distance.result()
        outputs = tuple(
            judge_output(output, {t: sums[t].result() for t in output.tensors if t.name in run.names}, random)
            for output in self.outputs
        )
        top1 = next(
            (part.details["top_class"] for part in outputs if part.details.get("top_class") is not None), None
        )
        agreement = Agreement(top1, apart.cosine, apart.relative_l2, outputs)
        found = accuracy.result(warn=run is self._reference)
        return Evaluation(agreement, found.accuracy, samples, found.steers)

    def _rows(
        self, tensor: JudgedTensor, value: Any, feeds: dict[str, Any], size: int, count: int
    ) -> tuple[Any, Counted]:
        rows = rows_of(tensor, value, size, count)
        if rows is None:
            cut = isinstance(value, np.ndarray) and value.ndim and len(value) == size
            return (value[:count] if cut else value), None
        return rows, counted_positions(tensor, feeds, rows, count)

    def _random_outputs(self) -> frozenset[str]:
        """Judged tensors that differ from run to run: they tell nothing."""
        if not hasattr(self, "_random"):
            self._random: frozenset[str] = frozenset()
            if any(ops.qualified(node) in ops.RANDOM for node in self._model.graph.node):
                feeds = self._data.inputs(self._batches[0][0])
                one, other = (self._reference(self._batches[0][0], feeds) for _ in range(2))
                self._random = frozenset(
                    name for name, value in one.items() if not _equal(value, other[name])
                )
        return self._random

    def _sets(self, run: CandidateRun) -> dict[str, BoxSetSum]:
        """Boxes of each output of rows, matched sample by sample."""
        sums = {output.name: BoxSetSum() for output in self.outputs if output.sets}
        fixed = self._fixed
        chosen = np.concatenate([indices[:count] for indices, count in self._batches])[:_SETS]
        middle: dict[str, bool] = {}
        for indices, _ in batches(chosen, fixed or 1, fixed=fixed is not None):
            feeds = self._data.inputs(indices)
            one, other = self._reference(indices, feeds), run(indices, run.data.inputs(indices))
            for name in list(sums):
                pair = [corners(side[name]) if _is_float(side[name]) else None for side in (one, other)]
                if pair[0] is None or pair[1] is None:
                    del sums[name]
                    continue
                if len(pair[0]) and name not in middle:
                    middle[name] = centred(pair[0])
                    if not are_boxes(pair[0], centre=middle[name]):
                        del sums[name]
                        continue
                a, b = (from_centre(side) if middle.get(name) else side for side in (pair[0], pair[1]))
                sums[name].add(a, b)
        return sums

    def _reference_values(self, batch: int, feeds: dict[str, Any]) -> dict[str, Any]:
        if batch < len(self._cache):
            return self._cache[batch]
        outputs = self._reference(self._batches[batch][0], feeds)
        size = sum(getattr(value, "nbytes", 0) for value in outputs.values())
        if batch == len(self._cache) and size * (batch + 1) <= self._options.memory // _SHARE:
            self._cache.append(outputs)
        return outputs


def _stand_in(index: GraphIndex, tensor: JudgedTensor) -> str:
    """The tensor itself, or what its reader reads in its place where a layer that made it is gone."""
    if tensor.name in index.producer or tensor.reader is None:
        return tensor.name
    reader, position = tensor.reader
    return index.nodes[index.producer[reader]].input[position] if reader in index.producer else tensor.name


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.shape == b.shape and bool(np.array_equal(a, b, equal_nan=a.dtype.kind == "f"))
    return bool(repr(a) == repr(b))


def _is_float(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"
