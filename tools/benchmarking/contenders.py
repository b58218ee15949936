"""The contenders: each prepares a model and returns a call that measures all layers on the given inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np

_AT_ONCE = 2 << 30  # bytes of activations

Call = Callable[[], Any]
"""Returns the similarity matrix, or nothing where only the network runs."""


@dataclass(frozen=True)
class Job:
    """What to measure.

    Attributes:
        folder: has model.onnx, weights.pt and inputs.npy.
        network: which of `NETWORKS` it is.
        modules: names of the PyTorch modules to measure.
        tensors: the same layers in the ONNX graph.
        threads: for all.
        device: "cpu" or "cuda".
        folded: whether PyTorch runs the network without batch normalisation, as ONNX Runtime does.
        channels_last: whether PyTorch keeps images with channels last.
        bfloat16: whether PyTorch runs under autocast.
    """

    folder: Path
    network: str
    modules: list[str]
    tensors: list[str]
    threads: int
    device: Literal["cpu", "cuda"]
    folded: bool = False
    channels_last: bool = False
    bfloat16: bool = False

    @property
    def inputs(self) -> np.ndarray:
        """[n, 3, h, w] float32."""
        return np.load(self.folder / "inputs.npy")

    @property
    def options(self) -> Any:
        """How our sessions run."""
        import redtest_onnx as rt

        return rt.RunOptions(self.device, self.threads)

    def torch_network(self) -> Any:
        """The network with its weights, in evaluation mode."""
        import torch

        from benchmarking.networks import NETWORKS, fold

        torch.set_num_threads(self.threads)
        torch.backends.cudnn.allow_tf32 = False  # as in our sessions
        network = NETWORKS[self.network][0]()
        network.load_state_dict(torch.load(self.folder / "weights.pt", weights_only=True))
        network.eval()
        network = (fold(network) if self.folded else network).to(self.device)
        return network.to(memory_format=torch.channels_last) if self.channels_last else network

    def torch_inputs(self) -> Any:
        """The inputs where the network is."""
        import torch

        return torch.from_numpy(self.inputs).to(self.device)


def plain(job: Job) -> Call:
    """ONNX Runtime alone, with everything it can optimise."""
    import redtest_onnx as rt
    from redtest_onnx.runtime.session import Session

    session = Session(rt.load(job.folder / "model.onnx"), job.options)
    feeds = {"x": job.inputs}

    def call() -> None:
        session.run(feeds)

    return call


def plain_small(job: Job) -> Call:
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


def pooled(job: Job) -> Call:
    """Ours, averaged over positions."""
    return _ours(job, "mean")


def flattened(job: Job) -> Call:
    """Ours, all values."""
    return _ours(job, "none")


def pytorch_cka(job: Job) -> Call:
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


def pytorch_cka_folded(job: Job) -> Call:
    """The same for a user who folds batch normalisation first."""
    return pytorch_cka(replace(job, folded=True))


def pytorch_cka_channels_last(job: Job) -> Call:
    """The same for one who keeps channels last, too."""
    return pytorch_cka(replace(job, folded=True, channels_last=True))


def pytorch_cka_bfloat16(job: Job) -> Call:
    """The same for one who lets PyTorch run in bfloat16, with its error."""
    return pytorch_cka(replace(job, folded=True, channels_last=True, bfloat16=True))


def torch_cka(job: Job) -> Call:
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


def keep_all(job: Job) -> Call:
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
                grams.append(_u_centred((flat @ flat.T).double()))
            hsic = torch.stack([torch.stack([(a * b).sum() for b in grams]) for a in grams])
        activations.clear()
        return _normalised(hsic.cpu().numpy())

    return call


def per_pair(job: Job) -> Call:
    """As the reference implementation of RedTest goes: for each pair of layers both Grams and three HSICs."""
    import torch

    network, inputs = job.torch_network(), job.torch_inputs()
    activations = _hooked(network, job.modules)

    def hsic(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        a, b = _u_centred(a @ a.T), _u_centred(b @ b.T)
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


def reference(job: Job) -> Call:
    """Everything behind the network in float64: what the others' errors are measured against."""
    network, inputs = job.torch_network(), job.torch_inputs()
    grams: dict[str, np.ndarray] = {}
    for name in job.modules:
        network.get_submodule(name).register_forward_hook(
            lambda _, __, output, name=name: grams.update({name: _exact_gram(output.cpu().numpy())})
        )

    def call() -> np.ndarray:
        import torch

        with torch.no_grad():
            network(inputs)
        return _exact_cka([grams[name] for name in job.modules])

    return call


def reference_folded(job: Job) -> Call:
    """The same behind a network without batch normalisation, which rounds in other places."""
    return reference(replace(job, folded=True))


def reference_onnx(job: Job) -> Call:
    """The same behind ONNX Runtime, which rounds in yet other places."""
    import redtest_onnx as rt
    from redtest_onnx.graph.probe.taps import expose
    from redtest_onnx.runtime.session import Session
    from redtest_onnx.runtime.workbench import Workbench

    model = rt.load(job.folder / "model.onnx")
    inputs = job.inputs
    data = rt.open_data(job.folder / "inputs.npy", model)
    bench = Workbench(model, data, job.options)
    seen = bench.resolved
    each = [4 * len(inputs) * prod(seen.shapes.sizes[tensor][1:]) for tensor in job.tensors]
    parts = np.cumsum(each) // _AT_ONCE

    def call() -> np.ndarray:
        grams = []
        for part in np.unique(parts):
            names = [name for name, own in zip(job.tensors, parts, strict=True) if own == part]
            found = Session(expose(model, names), job.options).run({"x": inputs})
            grams += [_exact_gram(found.pop(name)) for name in names]
        return _exact_cka(grams)

    return call


CONTENDERS: dict[str, Callable[[Job], Call]] = {
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


def _ours(job: Job, pooling: Any) -> Call:
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
    reader = GramReader(bench, targets, len(data), pooling)
    batches = [np.arange(len(data))]

    def call() -> np.ndarray:
        measured = measure(reader, batches)
        call.metric_share = measured.metric_s / (measured.metric_s + measured.forward_s)  # type: ignore[attr-defined]
        return cka(measured.hsic[0])

    return call


def _batches(job: Job) -> Any:
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    inputs = torch.from_numpy(job.inputs)
    if job.channels_last:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    return DataLoader(TensorDataset(inputs), batch_size=len(inputs))


def _exact_gram(activation: np.ndarray) -> np.ndarray:
    """[n, ...] -> the centred Gram, [n * n] float64."""
    flat = activation.reshape(len(activation), -1)
    gram = np.zeros((len(flat), len(flat)))
    for start in range(0, flat.shape[1], 4096):  # a float64 copy of all would not fit
        part = flat[:, start : start + 4096].astype(np.float64)
        part -= part.mean(0)
        gram += part @ part.T
    return np.asarray(_u_centred(gram)).ravel()


def _exact_cka(grams: list[np.ndarray]) -> np.ndarray:
    stacked = np.stack(grams)
    return _normalised(stacked @ stacked.T)


def _hooked(network: Any, names: list[str]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name in names:
        network.get_submodule(name).register_forward_hook(
            lambda _, __, output, name=name: kept.update({name: output})
        )
    return kept


def _u_centred(gram: Any) -> Any:
    """Of NumPy or PyTorch."""
    n = len(gram)
    diagonal = range(n)
    gram = gram + 0
    gram[diagonal, diagonal] = 0
    rows = gram.sum(0)
    gram -= rows[:, None] / (n - 2)
    gram -= rows[None, :] / (n - 2)
    gram += rows.sum() / ((n - 1) * (n - 2))
    gram[diagonal, diagonal] = 0
    return gram


def _normalised(hsic: np.ndarray) -> np.ndarray:
    scale = np.sqrt(hsic.diagonal())
    return hsic / scale[:, None] / scale
