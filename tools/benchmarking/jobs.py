"""The jobs of the benchmark: a network, inputs, and the layers to measure, written to a folder."""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
import torch

from benchmarking.networks import NETWORKS, Exposed, build, calls, last_leaf, leaves, measured


@dataclass(frozen=True)
class Job:
    """What is measured.

    Attributes:
        title: how tables call it.
        network: name of the network.
        samples: number of images.
        layers: which layers, as `networks.measured` knows them.
        contenders: who takes part.
        once: those among them that are too slow for a warm-up and repetitions.
    """

    title: str
    network: str
    samples: int
    layers: str
    contenders: tuple[str, ...]
    once: tuple[str, ...] = ()


_FAST = ("plain forward", "plain, less memory", "ours, pooled", "ours, flattened", "pytorch-cka")
_BFLOAT16 = "pytorch-cka, bfloat16"
_FOLDED = ("pytorch-cka, folded", "pytorch-cka, channels last", _BFLOAT16)
_SLOW = ("keep everything", "torch_cka", "per pair")

JOBS: dict[str, Job] = {
    "resnet56-blocks": Job(
        "ResNet56, stem and 27 blocks", "resnet56", 256, "blocks", (*_FAST, *_FOLDED, *_SLOW), _SLOW
    ),
    "resnet56-convs": Job(
        "ResNet56, all convolutions", "resnet56", 256, "convs", (*_FAST, *_FOLDED, *_SLOW[:2]), _SLOW
    ),
    "resnet56-all": Job(
        "ResNet56, everything", "resnet56", 256, "all", (*_FAST, *_FOLDED, *_SLOW[:1]), _SLOW
    ),
    "resnet50-blocks": Job(
        "ResNet50, stem and 16 blocks", "resnet50", 64, "blocks", (*_FAST, *_FOLDED, *_SLOW[:2]), _SLOW
    ),
    "resnet50-activations": Job(
        "ResNet50, all convolutions, ReLU and sums", "resnet50", 64, "activations", (*_FAST, *_FOLDED)
    ),
    "vit-blocks": Job(
        "ViT-B, patches and 12 blocks", "vit_b", 64, "blocks", (*_FAST, _BFLOAT16, *_SLOW[:1]), _SLOW
    ),
    "vit-activations": Job(
        "ViT-B, all linear operators and sums", "vit_b", 64, "activations", (*_FAST, _BFLOAT16)
    ),
    "resnet1202-blocks": Job(
        "ResNet1202, stem and 600 blocks", "resnet1202", 256, "blocks", (*_FAST, *_FOLDED), (*_FAST, *_FOLDED)
    ),
}


_NORMALISED_ON = 32


def write_network(name: str, samples: int, folder: Path) -> None:
    """Export a network; its inner tensors are called like the modules that make them."""
    folder.mkdir(parents=True, exist_ok=True)
    side = NETWORKS[name][1]
    images = _images(np.random.default_rng(0), samples, side)
    np.save(folder / "inputs.npy", images)
    network = build(name, torch.from_numpy(images[:_NORMALISED_ON]))
    torch.save(network.state_dict(), folder / "weights.pt")
    called = calls(network, side)
    parts = leaves(network, called)
    (folder / "calls.json").write_text(json.dumps(called))
    example = torch.zeros(2, 3, side, side)
    path = folder / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter speaks of its own future
        torch.onnx.export(
            Exposed(network, parts),
            (example,),
            path,
            dynamo=False,
            input_names=["x"],
            output_names=parts,
            dynamic_axes={name: {0: "n"} for name in ("x", *parts)},
            opset_version=17,
        )
    model = onnx.load(path)
    del model.graph.output[:-1]
    onnx.save(model, path)


def write_job(job: Job, folder: Path, threads: int, device: str) -> Path:
    """Write what a measuring process needs to know beside the network in `folder`."""
    called = json.loads((folder / "calls.json").read_text())
    network = NETWORKS[job.network][0]()
    modules = measured(network, called, job.layers)
    tensors = [last_leaf(network, called, name) for name in modules]
    path = folder / f"{job.layers}.json"
    names = {"modules": modules, "tensors": tensors}
    path.write_text(json.dumps({**asdict(job), **names, "threads": threads, "device": device}))
    return path


def _images(rng: np.random.Generator, samples: int, side: int) -> np.ndarray:
    """Smooth colour fields with noise: like photographs they have a mean, large areas, and detail."""
    coarse = rng.standard_normal((samples, 3, 4, 4))
    field = np.kron(coarse, np.ones((side // 4, side // 4)))
    return (0.5 + 0.25 * field + 0.1 * rng.standard_normal(field.shape)).astype(np.float32)
