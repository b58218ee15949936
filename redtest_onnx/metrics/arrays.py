"""One code path for NumPy and CuPy: the namespace is found from the array."""

from __future__ import annotations

from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = Any
"""A NumPy or CuPy array. The two share an interface, but no type that a checker could verify."""


def namespace(array: Array) -> ModuleType:
    """The module whose functions work on `array`: numpy or cupy.

    Raises:
        TypeError: the argument is neither a NumPy nor a CuPy array.
    """
    if isinstance(array, np.ndarray | np.generic):
        return np
    if type(array).__module__.partition(".")[0] == "cupy":
        import cupy

        return cupy  # type: ignore[no-any-return]
    raise TypeError(f"expected a NumPy or CuPy array, got {type(array).__name__}")


def to_numpy(array: Array) -> npt.NDArray[Any]:
    """The array in host memory; copied only where it lies on a device."""
    xp = namespace(array)
    return np.asarray(array if xp is np else xp.asnumpy(array))
