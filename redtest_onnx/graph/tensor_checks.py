"""Stored tensors: of a known type, with as many values as the sizes say, in places where they may lie."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from pathlib import Path

import onnx

from redtest_onnx.errors import InputError
from redtest_onnx.graph.model import (
    Model,
    element_bits,
    external_location,
    is_external,
    subgraphs,
    tensor_bytes,
)
from redtest_onnx.graph.parsing import raw_lengths

Tensor = onnx.TensorProto

_EXPORT = "export the model again"
_INSIDE = "save the model as one file: onnx.save(onnx.load(FILE), FILE)"
# Sparse tensors become dense to be computed with. What grows beyond this stores nearly nothing of it.
_LARGEST_DENSE, _LARGEST_GROWTH = 1 << 28, 1000
_LARGE_WEIGHT = 8 << 20  # bytes, which are not copied to be counted


def check_tensor(model: Model, tensor: Tensor) -> None:
    """Check one stored tensor of a model.

    Raises:
        InputError: an element type that this version of onnx does not know, another number of values than the
            sizes say, or external data that is missing, too short or outside the model's folder.
    """
    where = f"{model.label}, tensor {tensor.name!r}"
    check_type(tensor.data_type, where)
    if tensor.data_type == Tensor.UNDEFINED:
        raise InputError("it has no element type", where=where, hint=_EXPORT)
    if tensor.data_location not in Tensor.DataLocation.values():
        raise InputError("its values lie at no place that ONNX knows", where=where, hint=_EXPORT)
    if any(dim < 0 for dim in tensor.dims):
        return  # which the checker of ONNX names
    if is_external(tensor):
        if model.weights_in is None:  # else it was found whole when it was left there
            _check_external(model, tensor, where)
    elif _is_whole(model, tensor):
        return
    elif (found := _length(tensor)) is not None and found[0] != found[1]:
        raise InputError(
            f"its sizes {list(tensor.dims)} take {found[1]} {found[2]}, the file holds {found[0]}",
            where=where,
            hint=_EXPORT,
        )


def check_type(kind: int, where: str) -> None:
    """Check an element type.

    Raises:
        InputError: this version of onnx does not know it.
    """
    if kind not in Tensor.DataType.values():
        raise InputError(
            f"its element type ({kind}) is none that onnx {onnx.__version__} knows",
            where=where,
            hint="update onnx, or export the model with another type",
        )


def check_attributes(model: Model) -> None:
    """Check that no attribute keeps its values in another file, but those of Constant nodes in graphs.

    Where such a place is relative to is not said: onnx's checker takes the working folder.

    Raises:
        InputError: with the node, the attribute and the place.
    """
    _check_attributes(model, model.graph.node, "")
    for function in model.proto.functions:
        _check_attributes(model, function.node, f"local function {function.name!r}, ")


def _check_attributes(model: Model, nodes: Iterable[onnx.NodeProto], inside: str) -> None:
    for node in nodes:
        for attribute in node.attribute:
            sparse = [
                *attribute.sparse_tensors,
                *([attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []),
            ]
            values = [*attribute.tensors, *(part for one in sparse for part in (one.values, one.indices))]
            if attribute.HasField("t") and (inside or node.op_type != "Constant"):
                values.append(attribute.t)
            for tensor in filter(is_external, values):
                raise InputError(
                    f"its attribute {attribute.name!r} keeps its values in another file, "
                    f"{_short(external_location(tensor))}, which only weights and Constant nodes may",
                    where=f"{model.label}, {inside}node {node.name or node.op_type!r} ({node.op_type})",
                    hint=_INSIDE,
                )
        for child in subgraphs([node]):
            _check_attributes(model, child.node, inside)


def check_sparse(model: Model, tensor: onnx.SparseTensorProto) -> None:
    """Check that a sparse tensor lies in the model's own file and does not blow up.

    Raises:
        InputError: it lies elsewhere, or stores nearly nothing of a huge tensor.
    """
    for part in filter(is_external, (tensor.values, tensor.indices)):
        raise InputError(
            f"it keeps its values in another file, {_short(external_location(part))}, which"
            " sparse tensors can't",
            where=f"{model.label}, sparse tensor {tensor.values.name!r}",
            hint=_INSIDE,
        )
    if any(dim < 0 for dim in tensor.dims):
        return
    dense = prod(tensor.dims) * element_bits(tensor.values.data_type) // 8
    if dense > _LARGEST_DENSE and dense > _LARGEST_GROWTH * tensor.ByteSize():
        raise InputError(
            f"its sizes {list(tensor.dims)} would take {dense / 2**30:.1f} GiB for "
            f"{prod(tensor.values.dims)} values that are not zero",
            where=f"{model.label}, sparse tensor {tensor.values.name!r}",
            hint="check its sizes",
        )


def external_range(tensor: Tensor) -> tuple[int, int]:
    """Offset and length in bytes of the values in their file.

    Raises:
        ValueError: an entry is not a number.
    """
    entries = {e.key: e.value for e in tensor.external_data}
    return int(entries.get("offset", 0)), int(entries.get("length", tensor_bytes(tensor)))


def _is_whole(model: Model, tensor: Tensor) -> bool:
    """Whether a large weight is known to have as many bytes as its sizes say."""
    if model.path is None or tensor_bytes(tensor) < _LARGE_WEIGHT:
        return False
    if "raw lengths" not in model.facts:
        model.facts["raw lengths"] = raw_lengths(model.path)
    lengths = model.facts["raw lengths"]
    return isinstance(lengths, dict) and lengths.get(tensor.name) == tensor_bytes(tensor)


def _length(tensor: Tensor) -> tuple[int, int, str] | None:
    """How long the values are, how long they should be, and in what; None where they can't be told."""
    count, kind = prod(tensor.dims), tensor.data_type
    if tensor.HasField("raw_data"):
        # Strings have no raw form; the checker says so.
        return None if kind == Tensor.STRING else (len(tensor.raw_data), tensor_bytes(tensor), "bytes")
    lengths: dict[int, tuple[int, int]] = {
        Tensor.FLOAT: (len(tensor.float_data), count),
        Tensor.DOUBLE: (len(tensor.double_data), count),
        Tensor.INT64: (len(tensor.int64_data), count),
        Tensor.UINT64: (len(tensor.uint64_data), count),
        Tensor.UINT32: (len(tensor.uint64_data), count),
        Tensor.STRING: (len(tensor.string_data), count),
        Tensor.COMPLEX64: (len(tensor.float_data), 2 * count),
        Tensor.COMPLEX128: (len(tensor.double_data), 2 * count),
    }
    # All other types are packed into 32 bits, one value each, or one byte each of smaller ones.
    packed = min(count, tensor_bytes(tensor)) if element_bits(kind) < 8 else count
    return (*lengths.get(kind, (len(tensor.int32_data), packed)), "values")


def _check_external(model: Model, tensor: Tensor, where: str) -> None:
    location = external_location(tensor)
    folder = model.folder.resolve()
    try:
        file = (folder / location).resolve()
        inside, there = file.is_relative_to(folder), file.is_file()
    except (OSError, ValueError, RuntimeError) as error:  # too long, with a NUL, or links in a circle
        raise InputError(
            f"its external data {_short(location)} is no place for a file ({_reason(error)})",
            where=where,
            hint=_EXPORT,
        ) from error
    if not location or not inside:
        raise InputError(
            f"its external data {_short(location)} lies outside the model's folder",
            where=where,
            hint="keep the data file beside the model; paths that leave its folder are refused",
        )
    if not there:
        raise InputError(
            f"its external data file {_short(location)} is missing",
            where=where,
            hint=f"copy {Path(location).name} into {(folder / location).parent}",
        )
    try:
        offset, length = external_range(tensor)
    except ValueError as error:
        raise InputError("its external data has no valid offset and length", where=where) from error
    if length > tensor_bytes(tensor):
        raise InputError(
            f"its sizes {list(tensor.dims)} take {tensor_bytes(tensor)} bytes, its external data {length}",
            where=where,
            hint=_EXPORT,
        )
    if offset < 0 or length < tensor_bytes(tensor) or offset + length > file.stat().st_size:
        raise InputError(
            f"its external data file {_short(location)} is too short",
            where=where,
            hint="copy or export the data file again",
        )


def _short(text: str) -> str:
    return repr(text) if len(text) < 200 else f"{text[:80]!r}... ({len(text)} characters)"


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
