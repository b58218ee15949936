"""Names and constants that the nodes of a probe share."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

PREFIX = "redtest/"


class Constants:
    """Constants that the reductions of one graph share."""

    def __init__(self) -> None:
        self._nodes: dict[str, onnx.NodeProto] = {}

    def integers(self, values: Iterable[int]) -> str:
        """The name of an int64 vector."""
        array = np.array(list(values), np.int64)
        digest = hashlib.sha256(array.tobytes()).hexdigest()[:16]
        return self._add(f"integers_{digest}", array)

    def scalar(self, value: int) -> str:
        """The name of an int64 scalar."""
        return self._add(f"scalar_{value}", np.array(value, np.int64))

    def zeros(self, shape: tuple[int, ...]) -> str:
        """The name of float32 zeros."""
        return self._add("_".join(("zeros", *map(str, shape))), np.zeros(shape, np.float32))

    def floats(self, values: npt.NDArray[np.float64]) -> str:
        """The name of float32 values."""
        array = values.astype(np.float32)
        digest = hashlib.sha256(array.tobytes()).hexdigest()[:16]
        return self._add("_".join(("floats", *map(str, array.shape), digest)), array)

    def one(self) -> str:
        """The name of a float32 scalar."""
        return self._add("one", np.array(1, np.float32))

    def true(self) -> str:
        """The name of a boolean scalar."""
        return self._add("true", np.array(True))

    def nodes(self) -> list[onnx.NodeProto]:
        """The nodes that make them."""
        return list(self._nodes.values())

    def _add(self, name: str, value: npt.NDArray[np.generic]) -> str:
        full = f"{PREFIX}constant/{name}"
        if full not in self._nodes:
            tensor = onnx.numpy_helper.from_array(value)
            self._nodes[full] = helper.make_node("Constant", [], [full], name=full, value=tensor)
        return full
