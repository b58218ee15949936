"""Two models, or one model on two data sets, or two sets of arrays: similarity of their layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from redtest_onnx.arrays import Float64s, Indices
from redtest_onnx.data.dataset import Dataset, require_samples
from redtest_onnx.data.synthetic import as_many
from redtest_onnx.documents.base import Document
from redtest_onnx.documents.result import Result
from redtest_onnx.errors import InputError
from redtest_onnx.graph.scratch import scratch_folder
from redtest_onnx.layers.layer import Layer
from redtest_onnx.metrics.arrays import Array, to_numpy
from redtest_onnx.metrics.cka import cross_cka, mean_of_defined
from redtest_onnx.metrics.exact import full_hsic
from redtest_onnx.metrics.grams import flatten, linear_gram
from redtest_onnx.metrics.packed import PackedGrams
from redtest_onnx.runtime.device_arrays import device_errors
from redtest_onnx.runtime.threads import one_blas_thread
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analyze import (
    AnalysisSettings,
    batches_of,
    measured_layers,
    targets_of,
)
from redtest_onnx.similarity.documents import compare_document
from redtest_onnx.similarity.measure import Progress, pack_grams, read_all
from redtest_onnx.similarity.reader import GramReader, Grams


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(Result):
    """Similarity between the layers of two sides.

    Attributes:
        rows: names of the first side's layers.
        columns: names of the second side's layers.
        similarity: [L, M] float64, CKA; NaN where undefined.
        settings: how it was measured.
        sources: where the samples of each side came from.
        samples: number of samples per batch.
        batches: number of batches.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    similarity: Float64s
    settings: AnalysisSettings
    sources: tuple[str, str]
    samples: int
    batches: int

    def summary(self) -> str:
        """Numbers of layers and samples."""
        shape = f"{len(self.rows)} layers with {len(self.columns)}"
        return f"{shape}, on {self.batches} x {self.samples} samples of {' and '.join(self.sources)}"

    def to_dict(self) -> Document:
        """The document of `compare --json`."""
        return compare_document(self, self.sources)

    def records(self) -> list[dict[str, Any]]:
        """One entry per layer of the first side, with the most similar one of the second."""
        return [
            {
                "layer": name,
                "most_similar": None if best is None else self.columns[best],
                "similarity": None if best is None else float(values[best]),
            }
            for name, best, values in zip(self.rows, self.best, self.similarity, strict=True)
        ]

    @property
    def best(self) -> tuple[int | None, ...]:
        """For each layer of the first side the most similar one of the second; None where undefined."""
        return tuple(int(np.nanargmax(row)) if np.isfinite(row).any() else None for row in self.similarity)


def compare(
    first: Workbench,
    second: Workbench,
    settings: AnalysisSettings | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Measure the similarity of all layers of one side with all of the other.

    Sample k of one side belongs to sample k of the other.

    Args:
        first: a model and its data.
        second: likewise; the same model on other data, or another model on the same data.
        settings: what to measure and on how much data.
        progress: called after every batch.

    Raises:
        InputError: fewer than four samples, different numbers of them, or a model doesn't run on its data.
    """
    settings = settings or AnalysisSettings()
    require_samples(first.data)
    first, second = on_same_samples(first, second)
    batches = batches_of(first.data, settings)
    readers, names = [], []
    for side in (first, second):
        layers, reader = _open(side, batches, settings)
        readers.append(reader)
        names.append(tuple(layer.name for layer in layers))
    with device_errors(first.data.source):
        if settings.estimator == "exact":
            similarity = _exactly(readers, batches, progress)
        else:
            similarity = _in_batches(readers, batches, settings, progress)
    return Comparison(
        rows=names[0],
        columns=names[1],
        similarity=similarity,
        settings=settings,
        sources=(first.data.source, second.data.source),
        samples=len(batches[0]),
        batches=len(batches),
    )


def on_same_samples(one: Workbench, two: Workbench) -> tuple[Workbench, Workbench]:
    """Both sides with samples that can be told to belong together: as many of synthetic ones on either side.

    Raises:
        InputError: different numbers of samples.
    """
    first, second = as_many(one.data, two.data)
    if len(first) != len(second):
        raise InputError(
            f"{first.source} has {len(first)} samples, {second.source} has {len(second)}",
            hint="sample k of one side must belong to sample k of the other",
        )
    return _with_data(one, first), _with_data(two, second)


def _with_data(bench: Workbench, data: Dataset) -> Workbench:
    if data is bench.data:
        return bench
    return Workbench(bench.model, data, bench.options, seed=bench.seed, evaluation=bench.evaluation)


def compare_arrays(
    first: Mapping[str, Array],
    second: Mapping[str, Array],
    settings: AnalysisSettings | None = None,
    sources: tuple[str, str] = ("arrays", "arrays"),
) -> Comparison:
    """Similarity of activations that were taken elsewhere, on all their samples at once.

    Args:
        first: per layer [n, ...], any real dtype.
        second: likewise, of the same samples.
        settings: `pooling`, `estimator` ("biased", or without bias) and `kernel` count.
        sources: what messages call the two.

    Raises:
        InputError: no arrays, no numbers, different numbers of samples, or fewer than four.
    """
    settings = settings or AnalysisSettings()
    features = [
        _flat(arrays, settings, source) for arrays, source in zip((first, second), sources, strict=True)
    ]
    counts = {len(array) for side in features for array in side.values()}
    if len(counts) != 1:
        raise InputError(
            f"the arrays have different numbers of samples: {', '.join(map(str, sorted(counts)))}",
            where=" and ".join(dict.fromkeys(sources)),
            hint="samples are the first axis, the same ones in the same order in all arrays",
        )
    samples = counts.pop()
    if settings.estimator == "exact":
        sides = [list(side.values()) for side in features]
        similarity = _cross(full_hsic(*sides), *(np.diagonal(full_hsic(side)) for side in sides))
    else:
        grams = [Grams(map(linear_gram, side.values()), len(side), samples) for side in features]
        packed = [pack_grams(side, settings.estimator, settings.kernel) for side in grams]
        similarity = _cross(*_hsic(*packed))
    rows, columns = (tuple(side) for side in features)
    used = replace(settings, samples=samples, batches=1)
    return Comparison(rows, columns, similarity, used, sources, samples, 1)


def _open(
    side: Workbench, batches: Sequence[Indices], settings: AnalysisSettings
) -> tuple[tuple[Layer, ...], GramReader]:
    layers = measured_layers(side, settings)
    if not layers:
        raise InputError("no layer to compare", where=side.label, hint="see `inspect`")
    reader = GramReader(
        side.opened,
        targets_of(layers, side),
        batches,
        settings.pooling,
        seed=settings.seed,
        keep_features=settings.estimator == "exact",
    )
    return layers, reader


def _in_batches(
    readers: Sequence[GramReader],
    batches: Sequence[Indices],
    settings: AnalysisSettings,
    progress: Progress | None,
) -> Float64s:
    """One ratio of sums over the batches; with the estimator "paper" the mean of the batches' ratios."""
    parts = []
    for done, indices in enumerate(batches):
        grams = [reader.read(indices) for reader in readers]
        with one_blas_thread():
            first, second = (pack_grams(side, settings.estimator, settings.kernel) for side in grams)
            parts.append(_hsic(first, second))
        if progress:
            progress(done + 1, len(batches), "measuring")
    if settings.estimator == "paper":
        mean: Float64s = mean_of_defined(np.stack([_cross(*part) for part in parts]))
        return mean
    hsic, first_own, second_own = (np.nansum([part[k] for part in parts], axis=0) for k in range(3))
    return _cross(hsic, first_own, second_own)


def _exactly(
    readers: Sequence[GramReader],
    batches: Sequence[Indices],
    progress: Progress | None,
) -> Float64s:
    with scratch_folder() as one, scratch_folder() as two:
        first, second = (
            read_all(reader, batches, folder, progress)
            for reader, folder in zip(readers, (one, two), strict=True)
        )
        own = [np.diagonal(full_hsic(side)) for side in (first, second)]
        return _cross(full_hsic(first, second), *own)


def _hsic(first: PackedGrams, second: PackedGrams) -> tuple[Float64s, Float64s, Float64s]:
    """HSIC between the sides [L, M], and of each layer with itself [L] and [M]."""
    between, *own = map(to_numpy, (first.hsic(second), first.own_hsic(), second.own_hsic()))
    return between, own[0], own[1]


def _cross(hsic: Array, first: Array, second: Array) -> Float64s:
    similarity: Float64s = to_numpy(cross_cka(hsic, first, second))
    return similarity


def _flat(arrays: Mapping[str, Array], settings: AnalysisSettings, source: str) -> dict[str, Array]:
    """[n, p] per layer; "mean" averages over the axes between the first and the channels.

    Where the channels are the rank tells: second of four or five axes, last of three.
    """
    if not arrays:
        raise InputError("holds no arrays", where=source)
    flat = {}
    for name, array in arrays.items():
        if array.dtype.kind not in "fiu" or array.ndim == 0 or not np.isfinite(array).all():
            raise InputError(
                f"{name!r} is {array.dtype}{list(array.shape)}, which holds no finite numbers per sample",
                where=source,
                hint="give arrays of numbers with the samples as the first axis",
            )
        if array.ndim > 2 and settings.pooling != "none":
            array = _pooled(array, settings)
        flat[name] = flatten(array)
    return flat


def _pooled(array: Array, settings: AnalysisSettings) -> Array:
    if array.ndim > 3:
        return array.mean(axis=tuple(range(2, array.ndim)))
    if settings.pooling == "cls":
        return array[:, 0]
    if settings.pooling == "token":
        places = np.random.default_rng(settings.seed).random(len(array)) * array.shape[1]
        return array[np.arange(len(array)), places.astype(np.int64)]
    return array.mean(axis=1)
