"""Values of ONNX Runtime as arrays, without a copy: NumPy on the CPU, CuPy on CUDA."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np

from redtest_onnx.errors import RuntimeUnavailableError
from redtest_onnx.graph.model import first_line
from redtest_onnx.metrics.arrays import Array
from redtest_onnx.runtime.devices import Place
from redtest_onnx.runtime.library import is_out_of_memory, out_of_memory

log = logging.getLogger(__name__)


def array_taker(place: Place) -> Callable[[Any], Array] | None:
    """What makes an array of a device's value without a copy; None where CuPy can't be used.

    The array keeps the value alive. ONNX Runtime before 1.26 offers no DLPack: there, values on the CPU are
    copied, and those on a GPU are read where they lie by their address.
    """
    if place.kind == "cpu":
        return _on_cpu
    cupy = cupy_for(place.index)
    if cupy is None:
        return None

    def take(value: Any) -> Array:
        with cupy.cuda.Device(place.index):
            return cupy.from_dlpack(value) if hasattr(value, "__dlpack__") else _at_address(cupy, value)

    return take


def _on_cpu(value: Any) -> Array:
    return np.from_dlpack(value) if hasattr(value, "__dlpack__") else value.numpy()


def _at_address(cupy: Any, value: Any) -> Array:
    """A CuPy array over a value's memory, which it keeps alive."""
    shape = tuple(value.shape())
    dtype = _NUMPY_TYPES[value.data_type()]
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    memory = cupy.cuda.UnownedMemory(value.data_ptr(), size, value)
    return cupy.ndarray(shape, dtype, cupy.cuda.MemoryPointer(memory, 0))


_NUMPY_TYPES: dict[str, type] = {"tensor(float)": np.float32, "tensor(double)": np.float64}


def synchronise(place: Place) -> None:
    """Wait until CuPy has done with the buffers of the last run, before ONNX Runtime writes to them again.

    The two work on streams of their own; what CuPy has let go of may be read by a kernel that is still
    waiting.
    """
    if place.kind == "cuda" and (cupy := cupy_for(place.index)) is not None:
        with cupy.cuda.Device(place.index):
            cupy.cuda.get_current_stream().synchronize()


@cache
def cupy_for(index: int) -> Any:
    """CuPy, after a small computation on a device; None, with a warning, where it is missing or fails.

    It is tried once, since an old driver or a missing compiler shows at the first kernel only.
    """
    # Read at CuPy's first product: with it, similarities would be wrong in the third digit.
    if os.environ.get("CUPY_TF32", "0") != "0":
        log.info("CUPY_TF32 is switched off: similarities need all digits of float32")
        os.environ["CUPY_TF32"] = "0"
    try:
        import cupy

        cupy.cuda.Device(index).use()
        ones = cupy.ones((4, 4), cupy.float32)
        if float((ones @ ones).sum()) != 64:
            raise RuntimeError("a product came out wrong")
    except Exception as error:  # CuPy raises kinds of its own, the driver's and the compiler's
        log.warning("similarities are computed on the CPU: CuPy can't be used (%s)", first_line(error))
        return None
    return cupy


@contextmanager
def device_errors(where: str) -> Iterator[None]:
    """CuPy's failures as errors that users understand.

    Raises:
        InputError: the device's memory is used up.
        RuntimeUnavailableError: CuPy fails otherwise.
    """
    try:
        yield
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in ("cupy", "cupy_backends"):
            raise
        if is_out_of_memory(error):
            raise out_of_memory(error, where, "the GPU") from error
        raise RuntimeUnavailableError(
            f"CuPy failed: {first_line(error)}",
            where=where,
            hint="update the NVIDIA driver, or install the CuPy that fits its CUDA; or run on the CPU",
        ) from error
