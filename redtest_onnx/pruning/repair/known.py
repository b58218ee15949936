"""What fits of one model on the same samples have in common, kept from one to the next."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

from redtest_onnx.arrays import Values
from redtest_onnx.runtime.session import Session

_SESSIONS = 8  # of single operators; ONNX Runtime keeps the memory of the largest run of each
_SMALL_RUN = 1 << 21  # bytes in and out of a run up to which its session is worth keeping
GOAL_BYTES = 1 << 26
"""Values of the original up to this size are kept for the next fit of a search."""


class KnownValues:
    """What the original computes on some samples, and sessions of operators that are fed their weights.

    Args:
        limit: bytes of the original's values to keep; 0 where no other fit follows on the same samples.
    """

    def __init__(self, limit: int = 0) -> None:
        self._left = limit
        self._values: dict[tuple[str, int], Values] = {}
        self._sessions: OrderedDict[Hashable, Session] = OrderedDict()

    def value(self, tensor: str, run: int) -> Values | None:
        """The original's tensor in one run, if it is kept."""
        return self._values.get((tensor, run))

    def keep(self, tensor: str, run: int, value: Values) -> None:
        """Keep the original's tensor of a run, if there is room for it."""
        if value.nbytes <= self._left and (tensor, run) not in self._values:
            self._values[tensor, run] = value
            self._left -= value.nbytes

    def session(self, key: Hashable, size: int, make: Callable[[], Session]) -> Session:
        """A session without weights of its own, made where none is kept.

        Args:
            key: what it depends on.
            size: bytes in and out of a run.
            make: opens it.
        """
        if size > _SMALL_RUN:
            return make()
        found: Any = self._sessions.get(key)
        if found is None:
            if len(self._sessions) >= _SESSIONS:
                self._sessions.popitem(last=False)
            found = self._sessions[key] = make()
        self._sessions.move_to_end(key)
        assert isinstance(found, Session)
        return found
