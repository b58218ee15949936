"""Small models that pick rows by their values: detectors, mixtures of experts, chosen queries."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from output_graph import Graph, floats

import redtest_onnx as rt


def detections(pick: Callable[[Graph, str, str], str]) -> Callable[..., rt.Model]:
    """Boxes [N, 5, 4] and scores [N, 1, 5], of which `pick` chooses rows."""

    def build(seed: int, batch: int | str = "N") -> rt.Model:
        g = Graph(seed, batch)
        h = g("Tanh", g.dense(g.feed("x", 5, 8), 8, 16))
        corner = g.dense(h, 16, 2)
        size = g("Exp", g.dense(h, 16, 2))
        boxes = g("Concat", corner, g("Add", corner, size), axis=2)
        scores = g("Transpose", g("Sigmoid", g.dense(h, 16, 1)), perm=[0, 2, 1])
        g("Identity", pick(g, boxes, scores), to="y")
        return g.model(floats("y"))

    return build


def non_max_suppression(g: Graph, boxes: str, scores: str) -> str:
    limits = g.store([5], np.int64), g.store([0.5]), g.store([0.4])
    chosen = g("NonMaxSuppression", boxes, scores, *limits)
    return g("GatherND", boxes, g("Gather", chosen, g.store([0, 2], np.int64), axis=1))


def compress(g: Graph, boxes: str, scores: str) -> str:
    flat = g("Reshape", scores, g.store([-1], np.int64))
    rows = g("Reshape", boxes, g.store([-1, 4], np.int64))
    return g("Compress", rows, g("Greater", flat, g.store(0.5)), axis=0)


def nonzero(g: Graph, boxes: str, scores: str) -> str:
    flat = g("Reshape", scores, g.store([-1], np.int64))
    rows = g("Reshape", boxes, g.store([-1, 4], np.int64))
    places = g("Transpose", g("NonZero", g("Greater", flat, g.store(0.5))))
    return g("GatherND", rows, places)


def best_rows(g: Graph, boxes: str, scores: str) -> str:
    """The three best boxes of each sample: as many for all values, but in another order."""
    g("TopK", g("Squeeze", scores, g.store([1], np.int64)), g.store([3], np.int64), outputs=2)
    best = f"{g.nodes[-1].output[1]}"
    places = g("Expand", g("Unsqueeze", best, g.store([2], np.int64)), g.store([1, 1, 4], np.int64))
    return g("GatherElements", boxes, places, axis=1)


def experts(seed: int, batch: int | str = "N") -> rt.Model:
    """Each position asks the two best of four experts, whose answers are weighted and summed."""
    g = Graph(seed, batch)
    h = g("Tanh", g.dense(g.feed("x", 5, 8), 8, 12))
    for _ in range(2):
        g("TopK", g("Softmax", g.dense(h, 12, 4), axis=-1), g.store([2], np.int64), outputs=2)
        weights, best = g.nodes[-1].output
        chosen = g("Gather", g.matrix(4, 12, 12), best)
        answers = g("MatMul", g("Unsqueeze", h, g.store([2, 3], np.int64)), chosen)
        weighted = g("Mul", answers, g("Unsqueeze", weights, g.store([3, 4], np.int64)))
        h = g("Add", h, g("ReduceSum", weighted, g.store([2, 3], np.int64), keepdims=0))
    g("Identity", g.dense(h, 12, 6), to="y")
    return g.model(floats("y"))


def experts_and_best(seed: int, batch: int | str = "N") -> rt.Model:
    """Experts inside, and at the end the three best scores in order."""
    g = Graph(seed, batch)
    h = g("Tanh", g.dense(g.feed("x", 8), 8, 12))
    g("TopK", g.dense(h, 12, 4), g.store([2], np.int64), outputs=2)
    chosen = g("Gather", g.matrix(4, 12), g.nodes[-1].output[1])
    h = g("Add", h, g("ReduceSum", chosen, g.store([1], np.int64), keepdims=0))
    g("TopK", g.dense(h, 12, 6), g.store([3], np.int64), outputs=2)
    g("Identity", g.nodes[-1].output[0], to="y")
    return g.model(floats("y"))


def chosen_queries(seed: int, batch: int | str = "N") -> rt.Model:
    """The three best positions become queries, on which further layers work."""
    g = Graph(seed, batch)
    h = g("Tanh", g.dense(g.feed("x", 5, 8), 8, 12))
    g("TopK", g("Squeeze", g.dense(h, 12, 1), g.store([2], np.int64)), g.store([3], np.int64), outputs=2)
    best = g("Unsqueeze", g.nodes[-1].output[1], g.store([2], np.int64))
    q = g("GatherElements", h, g("Expand", best, g.store([1, 1, 12], np.int64)), axis=1)
    for _ in range(2):
        q = g("Add", q, g("Tanh", g.dense(q, 12, 12)))
    g.dense(q, 12, 6, to="y")
    return g.model(floats("y"))
