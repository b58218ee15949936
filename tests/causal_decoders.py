"""A small decoder without caches, whose attention leaves out later tokens in one of several ways."""

from __future__ import annotations

from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import redtest_onnx as rt

WIDTH, WORDS = 16, 50
MS = "com.microsoft"

Hides = Literal["ranges", "triangle", "trilu", "window", "nothing"]
"""How later tokens are hidden; a window reaches to both sides, and "nothing" sees all."""


def causal_decoder(
    hides: Hides = "ranges",
    *,
    positions: int = 200,
    tokens: int | str = "seq",
    scores: int | str | None = WORDS,
    packed: bool = False,
) -> rt.Model:
    """One block of attention and a head of `WORDS` scores.

    Args:
        hides: how.
        positions: rows of the table of positions.
        tokens: the declared number of tokens.
        scores: the declared width of the output; None: no shape is declared.
        packed: whether the table of words and the head hold two weights a byte.
    """
    rng = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    stored: list[onnx.TensorProto] = []

    def store(name: str, value: object) -> str:
        stored.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def weight(name: str, *shape: int) -> str:
        return store(name, rng.normal(size=shape).astype(np.float32) * 0.3)

    def node(op: str, inputs: list[str], output: str, **attributes: object) -> str:
        nodes.append(helper.make_node(op, inputs, [output], name=f"/{output}", **attributes))
        return output

    for name, value in (("zero", 0), ("one", 1), ("reach", 2)):
        store(name, np.int64(value))
    for name, value in (("first", [0]), ("second", [1]), ("both", [0, 1])):
        store(name, np.array(value, np.int64))
    store("low", np.float32(-1e4))
    node("Shape", ["input_ids"], "sizes")
    node("Gather", ["sizes", "one"], "length")
    node("Range", ["zero", "length", "one"], "places")
    half = np.random.default_rng(1).integers(0, 256, (WORDS, WIDTH // 2), np.uint8)
    bits = {"domain": MS, "bits": 4, "block_size": WIDTH}
    if packed:
        words = [store("words", half), "input_ids", weight("word_scales", WORDS, 1)]
        node("GatherBlockQuantized", words, "embedded", gather_axis=0, quantize_axis=1, **bits)
    else:
        node("Gather", [weight("words", WORDS, WIDTH), "input_ids"], "embedded")
    node("Gather", [weight("position_table", positions, WIDTH), "places"], "placed")
    node("Add", ["embedded", "placed"], "h")
    for name in "qkv":
        node("MatMul", ["h", weight(f"w_{name}", WIDTH, WIDTH)], name)
    node("Transpose", ["k"], "turned", perm=[0, 2, 1])
    node("MatMul", ["q", "turned"], "raw")
    node("Unsqueeze", ["places", "first"], "keys")
    node("Unsqueeze", ["places", "second"], "queries")
    masked = "masked"
    if hides == "ranges":
        node("Where", [node("LessOrEqual", ["keys", "queries"], "seen"), "raw", "low"], masked)
    elif hides == "window":
        node("LessOrEqual", ["keys", node("Add", ["queries", "reach"], "last")], "not_after")
        node("LessOrEqual", ["queries", node("Add", ["keys", "reach"], "behind")], "not_before")
        node("Where", [node("And", ["not_after", "not_before"], "seen"), "raw", "low"], masked)
    elif hides in ("triangle", "trilu"):
        square = np.ones((positions, positions), np.float32)
        name = store("square", np.tril(square) if hides == "triangle" else square)
        name = name if hides == "triangle" else node("Trilu", [name], "lower", upper=0)
        node("Unsqueeze", ["length", "first"], "end")
        node("Concat", ["end", "end"], "ends", axis=0)
        node("Slice", [name, store("start", np.zeros(2, np.int64)), "ends", "both"], "part")
        node("Equal", ["part", store("nought", np.float32(0))], "hidden")
        node("Where", ["hidden", "low", "raw"], masked)
    else:
        masked = "raw"
    node("Softmax", [masked], "weights")
    node("Add", ["h", node("MatMul", ["weights", "v"], "mixed")], "sum")
    if packed:
        head = ["sum", store("head", half[:, None]), weight("head_scales", WORDS)]
        node("MatMulNBits", head, "logits", K=WIDTH, N=WORDS, **bits)
    else:
        node("MatMul", ["sum", weight("head", WIDTH, WORDS)], "logits")
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", tokens])
    shape = None if scores is None else ["batch", tokens, scores]
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "decoder", [ids], [logits], stored)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(MS, 1)]
    return rt.Model(helper.make_model(graph, opset_imports=opsets, ir_version=9))
