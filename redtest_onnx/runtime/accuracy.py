"""Accuracy on labels: which output answers, what is refused, and whether it is better than chance."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from math import sqrt
from typing import Any

import numpy as np

from redtest_onnx.arrays import Indices
from redtest_onnx.data.dataset import Dataset
from redtest_onnx.errors import InputError
from redtest_onnx.metrics.agreement.classes import top_class
from redtest_onnx.runtime.outputs.arrange import rows_of
from redtest_onnx.runtime.outputs.kinds import SCORES, JudgedTensor, ModelOutput

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Accuracy:
    """Right answers.

    Attributes:
        accuracy: their share; None without labels, or without an output that answers.
        steers: whether they are more than chance, so that losing them means something.
    """

    accuracy: float | None
    steers: bool


@dataclass(frozen=True)
class LabelledOutput:
    """The output that labels belong to.

    Attributes:
        tensor: it.
        threshold: the score above which one number means the second class; None where the graph does not
            tell, until all of the original's values are known.
    """

    tensor: JudgedTensor
    threshold: float | None

    def known_for(self, low: float, high: float) -> LabelledOutput:
        """With the threshold for values of the original between two: half if they look like probabilities."""
        if self.threshold is not None:
            return self
        return replace(self, threshold=0.5 if low >= 0 and high <= 1 else 0.0)


def find_labelled(outputs: tuple[ModelOutput, ...], data: Dataset) -> LabelledOutput | None:
    """The first output with class scores; else labels themselves, else one number per sample."""
    if not data.labelled:
        return None
    tensors = [tensor for output in outputs for tensor in output.tensors if tensor.name == output.name]
    for wanted in (SCORES, {"elements"}, {"values"}):
        for tensor in tensors:
            if tensor.kind in wanted:
                return LabelledOutput(tensor, 0.5 if tensor.scale == "probabilities" else None)
    return None


class AccuracySum:
    """Counts right answers of one model.

    Args:
        output: which output answers; None without labels.
        data: the samples.
        label: of the model, for messages.
    """

    def __init__(self, output: LabelledOutput | None, data: Dataset, label: str) -> None:
        self._output, self._data, self._label = output, data, label
        self._answers: list[np.ndarray[Any, Any]] = []
        self._labels: list[np.ndarray[Any, Any]] = []

    def add(self, values: dict[str, Any], indices: Indices, count: int) -> None:
        """Add a run.

        Raises:
            InputError: a label lies outside the classes.
        """
        if self._output is None:
            return
        labels = self._data.labels(indices[:count])
        tensor = self._output.tensor
        if labels is None:
            return
        rows = _answers(tensor, values[tensor.name], len(indices), count)
        if rows is None or len(rows) != count:
            return
        if rows.dtype.kind in "iu" and rows.ndim == 1:
            answers, valid, classes = rows.astype(np.int64), np.ones(count, bool), None
        else:
            rows = rows.reshape(count, -1) if labels.ndim == 1 else rows
            classes = rows.shape[-1]
            if classes == 1:
                answers = (rows[..., 0] > (self._output.threshold or 0.0)).astype(np.int64)
                valid, classes = ~np.isnan(rows[..., 0]), 2
            else:
                answers, valid = top_class(rows)
        self._check(labels, classes)
        self._answers.append(np.where(valid, answers, -1).reshape(-1))
        self._labels.append(np.asarray(labels).reshape(-1))

    def result(self, *, warn: bool) -> Accuracy:
        """The share of right answers.

        Args:
            warn: say so if it is no better than chance.
        """
        if not self._answers:
            if self._data.labelled and warn:
                log.warning(
                    "labels are not used: no output of %s holds scores of classes; agreement with the "
                    "original decides",
                    self._label,
                )
            return Accuracy(None, steers=False)
        answers, labels = np.concatenate(self._answers), np.concatenate(self._labels)
        accuracy = float(np.mean(answers == labels))
        chance = _chance(answers, labels)
        margin = 2 * sqrt(chance * (1 - chance) / len(labels))
        alike = chance == 1.0  # a model that gives this one class whatever it sees loses nothing
        steers = accuracy > chance + margin or (accuracy == 1.0 and not alike)
        if warn and alike:
            log.warning(
                "all labels are of one class, and %s gives it each time: accuracy decides nothing here, "
                "agreement with the original does; give samples of all classes",
                self._label,
            )
        elif warn and not steers:
            log.warning(
                "%s is right on %.1f%% of these labels, no better than chance (%.1f%%): check that the "
                "labels count classes as the model does and that inputs are preprocessed as in training; "
                "accuracy decides nothing here, agreement with the original does",
                *(self._label, 100 * accuracy, 100 * chance),
            )
        return Accuracy(accuracy, steers)

    def _check(self, labels: np.ndarray[Any, Any], classes: int | None) -> None:
        if classes is None or (labels.max(initial=0) < classes and labels.min(initial=0) >= 0):
            return
        raise InputError(
            f"its labels go from {labels.min()} to {labels.max()}, {self._label} has {classes} classes",
            where=self._data.source,
            hint="number the classes from 0 as the model does",
        )


def _answers(tensor: JudgedTensor, value: Any, size: int, count: int) -> Any:
    if tensor.kind == "elements":
        whole = isinstance(value, np.ndarray) and value.dtype.kind in "iu" and value.shape == (size,)
        return value[:count] if whole else None
    rows = rows_of(tensor, value, size, count)
    if tensor.kind == "values" and (rows is None or rows[0].size != 1):
        return None
    return rows


def _chance(answers: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> float:
    """How often answers as frequent as these would be right if they had nothing to do with the samples."""
    classes, places = np.unique(np.concatenate([answers, labels]), return_inverse=True)
    shares = [
        np.bincount(part, minlength=len(classes)) / len(labels)
        for part in (places[: len(answers)], places[len(answers) :])
    ]
    return float(shares[0] @ shares[1])
