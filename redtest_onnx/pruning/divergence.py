"""Where a rewritten model first computes something else than the original would with its gaps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import onnx

from redtest_onnx.data.batching import portions
from redtest_onnx.graph.index import GraphIndex, index_of
from redtest_onnx.graph.model import FLOAT, Model, element_bits
from redtest_onnx.graph.probe.taps import expose
from redtest_onnx.graph.shapes import Shapes
from redtest_onnx.graph.subgraph import segment
from redtest_onnx.graph.surgery import adapter_output
from redtest_onnx.layers.regions import describe
from redtest_onnx.pruning.narrowing import TakeChannels
from redtest_onnx.pruning.plan import Step
from redtest_onnx.runtime.session import RunOptions, Session
from redtest_onnx.runtime.workbench import Workbench

# Largest difference as a share of the largest value. Kernels may be chosen differently in the two graphs, and
# ONNX Runtime computes neighbouring operators of half precision in float32 without rounding between them.
_TOLERANCE = 1e-4
_HALF: dict[int, float] = {onnx.TensorProto.FLOAT16: 2e-2, onnx.TensorProto.BFLOAT16: 1e-1}

_HELD = 1 << 27  # bytes of tensors at a time
_UNKNOWN = 1 << 18  # elements, where the shape is unknown


@dataclass(frozen=True)
class Divergence:
    """The first tensor that two models compute differently.

    Attributes:
        tensor: its name.
        node: what makes it.
        difference: largest absolute difference of its values; infinite where what is not finite differs, NaN
            where shapes do.
        largest: largest absolute value it should have.
    """

    tensor: str
    node: str
    difference: float
    largest: float

    def __str__(self) -> str:
        return (
            f"the first tensor that differs is {self.tensor!r}, made by {self.node}: by "
            f"{self.difference:.3g} where its values reach {self.largest:.3g}"
        )


def first_divergence(
    bench: Workbench,
    rewritten: Model,
    steps: Iterable[Step],
    taken: Mapping[str, TakeChannels] | None = None,
) -> Divergence | None:
    """Run both models side by side, the original with what the gaps of the rewritten one hand on.

    The exit of every removed layer is fed to the original as the tensor that took its place, so that all that
    lies behind must come out the same; how the graph was rewired is not looked at. No more than 128 MiB of
    tensors of either is held at a time.

    Args:
        bench: the model before, with its branches inlined; run on its first sample.
        rewritten: the same without some layers, its weights unchanged.
        steps: what was taken out, in the order of the graph.
        taken: what takes from tensors of the original the channels that the rewritten model still has.

    Returns:
        The first tensor in graph order that differs; None if none does.
    """
    original, feeds, options = bench.model, bench.sample, bench.options
    index, kept = bench.index, index_of(rewritten)
    stand_ins = _stand_ins(steps, kept)
    made = [name for name in dict.fromkeys(stand_ins.values()) if name in kept.producer]
    # Weights are taken as they are stored, and so are those that are handed on.
    compared = index.producer.keys() - index.handed_on.keys() - stand_ins.keys()
    common = [name for name in index.producer if name in kept.producer and name in compared]
    parts = list(portions(common, lambda name: _bytes(bench.shapes, name), _HELD))
    wanted = [*made, *(parts[0] if parts else ())]
    first = _run(expose(rewritten, wanted), feeds, options)
    handed_on = {**feeds, **{name: first[name] for name in made}}
    # An encoder that no layer reads any more is no part of the graph, nor what took its layers' place.
    given = {name: handed_on[source] for name, source in stand_ins.items() if source in handed_on}
    types = {name: onnx.helper.np_dtype_to_tensor_dtype(value.dtype) for name, value in given.items()}
    known, share = {**feeds, **given}, _tolerance(original)
    for k, names in enumerate(parts):
        found = first if k == 0 else _run(expose(rewritten, names), feeds, options)
        part = segment(original, names, types)
        expected = _run(part, known, options)
        expected |= {name: take(expected[name]) for name, take in (taken or {}).items() if name in expected}
        differing = next(_differing(index, names, expected, found, share), None)
        if differing is None:
            continue
        # What differs from run to run, such as noise made on the way, tells nothing.
        one, other = (_run(part, known, options) for _ in range(2))
        return None if next(_differing(index, names, one, other, share), None) else differing
    return None


def _run(model: Model, known: Mapping[str, Any], options: RunOptions) -> dict[str, Any]:
    feeds = {spec.name: known[spec.name] for spec in model.inputs}
    return Session(model, options, level="none", use="once").run(feeds)


def _bytes(shapes: Shapes, name: str) -> int:
    """What a tensor takes in memory."""
    bits = element_bits(shapes.dtypes.get(name, FLOAT))
    return prod(shapes.sizes.get(name, (_UNKNOWN,))) * bits // 8


def first_infinite(bench: Workbench) -> str | None:
    """The first tensor that is not finite on the first sample, and what makes it; None if all are."""
    index = index_of(bench.model)
    names = [name for node in index.nodes for name in node.output if name in index.input_dependent]
    found = Session(expose(bench.model, names), bench.options, level="none", use="once").run(bench.sample)
    for name in names:
        if not finite(found[name]):
            return f"{name!r}, made by {describe(index, index.producer[name])}"
    return None


def finite(value: object) -> bool:
    """Whether a value holds neither NaN nor infinity; true for what is no floating-point array."""
    if not isinstance(value, np.ndarray) or not np.issubdtype(value.dtype, np.floating):
        return True
    return bool(np.isfinite(value).all())


def _stand_ins(steps: Iterable[Step], kept: GraphIndex) -> dict[str, str]:
    """Per exit of a removed layer the tensor that its readers now read."""
    found: dict[str, str] = {}
    for step in steps:
        source, k = found.get(step.input, step.input), 0
        while step.action == "adapter" and adapter_output(step.tensor, k) in kept.producer:
            source, k = adapter_output(step.tensor, k), k + 1
        found[step.tensor] = source
    return found


def _tolerance(model: Model) -> float:
    """By the least precise type of the model's inputs and weights."""
    types = {spec.dtype for spec in model.inputs} | {t.data_type for t in model.graph.initializer}
    return max((_HALF.get(code, _TOLERANCE) for code in types), default=_TOLERANCE)


def _differing(
    index: GraphIndex,
    names: Iterable[str],
    expected: Mapping[str, Any],
    found: Mapping[str, Any],
    share: float,
) -> Iterator[Divergence]:
    for name in names:
        a, b = expected[name], found[name]
        if not isinstance(a, np.ndarray) or a.dtype.kind not in "fiub" or not a.size:
            continue
        node = describe(index, index.producer[name])
        if a.shape != b.shape:
            yield Divergence(name, node, float("nan"), float("nan"))
            continue
        a, b = a.astype(np.float64), b.astype(np.float64)
        known = np.isfinite(a)
        if not np.array_equal(a[~known], b[~known], equal_nan=True):
            yield Divergence(name, node, float("inf"), float(np.max(np.abs(a[known]), initial=0.0)))
            continue
        with np.errstate(invalid="ignore", over="ignore"):
            difference, largest = np.abs(a[known] - b[known]), np.max(np.abs(a[known]), initial=0.0)
        if not np.all(difference <= share * max(largest, 1e-30)):  # not so where NaN stands for a number
            yield Divergence(name, node, float(np.nanmax(difference, initial=0.0)), float(largest))
