"""Small transformers, written node by node: of plain operators, and of fused ones."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import redtest_onnx as rt

WIDTH, HEADS, WORDS, HEAD = 32, 2, 50, 16
MS = "com.microsoft"


class _Writer:
    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.stored: list[onnx.TensorProto] = []

    def store(self, name: str, value: object) -> str:
        array = np.asarray(value)
        array = array.astype(np.float32 if array.dtype.kind == "f" else np.int64)
        self.stored.append(numpy_helper.from_array(array, name))
        return name

    def weight(self, name: str, *shape: int) -> str:
        return self.store(name, self.rng.normal(size=shape) * 0.3)

    def __call__(self, op: str, inputs: list[str], outputs: list[str] | str, **attributes: object) -> str:
        outputs = [outputs] if isinstance(outputs, str) else outputs
        self.nodes.append(
            helper.make_node(op, inputs, outputs, name=f"/{outputs[0]}/{op}".replace("//", "/"), **attributes)
        )
        return outputs[0]


def _value(name: str, dtype: int, shape: list[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def _model(
    w: _Writer, inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto], opset: int = 20
) -> rt.Model:
    graph = helper.make_graph(w.nodes, "decoder", inputs, outputs, w.stored)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(MS, 1)]
    return rt.Model(helper.make_model(graph, opset_imports=opsets, ir_version=9))


def _cache_values(
    layers: int, head: int | str
) -> tuple[list[onnx.ValueInfoProto], list[onnx.ValueInfoProto]]:
    inputs, outputs = [], []
    for i in range(layers):
        for what in ("key", "value"):
            inputs.append(
                _value(f"past_key_values.{i}.{what}", TensorProto.FLOAT, ["batch", HEADS, "past", head])
            )
            shape: list[int | str] = ["batch", HEADS, "past + seq", head]
            outputs.append(_value(f"present.{i}.{what}", TensorProto.FLOAT, shape))
    return inputs, outputs


def plain_decoder(layers: int = 3, *, length_of_first: bool = False) -> rt.Model:
    """Attention of plain operators with `past_key_values.N` in and `present.N` out.

    With `length_of_first` positions are counted from the length of the first layer's cache, as exporters do.
    """
    w = _Writer()
    w.weight("embedding", WORDS, WIDTH)
    w.weight("places", 64, WIDTH)
    w.store("heads", [0, 0, HEADS, HEAD])
    w.store("joined", [0, 0, WIDTH])
    w.store("scale", np.float32(HEAD**-0.5))
    w.store("one", np.float32(1))
    w.store("low", np.float32(-1e4))
    w.store("axes", [1, 2])
    w("Gather", ["embedding", "input_ids"], "words")
    inputs = [
        _value("input_ids", TensorProto.INT64, ["batch", "seq"]),
        _value("attention_mask", TensorProto.INT64, ["batch", "past + seq"]),
    ]
    if length_of_first:
        for name, value in (("two", 2), ("axis1", 1), ("zero", 0), ("step", 1)):
            w.store(name, value)
        w("Shape", ["past_key_values.0.key"], "past_shape")
        w("Gather", ["past_shape", "two"], "past_length")
        w("Shape", ["input_ids"], "ids_shape")
        w("Gather", ["ids_shape", "axis1"], "length")
        w("Add", ["past_length", "length"], "end")
        w("Range", ["past_length", "end", "step"], "range")
        w.store("front", [0])
        w("Unsqueeze", ["range", "front"], "position_ids")
    else:
        inputs.append(_value("position_ids", TensorProto.INT64, ["batch", "seq"]))
    w("Gather", ["places", "position_ids"], "placed")
    h = w("Add", ["words", "placed"], "h")
    w("Cast", ["attention_mask"], "mask_float", to=TensorProto.FLOAT)
    w("Sub", ["one", "mask_float"], "mask_off")
    w("Mul", ["mask_off", "low"], "mask_low")
    w("Unsqueeze", ["mask_low", "axes"], "mask_padding")
    for name, number in (("from", 0), ("by", 1)):
        w.store(name, number)
    w.store("last", [2])
    w.store("second", [1])
    w("Shape", ["attention_mask"], "mask_shape")
    w("Gather", ["mask_shape", "by"], "total")
    w("Range", ["from", "total", "by"], "keys")
    w("Unsqueeze", ["position_ids", "last"], "queries")
    w("Less", ["queries", "keys"], "later")
    w("Cast", ["later"], "later_float", to=TensorProto.FLOAT)
    w("Mul", ["later_float", "low"], "later_low")
    w("Unsqueeze", ["later_low", "second"], "causal")
    w("Add", ["mask_padding", "causal"], "mask")
    for i in range(layers):
        p = f"layers.{i}"
        w.store(f"{p}.g", np.ones(WIDTH))
        w.store(f"{p}.b", np.zeros(WIDTH))
        w("LayerNormalization", [h, f"{p}.g", f"{p}.b"], f"{p}/attn/norm")
        for c in "qkv":
            w("MatMul", [f"{p}/attn/norm", w.weight(f"{p}.{c}", WIDTH, WIDTH)], f"{p}/attn/{c}")
            w("Reshape", [f"{p}/attn/{c}", "heads"], f"{p}/attn/{c}_heads")
            w("Transpose", [f"{p}/attn/{c}_heads"], f"{p}/attn/{c}_turned", perm=[0, 2, 1, 3])
        for c, what in (("k", "key"), ("v", "value")):
            names = [f"past_key_values.{i}.{what}", f"{p}/attn/{c}_turned"]
            w.nodes.append(
                helper.make_node("Concat", names, [f"present.{i}.{what}"], name=f"/{p}/attn/cat_{c}", axis=2)
            )
        w("Transpose", [f"present.{i}.key"], f"{p}/attn/kt", perm=[0, 1, 3, 2])
        w("MatMul", [f"{p}/attn/q_turned", f"{p}/attn/kt"], f"{p}/attn/scores")
        w("Mul", [f"{p}/attn/scores", "scale"], f"{p}/attn/scaled")
        w("Add", [f"{p}/attn/scaled", "mask"], f"{p}/attn/masked")
        w("Softmax", [f"{p}/attn/masked"], f"{p}/attn/weights")
        w("MatMul", [f"{p}/attn/weights", f"present.{i}.value"], f"{p}/attn/mixed")
        w("Transpose", [f"{p}/attn/mixed"], f"{p}/attn/back", perm=[0, 2, 1, 3])
        w("Reshape", [f"{p}/attn/back", "joined"], f"{p}/attn/flat")
        w("MatMul", [f"{p}/attn/flat", w.weight(f"{p}.o", WIDTH, WIDTH)], f"{p}/attn/out")
        h = w("Add", [f"{p}/attn/out", h], f"{p}/attn/sum")
        w("LayerNormalization", [h, f"{p}.g", f"{p}.b"], f"{p}/mlp/norm")
        w("MatMul", [f"{p}/mlp/norm", w.weight(f"{p}.up", WIDTH, 64)], f"{p}/mlp/up")
        w("Gelu", [f"{p}/mlp/up"], f"{p}/mlp/bent")
        w("MatMul", [f"{p}/mlp/bent", w.weight(f"{p}.down", 64, WIDTH)], f"{p}/mlp/down")
        h = w("Add", [f"{p}/mlp/down", h], f"{p}/mlp/sum")
    w("MatMul", [h, w.weight("head", WIDTH, WORDS)], "logits")
    past, present = _cache_values(layers, HEAD)
    return _model(
        w, [*inputs, *past], [_value("logits", TensorProto.FLOAT, ["batch", "seq", WORDS]), *present]
    )


def inverted_decoder() -> rt.Model:
    """That of plain operators, with a mask whose true marks padding, as PyTorch's `key_padding_mask`."""
    proto = plain_decoder().proto
    [mask] = [value for value in proto.graph.input if value.name == "attention_mask"]
    mask.type.tensor_type.elem_type = TensorProto.BOOL
    nodes = {node.output[0]: node for node in proto.graph.node}
    nodes["mask_float"].output[0] = "mask_off"
    proto.graph.node.remove(nodes["mask_off"])
    return rt.Model(proto)


def fused_decoder(layers: int = 3) -> rt.Model:
    """GroupQueryAttention and fused skip norms, with the head size left open."""
    w = _Writer(1)
    w.weight("embedding", WORDS, WIDTH)
    w("Gather", ["embedding", "input_ids"], "embed/out")
    w.store("one", 1)
    w.store("axis", [1])
    w("ReduceSum", ["attention_mask", "axis"], "lengths", keepdims=0)
    w("Sub", ["lengths", "one"], "lengths_less")
    w("Cast", ["lengths_less"], "seqlens", to=TensorProto.INT32)
    w("Shape", ["attention_mask"], "mask_shape")
    w("Gather", ["mask_shape", "one"], "total")
    w("Cast", ["total"], "total_length", to=TensorProto.INT32)
    h, normed = "embed/out", "layers.0/input_norm/out"
    w.store("layers.0.g", w.rng.normal(size=WIDTH))
    w("SimplifiedLayerNormalization", [h, "layers.0.g"], normed, axis=-1, epsilon=1e-5)
    for i in range(layers):
        p = f"layers.{i}"
        for c in "qkv":
            w("MatMul", [normed, w.weight(f"{p}.{c}", WIDTH, WIDTH)], f"{p}/attn/{c}")
        names = [*(f"{p}/attn/{c}" for c in "qkv"), f"past_key_values.{i}.key", f"past_key_values.{i}.value"]
        outputs = [f"{p}/attn/mixed", f"present.{i}.key", f"present.{i}.value"]
        sizes = {"num_heads": HEADS, "kv_num_heads": HEADS}
        w("GroupQueryAttention", [*names, "seqlens", "total_length"], outputs, domain=MS, **sizes)
        w("MatMul", [f"{p}/attn/mixed", w.weight(f"{p}.o", WIDTH, WIDTH)], f"{p}/attn/out")
        w.store(f"{p}.g2", w.rng.normal(size=WIDTH))
        second = [f"{p}/post_norm/out", "", "", f"{p}/post_norm/sum"]
        w(
            "SkipSimplifiedLayerNormalization",
            [h, f"{p}/attn/out", f"{p}.g2"],
            second,
            domain=MS,
            epsilon=1e-5,
        )
        w("MatMul", [second[0], w.weight(f"{p}.up", WIDTH, 64)], f"{p}/mlp/up")
        w("Gelu", [f"{p}/mlp/up"], f"{p}/mlp/bent")
        w("MatMul", [f"{p}/mlp/bent", w.weight(f"{p}.down", 64, WIDTH)], f"{p}/mlp/out")
        last = i + 1 == layers
        q = "final" if last else f"layers.{i + 1}"
        gain = w.store(f"{q}.g", w.rng.normal(size=WIDTH))
        made = [f"{q}/input_norm/out"] if last else [f"{q}/input_norm/out", "", "", f"{q}/input_norm/sum"]
        summed = [second[3], f"{p}/mlp/out", gain]
        w("SkipSimplifiedLayerNormalization", summed, made, domain=MS, epsilon=1e-5)
        normed, h = made[0], made[-1]
    w("MatMul", [normed, w.weight("head", WIDTH, WORDS)], "logits")
    past, present = _cache_values(layers, "head_size")
    inputs = [
        _value("input_ids", TensorProto.INT64, ["batch", "seq"]),
        _value("attention_mask", TensorProto.INT64, ["batch", "past + seq"]),
    ]
    logits = _value("logits", TensorProto.FLOAT, ["batch", "seq", WORDS])
    return _model(w, [*inputs, *past], [logits, *present])


def encoder(layers: int = 3) -> rt.Model:
    """A post-norm encoder of plain operators with ids and a mask that is not called so."""
    w = _Writer(2)
    w.weight("embedding", WORDS, WIDTH)
    w.store("scale", np.float32(WIDTH**-0.5))
    w.store("one", np.float32(1))
    w.store("low", np.float32(-1e4))
    w.store("axis", [1])
    h = w("Gather", ["embedding", "ids"], "h")
    w("Cast", ["valid"], "valid_float", to=TensorProto.FLOAT)
    w("Sub", ["one", "valid_float"], "off")
    w("Mul", ["off", "low"], "low_off")
    w("Unsqueeze", ["low_off", "axis"], "bias")
    for i in range(layers):
        p = f"layer.{i}"
        w.store(f"{p}.g", np.ones(WIDTH))
        w.store(f"{p}.b", np.zeros(WIDTH))
        for c in "qkv":
            w("MatMul", [h, w.weight(f"{p}.{c}", WIDTH, WIDTH)], f"{p}/attention/{c}")
        w("Transpose", [f"{p}/attention/k"], f"{p}/attention/kt", perm=[0, 2, 1])
        w("MatMul", [f"{p}/attention/q", f"{p}/attention/kt"], f"{p}/attention/scores")
        w("Mul", [f"{p}/attention/scores", "scale"], f"{p}/attention/scaled")
        w("Add", [f"{p}/attention/scaled", "bias"], f"{p}/attention/masked")
        w("Softmax", [f"{p}/attention/masked"], f"{p}/attention/weights")
        w("MatMul", [f"{p}/attention/weights", f"{p}/attention/v"], f"{p}/attention/mixed")
        w("Add", [f"{p}/attention/mixed", h], f"{p}/attention/sum")
        h = w("LayerNormalization", [f"{p}/attention/sum", f"{p}.g", f"{p}.b"], f"{p}/attention/norm")
        w("MatMul", [h, w.weight(f"{p}.up", WIDTH, 48)], f"{p}/mlp/up")
        w("Gelu", [f"{p}/mlp/up"], f"{p}/mlp/bent")
        w("MatMul", [f"{p}/mlp/bent", w.weight(f"{p}.down", 48, WIDTH)], f"{p}/mlp/down")
        w("Add", [f"{p}/mlp/down", h], f"{p}/mlp/sum")
        h = w("LayerNormalization", [f"{p}/mlp/sum", f"{p}.g", f"{p}.b"], f"{p}/mlp/norm")
    w("Identity", [h], "hidden")
    inputs = [
        _value("ids", TensorProto.INT64, ["batch", "seq"]),
        _value("valid", TensorProto.INT64, ["batch", "seq"]),
    ]
    return _model(w, inputs, [_value("hidden", TensorProto.FLOAT, ["batch", "seq", WIDTH])])


def merged_decoder(layers: int = 3) -> rt.Model:
    """Two branches of one network, chosen by `use_cache_branch`; their weights are shared."""
    plain = plain_decoder(layers).proto
    branches = {}
    for name in ("then_branch", "else_branch"):
        outputs = [onnx.ValueInfoProto(name=value.name, type=value.type) for value in plain.graph.output]
        branches[name] = helper.make_graph(list(plain.graph.node), name, [], outputs)
    names = [value.name for value in plain.graph.output]
    node = helper.make_node("If", ["use_cache_branch"], names, name="merged", **branches)
    flag = _value("use_cache_branch", TensorProto.BOOL, [1])
    graph = helper.make_graph(
        [node], "merged", [*plain.graph.input, flag], list(plain.graph.output), list(plain.graph.initializer)
    )
    return rt.Model(helper.make_model(graph, opset_imports=list(plain.opset_import), ir_version=9))
