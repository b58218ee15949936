"""What rules look at: the model, the profile, and facts that are found once, when asked for."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from redtest_onnx.auditing.constants import floating_values
from redtest_onnx.auditing.profile import Profile
from redtest_onnx.auditing.support import ProviderPartition, split, supported
from redtest_onnx.data.dataset import Dataset
from redtest_onnx.data.splits import sample_indices
from redtest_onnx.errors import InputError, TooFewLayersError
from redtest_onnx.graph.cost import Cost, model_cost
from redtest_onnx.graph.index import GraphIndex, index_of
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.shapes import Shapes
from redtest_onnx.graph.validity import full_check
from redtest_onnx.metrics.pqi import PowerSums, power_sums
from redtest_onnx.runtime.guesses import may_be_ours, shape_hint, sizes_note
from redtest_onnx.runtime.latency import Latency, measure_latency
from redtest_onnx.runtime.memory import measured_peak_activations
from redtest_onnx.runtime.provider_check import ProviderReport, check_provider
from redtest_onnx.runtime.ranges import largest_magnitudes
from redtest_onnx.runtime.session import Session
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analyze import Analysis, AnalysisSettings, analyze

log = logging.getLogger(__name__)

Outputs = Mapping[str, Any]

_SAMPLES = 8
_SYNTHETIC = 4  # samples, of synthetic inputs
_SIMILARITY = AnalysisSettings(samples=64, batches=2)
_ON_NOISE = AnalysisSettings(samples=32, batches=1)  # more noise tells no more about real inputs
_DEAR = 10**9  # multiply-accumulates of a sample; of models that need more, half as many samples are measured
_PQ = (0.5, 1.0)
_LARGE = 1e3  # times a usual input


@dataclass(frozen=True)
class Subject:
    """One audited model.

    Attributes:
        bench: the model and samples for it, synthetic where none were given.
        profile: the deployment target.
        timed: whether latency may be measured.
        given: options that commands in fixes need to read the same samples.
    """

    bench: Workbench
    profile: Profile
    timed: bool = True
    given: tuple[str, ...] = ()

    @property
    def model(self) -> Model:
        """The model."""
        return self.bench.model

    @property
    def data(self) -> Dataset:
        """Samples for it."""
        return self.bench.data

    @property
    def label(self) -> str:
        """The file, as commands in fixes name it."""
        return self.model.label

    def beside(self, word: str) -> str:
        """Where a command would write a changed version of the file."""
        return f"{self.label.removesuffix('.onnx')}.{word}.onnx"

    @property
    def index(self) -> GraphIndex:
        """Look-ups over the main graph."""
        return index_of(self.model)

    @cached_property
    def invalid(self) -> str | None:
        """Why onnx.checker refuses the model; None if it doesn't."""
        try:
            full_check(self.model)
        except InputError as error:
            return error.what
        return None

    @cached_property
    def refused(self) -> str | None:
        """Why ONNX Runtime refuses to load the model, or to run it on the data; None if it doesn't.

        Raises:
            InputError: the model loads, but does not run on synthetic inputs that are guesses.
        """
        try:
            session = self.session
        except InputError as error:
            return error.what
        try:
            session.run(self.usual)
        except InputError as error:
            if may_be_ours(self.bench):
                raise InputError(
                    f"it does not run on synthetic inputs ({error.what})",
                    where=self.label,
                    hint="give samples with @data, or other sizes with @shapes; tried was "
                    f"{shape_hint(self.bench)}",
                ) from error
            return error.what
        return None

    @property
    def runs(self) -> bool:
        """Whether anything can be measured by running the model."""
        return self.refused is None

    @property
    def session(self) -> Session:
        """The model as users load it."""
        return self.bench.session()

    @property
    def usual(self) -> dict[str, Any]:
        """Inputs of a usual run."""
        return self.bench.sample

    @cached_property
    def shapes(self) -> Shapes:
        """Sizes of the tensors for one sample; nothing where they can't be found."""
        try:
            return self.bench.unopened.shapes
        except InputError:
            return Shapes()

    @cached_property
    def cost(self) -> Cost:
        """Parameters, multiply-accumulates and memory of one sample."""
        return replace(model_cost(self.index, self.shapes), at=sizes_note(self.data))

    @cached_property
    def split(self) -> ProviderPartition | None:
        """How the target's provider cuts the main graph; None if it takes everything."""
        taken = supported(self.profile.target)
        return None if taken is None else split(self.model.graph.node, taken)

    @cached_property
    def stimuli(self) -> dict[str, dict[str, Any]]:
        """Inputs to try by kind: zero, random, large, and real ones where data was given.

        They have the sizes of the usual ones, and their integers, which may be indices or lengths.
        """
        made_up = dict(self.usual)
        floats = {name for name, value in made_up.items() if np.issubdtype(value.dtype, np.floating)}
        if not self.data.synthetic:
            for name in floats:
                rng = np.random.default_rng([*name.encode()])
                made_up[name] = np.asarray(rng.standard_normal(made_up[name].shape), made_up[name].dtype)
        scale = {"zero": 0.0, "random": 1.0, "large": _LARGE}
        kinds = {
            kind: {
                # A single number times a number is no array any more.
                name: np.asarray(value * factor, value.dtype) if name in floats else value
                for name, value in made_up.items()
            }
            for kind, factor in scale.items()
        }
        return kinds if self.data.synthetic else {**kinds, "real": self.usual}

    @cached_property
    def broken(self) -> dict[str, tuple[str, ...]]:
        """Outputs that hold NaN or infinity by kind of input."""
        found: dict[str, tuple[str, ...]] = {}
        for kind, feeds in self.stimuli.items():
            try:
                outputs = self._run(feeds)
            except InputError:
                found[kind] = ("the run fails",)
                continue
            bad = tuple(name for name, value in outputs.items() if not _finite(value))
            if bad:
                found[kind] = bad
        return found

    @cached_property
    def varying(self) -> tuple[str, ...]:
        """Outputs that differ between runs on the same input, in one session or in a fresh one."""
        reference = self._run(self.usual)
        again = self._run(self.usual)
        fresh = Session(self.model, self.bench.options).run(self.usual)
        return tuple(
            name
            for name, value in reference.items()
            if not (_same(value, again[name]) and _same(value, fresh[name]))
        )

    @cached_property
    def magnitudes(self) -> dict[str, float]:
        """Largest absolute value of each floating-point activation on usual inputs."""
        names = [
            name
            for name in self.index.producer
            if name in self.index.activations and self.shapes.is_float(name) and name in self.shapes.dtypes
        ]
        indices = sample_indices(self.data, _SYNTHETIC if self.data.synthetic else _SAMPLES, 0)
        return largest_magnitudes(self.bench, names, indices) if names else {}

    def weights(self) -> Iterator[tuple[str, npt.NDArray[np.generic]]]:
        """Floating-point tensors, stored as initializers or by Constant nodes, one in memory at a time."""
        for stored, value in floating_values(self.model):
            yield stored.name, value

    @cached_property
    def pq_index(self) -> float | None:
        """PQ Index of all weights together, near 0 for equal magnitudes and 1 for few that matter."""
        total: PowerSums | None = None
        for _, value in self.weights():
            if value.ndim > 1:
                sums = power_sums(value, *_PQ)
                total = sums if total is None else total.merged(sums)
        return None if total is None else float(total.index)

    @cached_property
    def latency(self) -> Latency | None:
        """Time of one sample in one thread; None if nothing is to be timed."""
        return measure_latency([self.bench])[0] if self.timed else None

    @cached_property
    def provider(self) -> ProviderReport | None:
        """What the execution providers of the options make of it; None if none were asked for."""
        return check_provider(self.bench, timed=self.timed) if self.bench.options.providers else None

    @cached_property
    def cold_start(self) -> float | None:
        """Milliseconds to load the model and run it once; None if nothing is to be timed."""
        if not self.timed:
            return None
        start = perf_counter()
        Session(self.model, self.bench.options).run(self.usual)
        return (perf_counter() - start) * 1e3

    @cached_property
    def measured_memory(self) -> float | None:
        """Bytes of activations that ONNX Runtime was seen to hold for one sample; None where not measured."""
        return measured_peak_activations(self.bench.unopened) if self.timed else None

    @cached_property
    def analysis(self) -> Analysis | None:
        """Similarity of the layers; None with fewer than two of them, or if it fails, which is said."""
        settings = _ON_NOISE if self.data.synthetic else _SIMILARITY
        if self.data.synthetic and (self.cost.macs or 0) > _DEAR:
            settings = replace(settings, samples=settings.samples // 2)
        try:
            return analyze(self.bench, settings)
        except TooFewLayersError:
            return None
        except InputError as error:
            log.warning("redundancy is not measured: %s", error.what)
            return None

    def _run(self, feeds: Mapping[str, Any]) -> Outputs:
        return self.session.run(feeds)


def _finite(value: Any) -> bool:
    if not isinstance(value, np.ndarray) or not np.issubdtype(value.dtype, np.floating):
        return True
    return bool(np.isfinite(value).all())


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) and a.dtype != object:
        return bool(np.array_equal(a, b, equal_nan=np.issubdtype(a.dtype, np.floating)))
    return repr(a) == repr(b)
