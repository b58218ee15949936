"""One process, or several that torchrun started."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed, nn

from redtest_onnx.bridge.device import torch_device


@dataclass(frozen=True)
class ProcessGroup:
    """Where this process stands among those that train together.

    Attributes:
        rank: its number; 0 writes files and talks to people.
        world: how many there are.
        device: where it computes.
    """

    rank: int
    world: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module, averaging gradients over all processes."""
        if self.world == 1:
            return module
        ids = [self.device.index] if self.device.type == "cuda" else None
        # A static graph would not have to look for unused weights, but forbids batches in parts.
        return nn.parallel.DistributedDataParallel(module, ids, find_unused_parameters=True)

    def agree(self, value: Any) -> Any:
        """The value that the leading process has."""
        if self.world == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0)
        return box[0]

    def total(self, values: Sequence[float]) -> list[float]:
        """The sums of numbers over all processes."""
        if self.world == 1:
            return list(values)
        sums = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(sums)
        found: list[float] = sums.tolist()
        return found

    def share_buffers(self, module: nn.Module) -> None:
        """Give all processes the running statistics of the leading one, as each training step does."""
        if self.world > 1:
            for buffer in module.buffers():
                if buffer.is_floating_point():
                    distributed.broadcast(buffer, src=0)


@contextmanager
def processes(device: str) -> Iterator[ProcessGroup]:
    """Join the other processes of a torchrun, or stand alone.

    Args:
        device: "auto", "cpu", "cuda", or "cuda:N".

    Raises:
        RuntimeUnavailableError: CUDA was asked for and PyTorch has none.
    """
    chosen = torch_device(device)
    gpu = chosen.type == "cuda"
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield ProcessGroup(0, 1, chosen)
        return
    place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(place)
    # Its functions take the group that exists when it is first imported as a default, and optimizers import
    # it: they would keep the group, and threads that outlive the interpreter abort now and then.
    importlib.import_module("torch.distributed.nn.functional")
    distributed.init_process_group("nccl" if gpu else "gloo")
    try:
        yield ProcessGroup(distributed.get_rank(), distributed.get_world_size(), place)
    finally:
        distributed.destroy_process_group()


def leads() -> bool:
    """Whether this process is the only one or the first of a torchrun, before any has joined."""
    return os.environ.get("RANK", "0") == "0"
