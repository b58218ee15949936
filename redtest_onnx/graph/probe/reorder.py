"""Probes around ONNX Runtime's own rewriting, which makes models faster but undoes the order of a probe.

At its highest level ONNX Runtime lays images out in blocks of channels, twice as fast to convolve, and turns
each one back for readers that expect plain channels. A Gram does not depend on the order of features, so that
it may read the blocks as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from heapq import heapify, heappop, heappush

import onnx

from redtest_onnx.graph.index import reads
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.probe.constants import PREFIX, Constants
from redtest_onnx.graph.probe.reduction import Reduction, Tap
from redtest_onnx.graph.probe.taps import build_probe, tap_outputs

_REORDER = "ReorderOutput"
_CHANNELS = 16  # the largest block; fewer channels are filled up


def build_outline(model: Model, taps: Iterable[Tap], seed: int = 0, kept: Sequence[str] = ()) -> Model:
    """A probe that leaves the Grams out: what ONNX Runtime is to rewrite.

    The thousands of nodes that Grams consist of would only slow the rewriting down. `kept` is as in
    `build_probe`.
    """
    return build_probe(model, [replace(tap, form="features") for tap in taps], seed, kept)


def complete(outline: onnx.ModelProto, taps: Sequence[Tap], opset: int) -> None:
    """Make a probe of a rewritten outline.

    Grams get their nodes and read activations in whatever layout they have; all reductions come right behind
    what they reduce, so that this can be freed.

    Args:
        outline: `build_outline` as ONNX Runtime saved it; changed in place.
        taps: what it measures.
        opset: the model's operator set.
    """
    graph = outline.graph
    constants = Constants()
    grams = {tap.output: tap for tap in taps if tap.form == "gram"}
    makers = {name: node for node in graph.node for name in node.output}
    behind: list[onnx.NodeProto] = []
    for name, tap in grams.items():
        flat = makers[name]
        before = makers.get(flat.input[0])
        whole = len(tap.shape) == 4 and tap.shape[1] % _CHANNELS == 0
        if whole and flat.op_type == "Reshape" and before is not None and before.op_type == _REORDER:
            flat.input[0] = before.input[0]
        flat.output[0] = tap.flat
        behind += Reduction(tap, opset, constants).gram_nodes(tap.flat)
    plain = [onnx.ValueInfoProto(name=v.name) for v in graph.output if not v.name.startswith(PREFIX)]
    outputs = [*tap_outputs(taps), *plain]
    del graph.output[:]
    graph.output.extend(outputs)
    ordered = _reductions_first([*_used(graph), *behind])
    del graph.node[:]
    graph.node.extend([*constants.nodes(), *ordered])
    del graph.value_info[:]


def _used(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes without reorderings that no node reads any more."""
    read = {name for node in graph.node for name in reads(node)} | {value.name for value in graph.output}
    return [node for node in graph.node if node.op_type != _REORDER or node.output[0] in read]


def _reductions_first(nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """The nodes in their order, but each reduction as soon as it is possible."""
    ordered = _sorted(nodes, [False] * len(nodes))  # ONNX Runtime saves nodes in the order of their making
    return _sorted(ordered, _are_reductions(ordered))


def _sorted(nodes: list[onnx.NodeProto], early: list[bool]) -> list[onnx.NodeProto]:
    """Topological order: of the nodes that can run, those marked early first, then the first in the list."""
    made = {name for node in nodes for name in node.output}
    readers: dict[str, list[int]] = {}
    missing = []
    for k, node in enumerate(nodes):
        needed = {name for name in reads(node) if name in made}
        missing.append(len(needed))
        for name in needed:
            readers.setdefault(name, []).append(k)
    ready = [(not early[k], k) for k, count in enumerate(missing) if count == 0]
    heapify(ready)
    ordered = []
    while ready:
        _, k = heappop(ready)
        ordered.append(nodes[k])
        for name in nodes[k].output:
            for reader in readers.get(name, ()):
                missing[reader] -= 1
                if missing[reader] == 0:
                    heappush(ready, (not early[reader], reader))
    return ordered


def _are_reductions(nodes: list[onnx.NodeProto]) -> list[bool]:
    """Which nodes of a sorted list are ours, or reorder a value for ours alone."""
    wanted: dict[str, bool] = {}  # whether only reductions read a value
    flags = [False] * len(nodes)
    for k in range(len(nodes) - 1, -1, -1):
        node = nodes[k]
        own = node.name.startswith(PREFIX) or node.output[0].startswith(PREFIX)
        flags[k] = own or (node.op_type == _REORDER and wanted.get(node.output[0], False))
        for name in reads(node):
            wanted[name] = wanted.get(name, True) and flags[k]
    return flags
