"""The measure of each kind of tensor."""

from __future__ import annotations

from redtest_onnx.metrics.agreement.base import Measure, MeasureSum
from redtest_onnx.metrics.agreement.classes import ClassMeasure
from redtest_onnx.metrics.agreement.elements import ElementMeasure
from redtest_onnx.metrics.agreement.embeddings import EmbeddingMeasure
from redtest_onnx.metrics.agreement.next_token import NextTokenMeasure
from redtest_onnx.metrics.agreement.values import ValuesMeasure, ValuesSum
from redtest_onnx.runtime.outputs.kinds import JudgedTensor


def measure_of(tensor: JudgedTensor) -> Measure:
    """What tells how well two models agree at a tensor."""
    if tensor.kind in ("classes", "dense", "tokens"):
        return ClassMeasure()
    if tensor.kind == "next-token":
        return NextTokenMeasure(tensor.scale)
    if tensor.kind == "embedding":
        return EmbeddingMeasure()
    return ElementMeasure() if tensor.kind == "elements" else ValuesMeasure()


def most(total: MeasureSum) -> float:
    """The agreement that samples to come can still lead to, where that is known; else 1."""
    return total.most() if isinstance(total, ValuesSum) else 1.0
