"""The contenders: each prepares a model and returns a call that measures all layers on the given inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarking.exact import normalised, reference, reference_folded, reference_onnx, u_centred
from benchmarking.prepared import Call, Prepared


def plain(job: Prepared) -> Call:
    """ONNX Runtime alone, with everything it can optimise."""
    import redtest_onnx as rt
    from redtest_onnx.runtime.session import Session

    session = Session(rt.load(job.folder / "model.onnx"), job.options)
    feeds = {"x": job.inputs}

    def call() -> None:
        session.run(feeds)

    return call


def plain_small(job: Prepared) -> Call:
    """The same without the block of memory that it plans after a first run."""
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.intra_op_num_threads = job.threads
    settings.enable_mem_pattern = False
    session = ort.InferenceSession(job.folder / "model.onnx", settings, providers=["CPUExecutionProvider"])
    feeds = {"x": job.inputs}

    def call() -> None:
        session.run(None, feeds)

    return call


def pooled(job: Prepared) -> Call:
    """Ours, averaged over positions."""
    return _ours(job, "mean")


def flattened(job: Prepared) -> Call:
    """Ours, all values."""
    return _ours(job, "none")


def pytorch_cka(job: Prepared) -> Call:
    """Package pytorch-cka; its matrix has the order of `layers`."""
    import torch
    from cka import compute_cka

    network, batches = job.torch_network(), _batches(job)

    def call() -> np.ndarray:
        with torch.autocast(job.device, torch.bfloat16, enabled=job.bfloat16):
            found = compute_cka(
                network, network, batches, layers=job.modules, device=job.device, progress=False
            )
        return found[0].float().cpu().numpy()

    return call


def pytorch_cka_folded(job: Prepared) -> Call:
    """The same for a user who folds batch normalisation first."""
    return pytorch_cka(replace(job, folded=True))


def pytorch_cka_channels_last(job: Prepared) -> Call:
    """The same for one who keeps channels last, too."""
    return pytorch_cka(replace(job, folded=True, channels_last=True))


def pytorch_cka_bfloat16(job: Prepared) -> Call:
    """The same for one who lets PyTorch run in bfloat16, with its error."""
    return pytorch_cka(replace(job, folded=True, channels_last=True, bfloat16=True))


def torch_cka(job: Prepared) -> Call:
    """Package torch_cka, without the gradients that it would keep; its matrix has the order of execution."""
    import torch
    from torch_cka import CKA

    network, batches = job.torch_network(), _batches(job)
    tool = CKA(network, network, "a", "b", list(job.modules), list(job.modules), device=job.device)

    def call() -> np.ndarray:
        with torch.no_grad():
            tool.compare(batches, batches)
        return tool.export()["CKA"].numpy()

    return call


def keep_all(job: Prepared) -> Call:
    """What most people write: hooks keep every activation, then one Gram a layer and one HSIC a pair."""
    import torch

    network, inputs = job.torch_network(), job.torch_inputs()
    activations = _hooked(network, job.modules)

    def call() -> np.ndarray:
        with torch.no_grad():
            network(inputs)
            grams = []
            for name in job.modules:
                flat = activations[name].flatten(1)
                flat = flat - flat.mean(0)
                grams.append(u_centred((flat @ flat.T).double()))
            hsic = torch.stack([torch.stack([(a * b).sum() for b in grams]) for a in grams])
        activations.clear()
        return normalised(hsic.cpu().numpy())

    return call


def per_pair(job: Prepared) -> Call:
    """As the reference implementation of RedTest goes: for each pair of layers both Grams and three HSICs."""
    import torch

    network, inputs = job.torch_network(), job.torch_inputs()
    activations = _hooked(network, job.modules)

    def hsic(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        a, b = u_centred(a @ a.T), u_centred(b @ b.T)
        return (a * b).sum()

    def call() -> np.ndarray:
        with torch.no_grad():
            network(inputs)
            flat = [activations[name].flatten(1) for name in job.modules]
            matrix = np.eye(len(flat))
            for i, a in enumerate(flat):
                for j in range(i):
                    b = flat[j]
                    value = hsic(a, b) / torch.sqrt(hsic(a, a) * hsic(b, b))
                    matrix[i, j] = matrix[j, i] = float(value)
        activations.clear()
        return matrix

    return call


CONTENDERS: dict[str, Callable[[Prepared], Call]] = {
    "plain forward": plain,
    "plain, less memory": plain_small,
    "ours, pooled": pooled,
    "ours, flattened": flattened,
    "pytorch-cka": pytorch_cka,
    "pytorch-cka, folded": pytorch_cka_folded,
    "pytorch-cka, channels last": pytorch_cka_channels_last,
    "pytorch-cka, bfloat16": pytorch_cka_bfloat16,
    "torch_cka": torch_cka,
    "keep everything": keep_all,
    "per pair": per_pair,
    "reference": reference,
    "reference, folded": reference_folded,
    "reference, ONNX Runtime": reference_onnx,
}
REFERENCES = {
    "ours, flattened": "reference, ONNX Runtime",
    "pytorch-cka, folded": "reference, folded",
    "pytorch-cka, channels last": "reference, folded",
    "pytorch-cka, bfloat16": "reference, folded",
    "pytorch-cka": "reference",
    "torch_cka": "reference",
    "keep everything": "reference",
    "per pair": "reference",
}
"""What the error of a contender is measured against: float64 behind the same forward pass."""
PEERS = (
    *("pytorch-cka", "pytorch-cka, folded", "pytorch-cka, channels last", "pytorch-cka, bfloat16"),
    "torch_cka",
)
ON_CPU_ONLY = ("plain, less memory",)


def _ours(job: Prepared, pooling: Any) -> Call:
    import redtest_onnx as rt
    from redtest_onnx.metrics.cka import cka
    from redtest_onnx.runtime.workbench import Workbench
    from redtest_onnx.similarity.measure import measure
    from redtest_onnx.similarity.reader import GramReader, TapTarget

    model = rt.load(job.folder / "model.onnx")
    data = rt.open_data(job.folder / "inputs.npy", model)
    bench = Workbench(model, data, job.options)
    seen = bench.resolved
    targets = [TapTarget.seen(tensor, seen, False) for tensor in job.tensors]
    batches = [np.arange(len(data))]
    reader = GramReader(bench, targets, batches, pooling)

    def call() -> np.ndarray:
        measured = measure(reader, batches)
        call.metric_share = measured.metric_s / (measured.metric_s + measured.forward_s)  # type: ignore[attr-defined]
        return cka(measured.hsic[0])

    return call


def _batches(job: Prepared) -> Any:
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    inputs = torch.from_numpy(job.inputs)
    if job.channels_last:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    return DataLoader(TensorDataset(inputs), batch_size=len(inputs))


def _hooked(network: Any, names: list[str]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name in names:
        network.get_submodule(name).register_forward_hook(
            lambda _, __, output, name=name: kept.update({name: output})
        )
    return kept
