"""Small models with outputs of every kind: what they are, and how two of them agree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto, helper
from output_graph import Graph as Graph
from output_graph import floats as floats
from picking_models import (
    best_rows,
    chosen_queries,
    compress,
    detections,
    experts,
    experts_and_best,
    non_max_suppression,
    nonzero,
)
from token_models import capped_decoder, causal_decoder, decoder, tagger

import redtest_onnx as rt

value = helper.make_tensor_value_info


@dataclass(frozen=True)
class Case:
    """A builder of models of one signature, and what their first output is.

    Attributes:
        build: takes a seed and a batch size.
        kind: of the first output.
        axis: of its classes.
        chance: agreement of unrelated models, at most.
    """

    build: Callable[[int, int | str], rt.Model]
    kind: str
    axis: int | None = None
    chance: float = 0.15


def vector(end: Callable[[Graph, str], str], width: int = 6, name: str = "y") -> Callable[..., rt.Model]:
    """[N, 8] -> a hidden layer -> [N, width] -> what `end` makes of it."""

    def build(seed: int, batch: int | str = "N") -> rt.Model:
        g = Graph(seed, batch)
        h = g("Tanh", g.dense(g.feed("x", 8), 8, 16))
        last = end(g, g.dense(h, 16, width))
        g("Identity", last, to=name)
        return g.model(floats(name))

    return build


def image(
    end: Callable[[Graph, str], str], channels: int = 5, size: int = 8, name: str = "y"
) -> Callable[..., rt.Model]:
    """[N, 3, size, size] -> a convolution -> [N, channels, size, size] -> what `end` makes of it."""

    def build(seed: int, batch: int | str = "N") -> rt.Model:
        g = Graph(seed, batch)
        h = g("Relu", g.conv(g.feed("x", 3, size, size), 3, 8))
        g("Identity", end(g, g.conv(h, 8, channels)), to=name)
        return g.model(floats(name))

    return build


def sequence(end: Callable[[Graph, str], str], width: int = 6, name: str = "y") -> Callable[..., rt.Model]:
    """[N, 5, 8] -> a hidden layer -> [N, 5, width] -> what `end` makes of it."""

    def build(seed: int, batch: int | str = "N") -> rt.Model:
        g = Graph(seed, batch)
        h = g("Tanh", g.dense(g.feed("x", 5, 8), 8, 16))
        g("Identity", end(g, g.dense(h, 16, width)), to=name)
        return g.model(floats(name))

    return build


def as_is(g: Graph, x: str) -> str:
    return x


def softmax(axis: int) -> Callable[[Graph, str], str]:
    return lambda g, x: g("Softmax", x, axis=axis)


def transposed(*perm: int) -> Callable[[Graph, str], str]:
    return lambda g, x: g("Transpose", x, perm=list(perm))


def then(*ends: Callable[[Graph, str], str]) -> Callable[[Graph, str], str]:
    def end(g: Graph, x: str) -> str:
        for step in ends:
            x = step(g, x)
        return x

    return end


def unit_length(g: Graph, x: str) -> str:
    return g("Div", x, g("ReduceL2", x, axes=[-1], keepdims=1))


def unit_length_clipped(g: Graph, x: str) -> str:
    norm = g("Sqrt", g("ReduceSum", g("Mul", x, x), g.store([-1], np.int64), keepdims=1))
    return g("Div", x, g("Max", norm, g.store(1e-9)))


def softmax_spelt_out(g: Graph, x: str) -> str:
    raised = g("Exp", x)
    return g("Div", raised, g("ReduceSum", raised, g.store([1], np.int64), keepdims=1))


def batch_norm(width: int) -> Callable[[Graph, str], str]:
    def end(g: Graph, x: str) -> str:
        ones, zeros = g.store(np.ones(width)), g.store(np.zeros(width))
        return g("BatchNormalization", x, ones, zeros, zeros, ones)

    return end


def layer_norm(width: int) -> Callable[[Graph, str], str]:
    return lambda g, x: g("LayerNormalization", x, g.store(np.ones(width)), g.store(np.zeros(width)), axis=-1)


def quantised_head(seed: int, batch: int | str = "N") -> rt.Model:
    g = Graph(seed, batch)
    h = g("Tanh", g.dense(g.feed("x", 8), 8, 16))
    weight = np.clip(np.round(g.random.normal(size=(16, 6)) * 40), -127, 127)
    rounded = g("DynamicQuantizeLinear", h, outputs=3)
    scale, zero = f"{rounded}.1", f"{rounded}.2"
    product = g("MatMulInteger", rounded, g.store(weight, np.int8), zero)
    scaled = g("Mul", g.cast(product), g("Mul", scale, g.store(0.02)))
    g("Identity", scaled, to="y")
    return g.model(floats("y"))


def mixed_columns(seed: int, batch: int | str = "N") -> rt.Model:
    """Boxes in pixels beside scores from 0 to 1, as one-stage detectors give them: [N, 4 + 3, 5]."""
    g = Graph(seed, batch)
    h = g("Tanh", g.dense(g.feed("x", 5, 8), 8, 16))
    boxes = g("Mul", g.dense(h, 16, 4), g.store(100.0))
    scores = g("Sigmoid", g.dense(h, 16, 3))
    g("Transpose", g("Concat", boxes, scores, axis=2), to="y", perm=[0, 2, 1])
    return g.model(floats("y"))


def labels(seed: int, batch: int | str = "N") -> rt.Model:
    g = Graph(seed, batch)
    scores = g.dense(g("Tanh", g.dense(g.feed("x", 8), 8, 16)), 16, 6)
    g("ArgMax", scores, to="y", axis=1, keepdims=0)
    return g.model(value("y", TensorProto.INT64, None))


def strings_and_table(seed: int, batch: int | str = "N") -> rt.Model:
    g = Graph(seed, batch)
    scores = g.dense(g("Tanh", g.dense(g.feed("x", 8), 8, 16)), 16, 4)
    names = [f"class {k}" for k in range(4)]
    best = g("ArgMax", scores, axis=1, keepdims=0)
    mapping = {"keys_int64s": [0, 1, 2, 3], "values_strings": names, "default_string": "?"}
    g("LabelEncoder", best, to="label", domain="ai.onnx.ml", **mapping)
    g("ZipMap", g("Softmax", scores), to="table", domain="ai.onnx.ml", classlabels_strings=names)
    element = helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    rows = helper.make_sequence_type_proto(helper.make_map_type_proto(TensorProto.STRING, element))
    return g.model(helper.make_value_info("table", rows), value("label", TensorProto.STRING, None))


def listed(seed: int, batch: int | str = "N") -> rt.Model:
    g = Graph(seed, batch)
    h = g("Tanh", g.dense(g.feed("x", 8), 8, 16))
    g("SequenceConstruct", h, g.dense(h, 16, 3), to="y")
    return g.model(helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None))


def optional(seed: int, batch: int | str = "N") -> rt.Model:
    g = Graph(seed, batch)
    g("Optional", g.dense(g("Tanh", g.dense(g.feed("x", 8), 8, 16)), 16, 4), to="y")
    inner = helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    return g.model(helper.make_value_info("y", helper.make_optional_type_proto(inner)))


def flat_heads(seed: int, batch: int | str = "N") -> rt.Model:
    """Distances of boxes, unnamed, beside scores of the same positions of an image, as PicoDet gives them."""
    g = Graph(seed, batch)
    h = g("Relu", g.conv(g.feed("x", 3, 8, 8), 3, 8))
    for name, channels in (("y", 6), ("z", 3)):
        flat = g("Reshape", g.conv(h, 8, channels), g.store([0, channels, -1], np.int64))
        rows = g("Transpose", flat, perm=[0, 2, 1])
        g("Identity" if name == "y" else "Sigmoid", rows, to=name)
    return g.model(floats("y"), floats("z"))


def several_maps(seed: int, batch: int | str = "N") -> rt.Model:
    """Raw heads of a detector at two strides."""
    g = Graph(seed, batch)
    h = g("Relu", g.conv(g.feed("x", 3, 8, 8), 3, 8))
    g.conv(h, 8, 7, to="large")
    g.conv(g("MaxPool", h, kernel_shape=[2, 2], strides=[2, 2]), 8, 7, to="small")
    return g.model(floats("large"), floats("small"))


def boxes_beside_scores(seed: int, batch: int | str = "N") -> rt.Model:
    g = Graph(seed, batch)
    h = g("Tanh", g.dense(g.feed("x", 5, 8), 8, 16))
    g.dense(h, 16, 4, to="out_a")
    g("Softmax", g.dense(h, 16, 3), to="out_b", axis=-1)
    return g.model(floats("out_a"), floats("out_b"))


def enlarged(channels: int, size: int = 4) -> Callable[..., rt.Model]:
    """[N, channels, size, size] -> three colours twice as fine: super-resolution, a decoder."""

    def build(seed: int, batch: int | str = "N") -> rt.Model:
        g = Graph(seed, batch)
        h = g("Relu", g.conv(g.feed("x", channels, size, size), channels, 12))
        g.conv(g("DepthToSpace", g.conv(h, 12, 16), blocksize=2), 4, 3, to="y")
        return g.model(floats("y"))

    return build


def two_classes_of_pixels(seed: int, batch: int | str = "N") -> rt.Model:
    """Colours come last, scores of two classes second."""
    g = Graph(seed, batch)
    x = g("Transpose", g.feed("x", 8, 8, 3), perm=[0, 3, 1, 2])
    g.conv(g("Relu", g.conv(x, 3, 8)), 8, 2, to="y")
    return g.model(floats("y"))


def generator(seed: int, batch: int | str = "N") -> rt.Model:
    """A vector becomes an image."""
    g = Graph(seed, batch)
    h = g("Relu", g.dense(g.feed("x", 8), 8, 64))
    g.conv(g("Reshape", h, g.store([-1, 4, 4, 4], np.int64)), 4, 3, to="y")
    return g.model(floats("y"))


def autoencoder(seed: int, batch: int | str = "N") -> rt.Model:
    g = Graph(seed, batch)
    g.dense(g("Relu", g.dense(g.feed("x", 12), 12, 5)), 5, 12, to="y")
    return g.model(floats("y"))


def sequence_autoencoder(seed: int, batch: int | str = "N") -> rt.Model:
    g = Graph(seed, batch)
    g.dense(g("Relu", g.dense(g.feed("x", 7, 6), 6, 4)), 4, 6, to="y")
    return g.model(floats("y"))


SHARE = 0.6  # two unrelated models of few classes often answer alike

CASES: dict[str, Case] = {
    "logits": Case(vector(as_is), "classes", 1, SHARE),
    "softmax": Case(vector(softmax(1)), "classes", 1, SHARE),
    "negative axis": Case(vector(softmax(-1)), "classes", 1, SHARE),
    "log-softmax": Case(vector(lambda g, x: g("LogSoftmax", x, axis=1)), "classes", 1, SHARE),
    "softmax spelt out": Case(vector(softmax_spelt_out), "classes", 1, SHARE),
    "classes in front": Case(vector(then(softmax(1), transposed(1, 0))), "classes", 0, SHARE),
    "quantised head": Case(quantised_head, "classes", 1, SHARE),
    "segmentation": Case(image(as_is), "dense", 1, SHARE),
    "segmentation, channels last": Case(image(transposed(0, 2, 3, 1)), "dense", 3, SHARE),
    "segmentation, shuffled": Case(image(transposed(0, 2, 1, 3)), "dense", 2, SHARE),
    "segmentation, softmax": Case(image(then(softmax(1), transposed(2, 0, 3, 1))), "dense", 3, SHARE),
    "tokens": Case(sequence(as_is), "tokens", 2, SHARE),
    "tokens, time first": Case(sequence(transposed(1, 0, 2)), "tokens", 2, SHARE),
    "tokens, classes second": Case(sequence(transposed(0, 2, 1)), "tokens", 1, SHARE),
    "tokens, softmax": Case(sequence(softmax(2)), "tokens", 2, SHARE),
    "masked tokens": Case(tagger, "tokens", 2, SHARE),
    "decoder": Case(decoder, "next-token", 2, SHARE),
    "decoder without cache": Case(causal_decoder, "next-token", 2, SHARE),
    "decoder with a soft cap": Case(capped_decoder, "next-token", 2, SHARE),
    "unit length": Case(vector(unit_length, 12), "embedding", None, 0.3),
    "unit length, clipped": Case(vector(unit_length_clipped, 12), "embedding", None, 0.3),
    "normalised by batch": Case(vector(batch_norm(12), 12), "embedding", None, 0.3),
    "normalised by layer": Case(vector(layer_norm(12), 12), "embedding", None, 0.3),
    "pooled": Case(image(lambda g, x: g("Flatten", g("GlobalAveragePool", x)), 12), "embedding", None, 0.3),
    "named embedding": Case(vector(as_is, 12, "sentence_embedding"), "embedding", None, 0.3),
    "regression": Case(vector(as_is, 1), "values"),
    "reconstructed vector": Case(autoencoder, "values"),
    "reconstructed sequence": Case(sequence_autoencoder, "values"),
    "landmarks": Case(vector(as_is, 10, "landmarks"), "values"),
    "bounded": Case(vector(lambda g, x: g("Sigmoid", x)), "values"),
    "hidden states": Case(sequence(layer_norm(6), name="last_hidden_state"), "values"),
    "segmentation of colours that come last": Case(two_classes_of_pixels, "dense", 1, 0.8),
    "finer than the image": Case(enlarged(3), "values"),
    "image of latent values": Case(enlarged(7), "values"),
    "image of a vector": Case(generator, "values"),
    "super-resolution": Case(image(as_is, 3), "values"),
    "depth": Case(image(as_is, 1, name="depth"), "values"),
    "boxes beside scores in one": Case(mixed_columns, "values"),
    "raw heads": Case(several_maps, "values"),
    "unnamed heads": Case(flat_heads, "values"),
    "a classifier that TensorFlow wrote": Case(
        vector(as_is, name="StatefulPartitionedCall:0"), "classes", 1, SHARE
    ),
    "tokens, transposed by name": Case(sequence(as_is, name="transpose_1.tmp_0"), "tokens", 2, SHARE),
    "embedding of a class token": Case(vector(as_is, 12, "cls_embedding"), "embedding", None, 0.3),
    "boxes beside a softmax": Case(boxes_beside_scores, "values"),
    "suppressed boxes": Case(detections(non_max_suppression), "detections"),
    "compressed boxes": Case(detections(compress), "detections"),
    "gathered boxes": Case(detections(nonzero), "detections"),
    "best boxes": Case(detections(best_rows), "detections"),
    "queries chosen inside": Case(chosen_queries, "detections"),
    "experts inside": Case(experts, "tokens", 2, SHARE),
    "experts inside, the best scores": Case(experts_and_best, "detections"),
    "labels": Case(labels, "elements", None, SHARE),
    "table and strings": Case(strings_and_table, "classes", 1, SHARE),
    "list": Case(listed, "elements"),
    "optional": Case(optional, "classes", 1, SHARE),
}


def samples(model: rt.Model, count: int = 48, seed: int = 3) -> dict[str, np.ndarray]:
    """Arrays [count, ...] for the inputs of these models."""
    random = np.random.default_rng(seed)
    arrays = {}
    for spec in model.inputs:
        shape = (count, *(int(size) for size in (spec.shape or ())[1:] if isinstance(size, int)))
        if "mask" in spec.name:
            arrays[spec.name] = (np.arange(shape[1])[None] < random.integers(1, 7, (count, 1))).astype(
                np.int64
            )
        elif spec.dtype == TensorProto.INT64:
            arrays[spec.name] = random.integers(0, 20, shape)
        else:
            arrays[spec.name] = random.normal(size=shape).astype(np.float32)
    return arrays
