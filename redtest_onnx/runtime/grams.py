"""Gram matrices of inner activations, reduced inside the graph while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

from redtest_onnx.graph.model import Model
from redtest_onnx.graph.reduction import OLDEST_GRAM_OPSET, Form, Pooling, Tap, whole_gram
from redtest_onnx.graph.shapes import Shape
from redtest_onnx.graph.signature import fixed_batch
from redtest_onnx.metrics.grams import centre_gram, linear_gram
from redtest_onnx.runtime.batching import Indices, runs
from redtest_onnx.runtime.data import Dataset
from redtest_onnx.runtime.probing import open_probe
from redtest_onnx.runtime.session import RunOptions


@dataclass(frozen=True)
class Target:
    """An activation to measure: its name, sizes for the smallest batch, element type and batch axis.

    `channels_first` is as in `Tap`.
    """

    tensor: str
    shape: Shape
    dtype: int
    batch_axis: int
    channels_first: bool = False


class GramReader:
    """Runs a model on batches of samples and returns the Gram matrices of its activations.

    Few features leave the graph as they are; many are reduced to their Gram there. A model with a fixed batch
    size is run as often as it takes, and its features are put together outside.

    Args:
        model: the model.
        targets: the activations.
        samples: samples per batch.
        pooling: "mean" or "none".
        options: device and threads.
    """

    def __init__(
        self, model: Model, targets: Sequence[Target], samples: int, pooling: Pooling, options: RunOptions
    ) -> None:
        fixed = fixed_batch(model)
        self._per_run = fixed or samples
        in_graph = self._per_run >= samples and model.opsets.get("ai.onnx", 0) >= OLDEST_GRAM_OPSET
        self._taps = [_tap(target, fixed or 1, self._per_run, pooling, in_graph) for target in targets]
        self._session = open_probe(model, self._taps, options)
        self.features: tuple[int, ...] = tuple(tap.features for tap in self._taps)

    def read(self, data: Dataset, indices: Indices) -> npt.NDArray[np.float64]:
        """Gram matrices of the activations on the given samples, [L, n, n] float64 of centred features."""
        n = len(indices)
        seen = [
            self._session.run(data.inputs(chosen)) for chosen, _ in runs(indices, self._per_run, fixed=True)
        ]
        grams = np.empty((len(self._taps), n, n))
        for gram, tap in zip(grams, self._taps, strict=True):
            if tap.form == "gram":
                gram[...] = centre_gram(whole_gram(seen[0][tap.output], n))
                if _constant(gram, float(seen[0][tap.level]), tap.features):
                    gram[...] = 0
            else:
                features = np.concatenate([run[tap.output] for run in seen])[:n]
                gram[...] = linear_gram(features)
        return grams


def _tap(target: Target, batch: int, per_run: int, pooling: Pooling, in_graph: bool) -> Tap:
    """`in_graph`: whether Grams of wide features can be made in the graph."""
    axis = target.batch_axis
    sizes = list(target.shape)
    sizes[axis] = sizes[axis] // batch * per_run
    wide = pooling == "none" and prod(sizes) // per_run > per_run
    form: Form = "gram" if in_graph and wide else "features"
    return Tap(target.tensor, tuple(sizes), target.dtype, per_run, axis, pooling, form, target.channels_first)


def _constant(gram: npt.NDArray[np.float64], level: float, features: int) -> bool:
    """Whether centred features are no more than the rounding of values of the given level.

    What float32 leaves of a constant layer looks like noise; only beside the level it is known for nothing.
    """
    rounding = 64 * np.finfo(np.float32).eps * level
    return bool(np.diagonal(gram).max() <= features * rounding**2)
