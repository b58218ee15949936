"""From an architecture to its measures: build, train shortly, export, count, time, compare layers."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args
from zlib import crc32

import numpy as np
import numpy.typing as npt

from redtest_onnx.data.images import ImageOptions
from redtest_onnx.data.open import open_data
from redtest_onnx.graph.cost import count_macs
from redtest_onnx.graph.files import save
from redtest_onnx.graph.index import index_of
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.shapes import infer_shapes
from redtest_onnx.ranking.accuracy import AccuracySource
from redtest_onnx.ranking.candidate import MeasuredCandidate, MsrsOrigin
from redtest_onnx.ranking.table import candidate_values
from redtest_onnx.runtime.devices import Device
from redtest_onnx.runtime.latency import measure_latency
from redtest_onnx.runtime.session import RunOptions
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.search.images import TrainingData, open_training_data
from redtest_onnx.search.pytorch import require_torch
from redtest_onnx.search.recipe import Recipe
from redtest_onnx.search.space import Architectures, ImageTask

if TYPE_CHECKING:
    from torch import nn

_PROXY_IMAGES = 64
_LATENCY_SECONDS = 0.3
_RANDOM_IMAGES = 256
_REDUNDANCY = ("msrs", "msrs_from", "layers", "undefined")

MsrsSource = Literal["table", "weights", "trained", "untrained"]
MSRS_SOURCES: tuple[MsrsSource, ...] = get_args(MsrsSource)


class WeightSource(Protocol):
    """Knows trained weights of architectures."""

    def weights(self, architecture: str) -> Mapping[str, Any]:
        """The weights by name, in the order of the layers."""


@dataclass(frozen=True)
class CandidateEvaluation:
    """Evaluates architectures; called in whatever process an engine runs it.

    The weights depend on the architecture and the seed alone, so that an evaluation that is done again, for
    example since its worker died, ends the same. With a source, nothing is built that is not wanted of it.

    Attributes:
        space: what the architectures are of.
        data: images to train with, to measure redundancy on and to judge by; None to do none of that.
        images: how image files become inputs.
        recipe: how networks are trained.
        seed: of weights and of the order of images.
        source: where accuracy is looked up; short training tells it if None.
        wanted: measures that every candidate needs; those that the source does not know are measured.
        msrs: what the MSRS is measured on if the source does not know it; None takes networks trained on
            `data`.
        weights: where trained weights are looked up for that.
        task: inputs and classes of the networks where there are no images; those of CIFAR-10 if None.
        models: folder for the networks as ONNX files; None keeps none.
        device: where they are trained and compared; latency is always the CPU's.
    """

    space: Architectures
    data: Path | None
    images: ImageOptions
    recipe: Recipe
    seed: int = 0
    source: AccuracySource | None = None
    wanted: tuple[str, ...] = ()
    msrs: MsrsSource | None = None
    weights: WeightSource | None = None
    task: ImageTask | None = None
    models: Path | None = None
    device: Device = "cpu"

    def check(self) -> None:
        """Read the images, which all candidates share, before the first one is built.

        Raises:
            InputError: they can't be read, have no labels, or are too few.
        """
        if self.data is not None:
            _training_data(self.data, self.images, self.seed)

    def __call__(self, architecture: str) -> MeasuredCandidate:
        """Look one architecture up, and build and measure it for what is not known of it.

        Raises:
            InputError: it is none of the space, or the accuracy source does not know it.
        """
        begin = perf_counter()
        known = self._known(architecture)
        measured = {} if self.source and self._enough(known) else self._build(architecture, known)
        return MeasuredCandidate(
            **{
                "name": architecture,
                "key": self.space.key(architecture),
                "depth": self.space.depth(architecture),
                "seconds": perf_counter() - begin,
                "worker": f"{platform.node()}:{os.getpid()}",
                **measured,
                **known,
            }
        )

    def _known(self, architecture: str) -> dict[str, Any]:
        """What the source knows, without an MSRS if that is to be measured all the same."""
        known = candidate_values(self.source.look_up(architecture)) if self.source else {}
        if self.msrs in ("weights", "trained", "untrained"):
            known = {name: value for name, value in known.items() if name not in _REDUNDANCY}
        return known

    @property
    def _measures(self) -> bool:
        """Whether an MSRS that the source does not know can be measured."""
        return self.data is not None if self.msrs is None else self.msrs != "table"

    def _enough(self, known: Mapping[str, Any]) -> bool:
        wanted = [name for name in self.wanted if name != "msrs" or self._measures]
        return self.models is None and all(name in known for name in wanted)

    def _build(self, architecture: str, known: Mapping[str, Any]) -> dict[str, Any]:
        torch = require_torch()
        data = _training_data(self.data, self.images, self.seed) if self.data else None
        task = data.task if data else self.task or ImageTask()
        key = self.space.key(architecture)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # small networks gain nothing from more, and results stay the same
        try:
            torch.manual_seed(crc32(key.encode()) ^ self.seed)
            network = self.space.build(architecture, task)
            measured = self._measures and "msrs" not in known
            measures = self._measure(architecture, network, data) if measured else {}
            if self.source and not self.models and self._costs_known(known):
                return {"parameters": sum(p.numel() for p in network.parameters()), **measures}
            model = self._export(network, task, key)
        finally:
            torch.set_num_threads(threads)
        return {
            "parameters": sum(p.numel() for p in network.parameters()),
            "macs": _macs(model, task),
            "latency_ms": None if "latency_ms" in known else _latency(model),
            **measures,
        }

    def _costs_known(self, known: Mapping[str, Any]) -> bool:
        return all(name in known for name in self.wanted if name in ("macs", "latency_ms"))

    def _measure(self, architecture: str, network: nn.Module, data: TrainingData | None) -> dict[str, Any]:
        from redtest_onnx.bridge.device import torch_device
        from redtest_onnx.search.networks import proxies
        from redtest_onnx.search.networks.redundancy import redundancy
        from redtest_onnx.search.networks.training import accuracy, train
        from redtest_onnx.search.networks.weights import load_in_order

        images = data.train.images if data else _random_images(self.task or ImageTask(), self.seed)
        few = images[:_PROXY_IMAGES]
        measures: dict[str, Any] = {
            "synflow": proxies.synflow(network, few.shape[1:]),
            "jacob_cov": proxies.jacob_cov(network, few),
            "naswot": proxies.naswot(network, few),
        }
        network.to(torch_device(self.device))
        trained = data is not None and self.msrs in (None, "trained")
        if trained:
            assert data is not None
            train(network, data.train, self.recipe, self.seed)
        elif self.msrs == "weights" and self.weights is not None:
            load_in_order(network, self.weights.weights(architecture))
        found = redundancy(network, images)
        measures |= {"msrs": found.msrs, "layers": found.layers, "undefined": found.undefined}
        measures["msrs_from"] = self._origin(trained)
        if trained:
            assert data is not None
            measures["accuracy"] = accuracy(network, data.validation)
            measures["test_accuracy"] = accuracy(network, data.test) if data.test else None
        network.cpu()
        return measures

    def _origin(self, trained: bool) -> MsrsOrigin:
        if self.msrs == "weights":
            return "weights"
        if self.data is None:
            return "untrained on random images"
        return "trained" if trained and self.recipe.epochs else "untrained"

    def _export(self, network: nn.Module, task: ImageTask, key: str) -> Model:
        from redtest_onnx.search.networks.export import export

        model = export(network, task)
        if self.models is None:
            return model
        return save(model, self.models / f"{crc32(key.encode()):08x}.onnx", force=True)


def _random_images(task: ImageTask, seed: int) -> npt.NDArray[np.float32]:
    """Images of independent normal values, [n, channels, size, size]."""
    shape = (_RANDOM_IMAGES, task.channels, task.size, task.size)
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


@lru_cache(maxsize=1)
def _training_data(path: Path, images: ImageOptions, seed: int) -> TrainingData:
    """Read once a process."""
    return open_training_data(path, options=images, seed=seed)


def _macs(model: Model, task: ImageTask) -> int | None:
    shapes = infer_shapes(model, {"input": (1, task.channels, task.size, task.size)})
    return count_macs(index_of(model), shapes)


def _latency(model: Model) -> float:
    options = RunOptions(device="cpu", threads=1)
    bench = Workbench(model, open_data(None, model), options)
    return measure_latency([bench], seconds=_LATENCY_SECONDS)[0].p50
