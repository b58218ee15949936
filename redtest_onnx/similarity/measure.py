"""HSIC of all pairs of layers over the batches of a data set, in constant memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Literal, TypeAlias

import numpy as np

from redtest_onnx.arrays import Float64s, Indices
from redtest_onnx.graph.scratch import allocated, scratch_folder
from redtest_onnx.metrics.arrays import Array, namespace, to_numpy
from redtest_onnx.metrics.cka import UNBIASED_SAMPLES, Estimator
from redtest_onnx.metrics.exact import full_hsic
from redtest_onnx.metrics.grams import centre_gram, centred_norms, linear_gram, rbf_of_linear
from redtest_onnx.metrics.packed import PackedGrams
from redtest_onnx.metrics.statistics import largest_samples, norm_shares, shuffled_null
from redtest_onnx.runtime.device_arrays import device_errors
from redtest_onnx.runtime.threads import one_blas_thread
from redtest_onnx.similarity.reader import GramReader, Grams

Kernel: TypeAlias = Literal["linear", "rbf"]
Progress = Callable[[int, int, str], None]
"""Called with work done, all work, and what is being done."""

_IN_MEMORY = 1 << 30  # bytes of features; more of them are kept in a temporary file


@dataclass(frozen=True, eq=False)
class MeasurementResult:
    """What came out of a run over all batches.

    Attributes:
        hsic: [B, L, L]; one matrix for all samples with the estimator "exact".
        null95: similarity that 95 % of pairs of layers stay below if their samples are shuffled.
        top_share: [L] mean over the batches, see `norm_shares`.
        dominated: indices of layers that few samples dominate in some batch, see `norm_shares`.
        without: [B, L, L], `hsic` without these samples; None if there are none, with the estimator "exact",
            and where too few samples would be left.
        left_out: number of these samples in all batches.
        forward_s: seconds spent running the model.
        metric_s: seconds spent on similarities.
    """

    hsic: Float64s
    null95: float
    top_share: Float64s
    dominated: tuple[int, ...]
    without: Float64s | None
    left_out: int
    forward_s: float
    metric_s: float


def measure(
    reader: GramReader,
    batches: Sequence[Indices],
    *,
    estimator: Estimator = "minibatch",
    kernel: Kernel = "linear",
    seed: int = 0,
    progress: Progress | None = None,
) -> MeasurementResult:
    """Run the model on all batches.

    Args:
        reader: the model; with `keep_features` for the estimator "exact".
        batches: the samples of each batch.
        estimator: "biased" centres Grams as H K H, the others without bias.
        kernel: of the Grams; "exact" knows the linear one only.
        seed: of the shuffled null.
        progress: called after every batch.

    Raises:
        InputError: a run fails, or memory is used up.
        RuntimeUnavailableError: the GPU fails.
    """
    with device_errors(reader.source):
        if estimator == "exact":
            return _measure_exactly(reader, batches, seed, progress)
        return _measure_batches(reader, batches, estimator, kernel, seed, progress)


def _measure_batches(
    reader: GramReader,
    batches: Sequence[Indices],
    estimator: Estimator,
    kernel: Kernel,
    seed: int,
    progress: Progress | None,
) -> MeasurementResult:
    hsic, largest, watch = [], _Largest(), _Watch()
    for done, indices in enumerate(batches):
        grams = reader.read(indices)
        watch.forward()
        norms: list[Array] = []
        with one_blas_thread():
            packed = pack_grams(grams, estimator, kernel, norms)
            hsic.append(to_numpy(packed.hsic()))
            largest.see(_stacked(norms), packed, hsic[-1])
            last = done + 1 == len(batches)
            null95 = shuffled_null(packed, np.random.default_rng(seed)).quantile95 if last else np.nan
        del grams, packed
        watch.metric()
        if progress:
            progress(done + 1, len(batches), "measuring")
    return MeasurementResult(
        np.stack(hsic),
        null95,
        largest.share,
        largest.dominated,
        largest.without,
        largest.left_out,
        watch.forward_s,
        watch.metric_s,
    )


def pack_grams(
    grams: Grams, estimator: Estimator, kernel: Kernel, norms: list[Array] | None = None
) -> PackedGrams:
    """Gram matrices from those of linear kernels, as the estimator and the kernel want them.

    Args:
        grams: of one batch.
        estimator: "biased", or any other, which is centred without bias.
        kernel: made of the linear one.
        norms: takes [n] squared norms of the centred samples of each layer.
    """

    def made() -> Iterator[Array]:
        for gram in grams:
            if norms is not None:
                norms.append(centred_norms(gram))
            yield centre_gram(rbf_of_linear(gram)) if kernel == "rbf" else gram

    return PackedGrams.of(made(), len(grams), grams.samples, unbiased=estimator != "biased")


def read_all(
    reader: GramReader,
    batches: Sequence[Indices],
    folder: Path,
    progress: Progress | None = None,
) -> list[Array]:
    """Features of all samples, [n, p] per layer; in files in `folder` where they are many."""
    total = sum(len(indices) for indices in batches)
    in_memory = total * sum(reader.features) * 4 <= _IN_MEMORY
    kept: list[Array] = []
    position = 0
    for done, indices in enumerate(batches):
        parts = reader.read_features(indices)
        for k, part in enumerate(parts):
            if done == 0:
                shape = (total, part.shape[1])
                file = Path(folder) / f"{k}"
                kept.append(
                    np.empty(shape, np.float32)
                    if in_memory
                    else np.memmap(allocated(file, total * part.shape[1] * 4), np.float32, "r+", shape=shape)
                )
            kept[k][position : position + len(indices)] = to_numpy(part)
        position += len(indices)
        if progress:
            progress(done + 1, len(batches), "measuring")
    return kept


def _measure_exactly(
    reader: GramReader, batches: Sequence[Indices], seed: int, progress: Progress | None
) -> MeasurementResult:
    watch = _Watch()
    with scratch_folder() as folder:
        features = read_all(reader, batches, folder, progress)
        watch.forward()
        hsic = full_hsic(features)
        order = np.random.default_rng(seed).permutation(len(features[0]))[: len(batches[0])]
        rows = np.sort(order)
        grams = Grams((linear_gram(layer[rows]) for layer in features), len(features), len(rows))
        norms: list[Array] = []
        packed = pack_grams(grams, "minibatch", "linear", norms)
        null95 = shuffled_null(packed, np.random.default_rng(seed)).quantile95
        del features, grams
        watch.metric()
    share, dominated = norm_shares(_stacked(norms))
    return MeasurementResult(hsic[None], null95, share, dominated, None, 0, watch.forward_s, watch.metric_s)


def _stacked(norms: list[Array]) -> Float64s:
    """[L, n] from the norms of each layer."""
    stacked: Float64s = to_numpy(namespace(norms[0]).stack(norms))
    return stacked


class _Largest:
    """Gathers over the batches what samples of large norm do."""

    def __init__(self) -> None:
        self.left_out = 0
        self._shares: list[Float64s] = []
        self._dominated: set[int] = set()
        self._hsic: list[Float64s] = []
        self._enough = True

    def see(self, norms: Float64s, packed: PackedGrams, hsic: Float64s) -> None:
        """One batch: [L, n] squared norms, its Grams, and their [L, L] HSIC."""
        share, dominated = norm_shares(norms)
        self._shares.append(share)
        self._dominated |= set(dominated)
        if dominated:
            samples = largest_samples(norms, dominated)
            self._enough = self._enough and norms.shape[1] - len(samples) >= UNBIASED_SAMPLES
            self.left_out += len(samples)
            hsic = to_numpy(packed.hsic_without(samples)) if self._enough else hsic
        self._hsic.append(hsic)

    @property
    def share(self) -> Float64s:
        """[L], the mean over the batches in which a layer varies."""
        defined = np.isfinite(self._shares).sum(axis=0)
        share: Float64s = np.nansum(self._shares, axis=0) / np.where(defined > 0, defined, np.nan)
        return share

    @property
    def dominated(self) -> tuple[int, ...]:
        """Indices of layers."""
        return tuple(sorted(self._dominated))

    @property
    def without(self) -> Float64s | None:
        """[B, L, L] HSIC without the samples, if there were any, and others."""
        return np.stack(self._hsic) if self._dominated and self._enough else None


class _Watch:
    """Divides time between the model and the similarities."""

    def __init__(self) -> None:
        self.forward_s = self.metric_s = 0.0
        self._last = perf_counter()

    def forward(self) -> None:
        self.forward_s += self._lap()

    def metric(self) -> None:
        self.metric_s += self._lap()

    def _lap(self) -> float:
        now = perf_counter()
        passed, self._last = now - self._last, now
        return passed
