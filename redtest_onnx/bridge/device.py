"""Where PyTorch computes, and with how many digits where its numbers are compared with others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from redtest_onnx.errors import RuntimeUnavailableError


@contextmanager
def full_float32() -> Iterator[None]:
    """Compute float32 with all its digits.

    On recent NVIDIA GPUs PyTorch multiplies in TF32 by default in convolutions, and where the program asks
    for it in matrix products. It has three digits: two runtimes differ by far less.
    """
    cudnn, matmul = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = cudnn, matmul


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Let PyTorch use so many threads meanwhile; as many as it does for 0."""
    before = torch.get_num_threads()
    if threads:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def torch_device(device: str) -> torch.device:
    """Where PyTorch computes.

    Args:
        device: "auto", "cpu", "cuda", or "cuda:N"; auto is the first GPU that PyTorch finds, or the CPU.

    Raises:
        RuntimeUnavailableError: PyTorch does not find the GPU that was asked for.
    """
    index = int(device.partition(":")[2] or 0)
    found = torch.cuda.device_count() if device != "cpu" and torch.cuda.is_available() else 0
    if device.startswith("cuda") and index >= found:
        raise RuntimeUnavailableError(
            f"{device}: this PyTorch finds {found or 'no'} CUDA device{'s' * (found > 1)}",
            hint="run on the CPU, or install PyTorch for CUDA",
        )
    return torch.device("cuda", index) if found else torch.device("cpu")
