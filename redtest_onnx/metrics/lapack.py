"""Cholesky's factors and solutions by LAPACK, without the interpreter lock.

SciPy's own functions hold that lock, so that threads would take turns. The same routines of the same library
are called here by the addresses that SciPy gives to compiled code.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any, Literal

import numpy as np

from redtest_onnx.arrays import Float64s

Name = Literal["dpotrf", "dpotrs"]

_LOWER = b"L"


def factored(matrix: Float64s) -> bool:
    """Overwrite a symmetric matrix by its Cholesky factor.

    Args:
        matrix: [p, p], C-contiguous, p at least 1. Only the triangle above its diagonal, by rows, is read and
            overwritten: LAPACK reads by columns.

    Returns:
        Whether it is positive definite; if not, what it holds is of no use.
    """
    return _call("dpotrf", _LOWER, len(matrix), matrix, len(matrix)) == 0


def substitute(factor: Float64s, right: Float64s) -> None:
    """Overwrite right-hand sides by the solutions of a system whose matrix was `factored`.

    Args:
        factor: [p, p].
        right: [q, p], C-contiguous, one right-hand side in each row.
    """
    count, size = right.shape
    if count:
        _call("dpotrs", _LOWER, size, count, factor, size, right, size)


def _call(name: Name, *arguments: bytes | int | Float64s) -> int:
    """Call a routine, which takes all its arguments by address; what it says in the last of them."""
    info = ctypes.c_int()
    passed: list[Any] = []
    for value in arguments:
        if isinstance(value, np.ndarray):
            passed.append(value.ctypes.data_as(ctypes.c_void_p))
        else:
            passed.append(value if isinstance(value, bytes) else ctypes.byref(ctypes.c_int(value)))
    _routine(name, len(passed) + 1)(*passed, ctypes.byref(info))
    return info.value


@cache
def _routine(name: Name, arguments: int) -> Callable[..., None]:
    """A function of LAPACK; while it runs, other threads do, too."""
    from scipy.linalg import cython_lapack

    capsule = cython_lapack.__pyx_capi__[name]
    name_of, address_of = ctypes.pythonapi.PyCapsule_GetName, ctypes.pythonapi.PyCapsule_GetPointer
    name_of.restype, name_of.argtypes = ctypes.c_char_p, [ctypes.py_object]
    address_of.restype, address_of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    address = address_of(capsule, name_of(capsule))
    return ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * arguments)(address)
