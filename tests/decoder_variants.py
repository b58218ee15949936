"""The small decoder of plain operators with caches of other kinds: quantised, windowed, shared."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import redtest_onnx as rt
from tests.decoders import plain_decoder

WINDOW = 64


def _edited(
    nodes: list[onnx.NodeProto],
    stored: dict[str, np.ndarray],
    graph: onnx.GraphProto,
    *,
    without: tuple[str, ...] = (),
    retyped: dict[str, int] | None = None,
) -> rt.Model:
    made = onnx.GraphProto()
    made.CopyFrom(graph)
    del made.node[:]
    made.node.extend(nodes)
    made.initializer.extend(numpy_helper.from_array(array, name) for name, array in stored.items())
    for values in (made.input, made.output):
        kept = [value for value in values if not any(part in value.name for part in without)]
        del values[:]
        values.extend(kept)
        for value in values:
            value.type.tensor_type.elem_type = (retyped or {}).get(
                value.name, value.type.tensor_type.elem_type
            )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    return rt.Model(helper.make_model(made, opset_imports=opsets, ir_version=9))


def quantised_caches(layers: int = 3) -> rt.Model:
    """Caches hold int8, new keys and values are rounded before they are appended."""
    graph, nodes, retyped = plain_decoder(layers).graph, [], {}
    stored = {"cache_scale": np.array(0.05, np.float32), "cache_zero": np.array(0, np.int8)}
    for node in graph.node:
        node = _copy(node)
        present = next((name for name in node.output if name.startswith("present.")), None)
        if present is not None:
            retyped |= dict.fromkeys((node.input[0], present), TensorProto.INT8)
            scale = ["cache_scale", "cache_zero"]
            nodes.append(
                helper.make_node("QuantizeLinear", [node.input[1], *scale], [f"{node.input[1]}_int8"])
            )
            node.input[1] = f"{node.input[1]}_int8"
            nodes.append(node)
            nodes.append(helper.make_node("DequantizeLinear", [present, *scale], [f"{present}_float"]))
            continue
        for k, name in enumerate(node.input):
            if name.startswith("present."):
                node.input[k] = f"{name}_float"
        nodes.append(node)
    return _edited(nodes, stored, graph, retyped=retyped)


def windowed_caches(layers: int = 3) -> rt.Model:
    """Only the last positions are handed on."""
    graph, nodes = plain_decoder(layers).graph, []
    stored = {
        "window": np.array([-WINDOW]),
        "window_end": np.array([np.iinfo(np.int64).max]),
        "window_axis": np.array([2]),
    }
    for node in graph.node:
        node = _copy(node)
        present = next((name for name in node.output if name.startswith("present.")), None)
        if present is not None:
            node.output[0] = f"{present}_all"
            nodes.append(node)
            nodes.append(helper.make_node("Slice", [f"{present}_all", *stored], [present]))
            continue
        for k, name in enumerate(node.input):
            if name.startswith("present."):
                node.input[k] = f"{name}_all"
        nodes.append(node)
    return _edited(nodes, stored, graph)


def shared_caches() -> rt.Model:
    """Three layers, of which the last reads the keys and values of the second and has no cache of its own."""
    graph, nodes = plain_decoder(3).graph, []
    for node in graph.node:
        node = _copy(node)
        own = node.output[0].startswith(("present.2.", "layers.2/attn/k", "layers.2/attn/v"))
        if own and node.output[0] != "layers.2/attn/kt":
            continue
        for k, name in enumerate(node.input):
            node.input[k] = name.replace("present.2.", "present.1.")
        nodes.append(node)
    return _edited(nodes, {}, graph, without=("past_key_values.2.", "present.2."))


def _copy(node: onnx.NodeProto) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy
