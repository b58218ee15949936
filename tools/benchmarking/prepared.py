"""A job that was written to a folder, as the contenders read it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

Call = Callable[[], Any]
"""Returns the similarity matrix, or nothing where only the network runs."""


@dataclass(frozen=True)
class Prepared:
    """A job in a folder, ready to be measured.

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
