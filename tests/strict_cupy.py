"""A stand-in for CuPy that computes with NumPy and is as strict as CuPy, or stricter.

Arrays of the host are refused in operators, assignments and functions; nothing is converted to the host
without `get`, `item` or `asnumpy`; NumPy's own functions refuse its arrays; reductions give arrays without
axes. It has no names that CuPy lacks: `tests/metrics/test_cupy_names.py` holds that.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

_SCALARS = (bool, int, float, np.generic)

_FUNCTIONS = (
    *(
        "abs",
        "all",
        "any",
        "arange",
        "argmax",
        "argsort",
        "asarray",
        "broadcast_to",
        "concatenate",
        "count_nonzero",
    ),
    *(
        "diagonal",
        "dot",
        "einsum",
        "empty",
        "empty_like",
        "exp",
        "eye",
        "full",
        "full_like",
        "isfinite",
        "isnan",
    ),
    *(
        "linspace",
        "log",
        "matmul",
        "maximum",
        "max",
        "mean",
        "median",
        "min",
        "minimum",
        "moveaxis",
        "multiply",
    ),
    *("nan_to_num", "nanmean", "nansum", "ones", "outer", "partition", "power", "prod", "quantile", "sort"),
    *("sqrt", "square", "stack", "std", "subtract", "sum", "swapaxes", "take", "tanh", "tensordot", "trace"),
    *(
        "transpose",
        "triu_indices",
        "unique",
        "var",
        "vdot",
        "where",
        "zeros",
        "zeros_like",
        "add",
        "sign",
        "clip",
    ),
    *(
        "cumsum",
        "divide",
        "flip",
        "nonzero",
        "squeeze",
        "atleast_1d",
        "repeat",
        "searchsorted",
        "tril",
        "triu",
        "log1p",
        "expm1",
    ),
)
_CONSTANTS = (
    "float16",
    "float32",
    "float64",
    "int32",
    "int64",
    "bool_",
    "finfo",
    "iinfo",
    "result_type",
    "nan",
    "inf",
)
_METHODS = (
    *(
        "all",
        "any",
        "argmax",
        "argsort",
        "astype",
        "copy",
        "diagonal",
        "dot",
        "max",
        "mean",
        "min",
        "nonzero",
    ),
    *("prod", "ravel", "repeat", "reshape", "std", "sum", "swapaxes", "take", "trace", "transpose", "var"),
)
_OPERATORS = (
    *("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor"),
    *("lt", "le", "gt", "ge", "eq", "ne"),
)
_FROM_HOST = frozenset({"asarray", "array"})


def _inner(value: Any, *, index: bool = False) -> Any:
    """What NumPy computes with; TypeError for an array of the host."""
    if isinstance(value, ndarray):
        return value._array
    if isinstance(value, np.ndarray):
        if index:
            return value  # CuPy copies an index to the device
        raise TypeError(f"Unsupported type {type(value)}")
    if isinstance(value, (list, tuple)):
        return type(value)(_inner(item, index=index) for item in value)
    return value


def _outer(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        return ndarray(np.asarray(value))
    if isinstance(value, tuple):
        return tuple(map(_outer, value))
    return value


def _operand(value: Any) -> bool:
    return isinstance(value, (ndarray, *_SCALARS))


class ndarray:  # noqa: N801 - its name in CuPy
    """An array of the device."""

    __module__ = "cupy"
    __array_ufunc__ = None  # NumPy's functions refuse it
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, array: Any, dtype: Any = None, memptr: Any = None) -> None:
        if memptr is not None:  # sizes, type and place of values that lie somewhere already
            raw = (ctypes.c_byte * memptr.size).from_address(memptr.ptr)
            array = np.frombuffer(raw, dtype).reshape(array)
            self._owner = memptr.owner
        self._array = array

    def __array__(self, *arguments: Any, **options: Any) -> np.ndarray:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`.")

    def __array_function__(self, function: Callable[..., Any], *rest: Any) -> Any:
        raise TypeError(f"numpy.{function.__name__} was called with an array of the device")

    def __getitem__(self, key: Any) -> ndarray:
        return ndarray(np.asarray(self._array[_inner(key, index=True)]))

    def __setitem__(self, key: Any, value: Any) -> None:
        if not _operand(value):
            raise TypeError(f"Unsupported type {type(value)}")
        self._array[_inner(key, index=True)] = _inner(value)

    def __len__(self) -> int:
        return len(self._array)

    def __iter__(self) -> Iterator[ndarray]:
        return (self[k] for k in range(len(self)))

    def __float__(self) -> float:
        return float(self._array)

    def __int__(self) -> int:
        return int(self._array)

    def __bool__(self) -> bool:
        return bool(self._array)

    def __index__(self) -> int:
        return self._array.__index__()

    def __neg__(self) -> ndarray:
        return _outer(-self._array)

    def __invert__(self) -> ndarray:
        return _outer(~self._array)

    def __abs__(self) -> ndarray:
        return _outer(abs(self._array))

    shape = property(lambda self: self._array.shape)
    dtype = property(lambda self: self._array.dtype)
    ndim = property(lambda self: self._array.ndim)
    size = property(lambda self: self._array.size)
    nbytes = property(lambda self: self._array.nbytes)
    itemsize = property(lambda self: self._array.itemsize)
    flags = property(lambda self: self._array.flags)
    T = property(lambda self: ndarray(self._array.T))

    def get(self) -> np.ndarray:
        _counts.downloads += 1
        return self._array.copy()

    def item(self) -> Any:
        return self._array.item()


def _method(name: str) -> Callable[..., Any]:
    def method(self: ndarray, *arguments: Any, **options: Any) -> Any:
        given = {key: _inner(value) for key, value in options.items()}
        return _outer(getattr(self._array, name)(*map(_inner, arguments), **given))

    return method


def _operator(name: str) -> Callable[..., Any]:
    def method(self: ndarray, other: Any) -> Any:
        if not _operand(other):
            if isinstance(other, np.ndarray):
                raise TypeError(f"Unsupported type {type(other)}")
            return NotImplemented
        return _outer(
            getattr(self._array, name)(np.asarray(_inner(other)) if "matmul" in name else _inner(other))
        )

    return method


def _in_place(name: str) -> Callable[..., Any]:
    def method(self: ndarray, other: Any) -> ndarray:
        if not _operand(other):
            raise TypeError(f"Unsupported type {type(other)}")
        target = self._array
        getattr(target, name)(_inner(other))
        return self

    return method


for _name in _METHODS:
    setattr(ndarray, _name, _method(_name))
for _name in _OPERATORS:
    setattr(ndarray, f"__{_name}__", _operator(f"__{_name}__"))
    if _name not in ("lt", "le", "gt", "ge", "eq", "ne"):
        setattr(ndarray, f"__r{_name}__", _operator(f"__r{_name}__"))
        setattr(ndarray, f"__i{_name}__", _in_place(f"__i{_name}__"))


def _function(name: str) -> Callable[..., Any]:
    def function(*arguments: Any, **options: Any) -> Any:
        if name in _FROM_HOST and isinstance(arguments[0], np.ndarray):
            _counts.uploads += 1
            return ndarray(np.array(arguments[0], **options))
        if options.get("out") is not None and not isinstance(options["out"], ndarray):
            raise TypeError("out must be an array of the device")
        out = options.get("out")
        given = {key: _inner(value) for key, value in options.items()}
        result = _outer(getattr(np, name)(*map(_inner, arguments), **given))
        return out if out is not None else result

    return function


class _Device:
    def __init__(self, index: int = 0) -> None:
        self.id = index

    def use(self) -> None: ...

    def __enter__(self) -> _Device:
        return self

    def __exit__(self, *error: object) -> None: ...


_counts = SimpleNamespace(uploads=0, downloads=0, values=0)


def _pointer(memory: Any, offset: int) -> Any:
    return memory


def _unowned(pointer: int, size: int, owner: Any) -> Any:
    _counts.values += 1
    return SimpleNamespace(ptr=pointer, size=size, owner=owner)


def module() -> ModuleType:
    """The stand-in under CuPy's name."""
    made = ModuleType("cupy")
    for name in (*_FUNCTIONS, "array"):
        setattr(made, name, _function(name))
    for name in _CONSTANTS:
        setattr(made, name, getattr(np, name))

    def from_dlpack(value: Any) -> ndarray:
        _counts.values += 1
        return ndarray(np.from_dlpack(value))

    def asnumpy(value: Any) -> np.ndarray:
        return value.get() if isinstance(value, ndarray) else np.asarray(value)

    stream = SimpleNamespace(synchronize=lambda: None)
    cuda = SimpleNamespace(
        Device=_Device,
        get_current_stream=lambda: stream,
        UnownedMemory=_unowned,
        MemoryPointer=_pointer,
    )
    vars(made).update(ndarray=ndarray, from_dlpack=from_dlpack, asnumpy=asnumpy, cuda=cuda, counts=_counts)
    return made


@pytest.fixture
def strict_cupy(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Everything runs as on CUDA, with this stand-in for CuPy and ONNX Runtime on the CPU."""
    from redtest_onnx.runtime import device_arrays, devices, session

    made = module()
    vars(_counts).update(uploads=0, downloads=0, values=0)
    monkeypatch.setitem(sys.modules, "cupy", made)
    monkeypatch.setattr(devices, "cuda_problem", lambda index: None)
    monkeypatch.setattr(devices, "CUDA_PROVIDER", "CPUExecutionProvider")
    monkeypatch.setattr(devices, "CUDA_MEMORY", "cpu")
    monkeypatch.setattr(session, "execution_providers", lambda place, **options: ["CPUExecutionProvider"])
    device_arrays.cupy_for.cache_clear()
    yield made
    device_arrays.cupy_for.cache_clear()
