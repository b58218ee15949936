"""From an architecture to its measures: build, train shortly, export, count, time, compare layers."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any
from zlib import crc32

from redtest_onnx.data.images import ImageOptions
from redtest_onnx.data.open import open_data
from redtest_onnx.graph.cost import count_macs
from redtest_onnx.graph.files import save
from redtest_onnx.graph.index import index_of
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.shapes import infer_shapes
from redtest_onnx.ranking.accuracy import AccuracySource
from redtest_onnx.ranking.candidate import MeasuredCandidate
from redtest_onnx.runtime.devices import Device
from redtest_onnx.runtime.latency import measure_latency
from redtest_onnx.runtime.session import RunOptions
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.search.images import TrainingData, open_training_data
from redtest_onnx.search.pytorch import require_torch
from redtest_onnx.search.recipe import Recipe
from redtest_onnx.search.space import ImageTask, Space

if TYPE_CHECKING:
    from torch import nn

_PROXY_IMAGES = 64
_LATENCY_SECONDS = 0.3


@dataclass(frozen=True)
class CandidateEvaluation:
    """Evaluates architectures; called in whatever process an engine runs it.

    The weights depend on the architecture and the seed alone, so that an evaluation that is done again, for
    example since its worker died, ends the same.

    Attributes:
        space: what the architectures are of.
        data: images to train with, to measure redundancy on and to judge by; None to do none of that.
        images: how image files become inputs.
        recipe: how networks are trained.
        seed: of weights and of the order of images.
        source: where accuracy is looked up; short training tells it if None.
        models: folder for the trained networks as ONNX files; None keeps none.
        device: where they are trained and compared; latency is always the CPU's.
    """

    space: Space
    data: Path | None
    images: ImageOptions
    recipe: Recipe
    seed: int = 0
    source: AccuracySource | None = None
    models: Path | None = None
    device: Device = "cpu"

    def __call__(self, architecture: str) -> MeasuredCandidate:
        """Build and measure one architecture.

        Raises:
            InputError: it is none of the space, or the accuracy source does not know it.
        """
        torch = require_torch()
        begin = perf_counter()
        known = self.source.look_up(architecture) if self.source else {}
        data = _training_data(self.data, self.images, self.seed) if self.data else None
        task = data.task if data else ImageTask()
        key = self.space.key(architecture)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # small networks gain nothing from more, and results stay the same
        try:
            torch.manual_seed(crc32(key.encode()) ^ self.seed)
            network = self.space.build(architecture, task)
            measures = self._measure(network, data) if data else {}
            model = self._export(network, task, key)
        finally:
            torch.set_num_threads(threads)
        measured: dict[str, Any] = {
            "parameters": sum(p.numel() for p in network.parameters()),
            "macs": _macs(model, task),
            "latency_ms": _latency(model),
            **measures,
        }
        return MeasuredCandidate(
            name=architecture,
            key=key,
            depth=self.space.depth(architecture),
            seconds=perf_counter() - begin,
            worker=f"{platform.node()}:{os.getpid()}",
            **{**measured, **known},
        )

    def _measure(self, network: nn.Module, data: TrainingData) -> dict[str, Any]:
        from redtest_onnx.bridge.device import torch_device
        from redtest_onnx.search.networks import proxies
        from redtest_onnx.search.networks.redundancy import redundancy
        from redtest_onnx.search.networks.training import accuracy, train

        few = data.train.images[:_PROXY_IMAGES]
        measures: dict[str, Any] = {
            "synflow": proxies.synflow(network, few.shape[1:]),
            "jacob_cov": proxies.jacob_cov(network, few),
            "naswot": proxies.naswot(network, few),
        }
        network.to(torch_device(self.device))
        train(network, data.train, self.recipe, self.seed)
        found = redundancy(network, data.train.images)
        trained = {
            **measures,
            "accuracy": accuracy(network, data.validation),
            "test_accuracy": accuracy(network, data.test) if data.test else None,
            "msrs": found.msrs,
            "layers": found.layers,
            "undefined": found.undefined,
        }
        network.cpu()
        return trained

    def _export(self, network: nn.Module, task: ImageTask, key: str) -> Model:
        from redtest_onnx.search.networks.export import export

        model = export(network, task)
        if self.models is None:
            return model
        return save(model, self.models / f"{crc32(key.encode()):08x}.onnx", force=True)


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
