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
from redtest_onnx.graph.tensors import may_hold

LARGE = 1 << 28
"""Bytes of weights above which no second session is kept open; each session holds the weights once more."""
SPARED = 1 << 26
"""Bytes of weights above which sessions that are kept open are closed before a fit, which needs memory."""
_WIDEST = 16  # bytes of a value: complex numbers in double precision


class SessionHolder(Protocol):
    """Who keeps sessions open for later use."""

    def release_sessions(self) -> None:
        """Let go of them; what is needed later is opened again."""


_HOLDERS: WeakSet[SessionHolder] = WeakSet()


def is_large(model: Model, limit: int | None = None) -> bool:
    """Whether a model's weights take more bytes than `limit`: `LARGE` at most, and if none is given."""
    limit = LARGE if limit is None else min(limit, LARGE)
    if model.path is None:
        if _surely_small(model, limit):
            return False  # as good as all that are made while candidates are tried
        return sum(map(tensor_bytes, stored_tensors(model.proto))) > limit
    try:
        return model.file_bytes > limit
    except OSError:
        return False  # the file is gone, its graph is in memory


def _surely_small(model: Model, limit: int) -> bool:
    """Whether a bound that is found fast says so; protobuf serialises the whole for `ByteSize`."""
    if any(may_hold(node.domain, node.op_type) for node in model.graph.node):
        return False
    values = 0
    for tensor in model.graph.initializer:
        values += prod(tensor.dims)
    return _WIDEST * values <= limit


def register_holder(holder: SessionHolder) -> None:
    """Have a holder asked to let go of its sessions whenever a large model is opened."""
    _HOLDERS.add(holder)


def make_room(model: Model, limit: int | None = None) -> None:
    """Close what is kept open before memory is needed for a large model, such as its session."""
    if is_large(model, limit):
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
