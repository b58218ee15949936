"""Room for the sessions of large models: others that are kept open for later use are closed first."""

from __future__ import annotations

import ctypes
import sys
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import cache
from math import prod
from typing import Any, Protocol
from weakref import WeakSet

from redtest_onnx.graph.model import Model, stored_tensors, tensor_bytes

LARGE = 1 << 28
"""Bytes of weights above which no second session is kept open; each session holds the weights once more."""
_WIDEST = 16  # bytes of a value: complex numbers in double precision
_HOLDING = frozenset({"Constant", "If", "Loop", "Scan"})  # operators that may hold weights themselves


class SessionHolder(Protocol):
    """Who keeps sessions open for later use."""

    def release_sessions(self) -> None:
        """Let go of them; what is needed later is opened again."""


_HOLDERS: WeakSet[SessionHolder] = WeakSet()


def is_large(model: Model) -> bool:
    """Whether a model's weights are so large that two sessions of it may not fit into memory."""
    if model.path is None:
        if _surely_small(model):
            return False  # as good as all that are made while candidates are tried
        return sum(map(tensor_bytes, stored_tensors(model.proto))) > LARGE
    try:
        return model.file_bytes > LARGE
    except OSError:
        return False  # the file is gone, its graph is in memory


def _surely_small(model: Model) -> bool:
    """Whether a bound that is found fast says so; protobuf serialises the whole for `ByteSize`."""
    if any(node.op_type in _HOLDING for node in model.graph.node):
        return False
    values = 0
    for tensor in model.graph.initializer:
        values += prod(tensor.dims)
    return _WIDEST * values <= LARGE


def register_holder(holder: SessionHolder) -> None:
    """Have a holder asked to let go of its sessions whenever a large model is opened."""
    _HOLDERS.add(holder)


def make_room(model: Model) -> None:
    """Close what is kept open, if the session of a large model is to be opened."""
    if is_large(model):
        for holder in tuple(_HOLDERS):
            holder.release_sessions()
        return_memory()


def return_memory() -> None:
    """Give the system back what was freed, which glibc keeps."""
    if (trim := _trimmer()) is not None:
        trim(0)


@cache
def _trimmer() -> Callable[[int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        found: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None  # another C library, which has no such function
    return found


def drop_oldest(kept: OrderedDict[Hashable, Any], limit: int) -> None:
    """Make room for one more where no more than a number are kept."""
    while len(kept) >= limit:
        kept.popitem(last=False)
