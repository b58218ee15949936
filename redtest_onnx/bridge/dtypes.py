"""ONNX element types, NumPy arrays and torch tensors: one table and the conversions between them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
import torch

from redtest_onnx.errors import InputError
from redtest_onnx.graph.model import dtype_name

Type = onnx.TensorProto

TORCH: dict[int, torch.dtype] = {
    Type.FLOAT: torch.float32,
    Type.UINT8: torch.uint8,
    Type.INT8: torch.int8,
    Type.UINT16: torch.uint16,
    Type.INT16: torch.int16,
    Type.INT32: torch.int32,
    Type.INT64: torch.int64,
    Type.BOOL: torch.bool,
    Type.FLOAT16: torch.float16,
    Type.DOUBLE: torch.float64,
    Type.UINT32: torch.uint32,
    Type.UINT64: torch.uint64,
    Type.COMPLEX64: torch.complex64,
    Type.COMPLEX128: torch.complex128,
    Type.BFLOAT16: torch.bfloat16,
}

TRAINABLE: frozenset[int] = frozenset({Type.FLOAT, Type.DOUBLE, Type.FLOAT16, Type.BFLOAT16})
"""Types whose values can be parameters."""


def torch_dtype(code: int) -> torch.dtype:
    """The torch dtype of an ONNX element type.

    Raises:
        InputError: torch computes with no such type.
    """
    if code not in TORCH:
        raise InputError(
            f"values of type {dtype_name(code)} can't be trained in PyTorch",
            hint="fine-tune the model before it is quantised; keep text processing out of it",
        )
    return TORCH[code]


def to_tensor(array: npt.NDArray[np.generic]) -> torch.Tensor:
    """A tensor with its own copy of the values; bfloat16 arrays are those of `ml_dtypes`."""
    array = np.ascontiguousarray(array).reshape(array.shape)
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.uint16).copy()).view(torch.bfloat16)
    return torch.from_numpy(array.copy())


def to_array(tensor: torch.Tensor, code: int) -> npt.NDArray[np.generic]:
    """The values as an array of the ONNX element type `code`, converted where the tensor has another."""
    values = tensor.detach().to("cpu", torch_dtype(code)).contiguous()
    if values.dtype is torch.bfloat16:
        bits = values.view(torch.uint16).numpy()
        return bits.view(onnx.helper.tensor_dtype_to_np_dtype(code))
    array: npt.NDArray[np.generic] = values.numpy()
    return array
