"""Similarities in float64 behind a forward pass: what the errors of contenders are measured against."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from benchmarking.prepared import Call, Prepared

_AT_ONCE = 2 << 30  # bytes of activations


def reference(job: Prepared) -> Call:
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


def reference_folded(job: Prepared) -> Call:
    """The same behind a network without batch normalisation, which rounds in other places."""
    return reference(replace(job, folded=True))


def reference_onnx(job: Prepared) -> Call:
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


def u_centred(gram: Any) -> Any:
    """The Gram [n, n] of NumPy or PyTorch, centred for the unbiased estimate."""
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


def normalised(hsic: np.ndarray) -> np.ndarray:
    """[L, L] similarities of HSIC between L layers."""
    scale = np.sqrt(hsic.diagonal())
    return hsic / scale[:, None] / scale


def _exact_gram(activation: np.ndarray) -> np.ndarray:
    """[n, ...] -> the centred Gram, [n * n] float64."""
    flat = activation.reshape(len(activation), -1)
    gram = np.zeros((len(flat), len(flat)))
    for start in range(0, flat.shape[1], 4096):  # a float64 copy of all would not fit
        part = flat[:, start : start + 4096].astype(np.float64)
        part -= part.mean(0)
        gram += part @ part.T
    return np.asarray(u_centred(gram)).ravel()


def _exact_cka(grams: list[np.ndarray]) -> np.ndarray:
    stacked = np.stack(grams)
    return normalised(stacked @ stacked.T)
