"""Small models of token ids: decoders with a cache, without one, with capped scores, and a tagger."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto
from output_graph import Graph, floats

import redtest_onnx as rt


def decoder(seed: int, batch: int | str = "N") -> rt.Model:
    g = Graph(seed, batch)
    ids = g.feed("input_ids", 6, dtype=TensorProto.INT64)
    past = g.feed("past_key_values.0.key", 1, 2, 8)
    h = g("Gather", g.matrix(20, 8), ids)
    keys = g("Unsqueeze", g.dense(h, 8, 8), g.store([1], np.int64))
    present = g("Concat", past, keys, axis=2, to="present.0.key")
    summed = g("ReduceMean", present, axes=[1, 2], keepdims=0)
    h = g("Add", h, g("Unsqueeze", summed, g.store([1], np.int64)))
    g.dense(g("Tanh", h), 8, 20, to="logits")
    return g.model(floats("logits"), floats("present.0.key"))


def causal_decoder(seed: int, batch: int | str = "N") -> rt.Model:
    """Without a cache; ids are looked up as rows of six, as T5 and OPT do it."""
    g = Graph(seed, batch)
    ids = g("Reshape", g.feed("input_ids", 6, dtype=TensorProto.INT64), g.store([-1, 6], np.int64))
    h = g("Gather", g.matrix(20, 8), ids)
    past = g("Trilu", g.store(np.full((6, 6), 1 / 6)), upper=0)
    g.dense(g("Tanh", g("Add", h, g("MatMul", past, h))), 8, 20, to="logits")
    return g.model(floats("logits"))


def capped_decoder(seed: int, batch: int | str = "N") -> rt.Model:
    """Its scores bend towards 5, as Gemma's towards 30."""
    g = Graph(seed, batch)
    ids = g.feed("input_ids", 6, dtype=TensorProto.INT64)
    h = g("Gather", g.matrix(20, 8), ids)
    past = g("Trilu", g.store(np.full((6, 6), 1 / 6)), upper=0)
    logits = g.dense(g("Tanh", g("Add", h, g("MatMul", past, h))), 8, 20)
    g("Mul", g("Tanh", g("Div", logits, g.store(5.0))), g.store(5.0), to="logits")
    return g.model(floats("logits"))


def tagger(seed: int, batch: int | str = "N") -> rt.Model:
    """Classes per token; a mask leaves positions out."""
    g = Graph(seed, batch)
    ids = g.feed("input_ids", 6, dtype=TensorProto.INT64)
    mask = g.feed("attention_mask", 6, dtype=TensorProto.INT64)
    h = g("Gather", g.matrix(20, 8), ids)
    h = g("Mul", h, g("Unsqueeze", g.cast(mask), g.store([2], np.int64)))
    g.dense(g("Tanh", h), 8, 5, to="logits")
    return g.model(floats("logits"))
