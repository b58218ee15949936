"""Parse ONNX files in parts: a large one is not held in memory twice, or its weights are left in the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import onnx

from redtest_onnx.graph.tensors import element_bits, is_external, stored_tensors, tensor_bytes

_LARGE = 32 << 20  # bytes of a file; smaller ones are parsed at once
_PART = 4 << 20  # bytes of fields that are parsed together
_LEAST = 1 << 16  # bytes of a weight that is left in the file; no operator reads so many as a shape

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_GRAPH = onnx.ModelProto.GRAPH_FIELD_NUMBER
_WEIGHT = onnx.GraphProto.INITIALIZER_FIELD_NUMBER
_NAME, _RAW = onnx.TensorProto.NAME_FIELD_NUMBER, onnx.TensorProto.RAW_DATA_FIELD_NUMBER
_OTHER_VALUES = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")
_LONGEST_VARINT = 10


class _OddWireFormatError(Exception):
    """The fields can't be told apart; what is wrong is for the parser of protobuf to say."""


def read_proto(path: Path, *, large: int = _LARGE, part: int = _PART) -> onnx.ModelProto:
    """Parse an ONNX file; external data stays where it is.

    A message is its fields one after the other, and parsing adds to what a message holds. So the fields of a
    large graph, above all its weights, are parsed a few at a time: the memory this takes beyond the model is
    that of its largest weight.

    Args:
        path: the file.
        large: bytes from which on it is parsed in parts.
        part: bytes of fields that are parsed together; one longer field is parsed alone.

    Raises:
        DecodeError: it is no ONNX model.
        OSError: it can't be read.
    """
    proto = onnx.ModelProto()
    size = path.stat().st_size
    if size < max(large, 1):
        proto.ParseFromString(path.read_bytes())
        return proto
    with path.open("rb") as file:
        try:
            for number, field, value in _fields(file, slice(0, size)):
                if number == _GRAPH and value is not None:
                    _merge_in_parts(proto.graph, file, value, part)
                else:
                    proto.MergeFromString(_read(file, field))
        except _OddWireFormatError:
            proto = onnx.ModelProto()
            proto.ParseFromString(path.read_bytes())
    return proto


def read_outline(path: Path, *, least: int = _LEAST) -> onnx.ModelProto | None:
    """Parse an ONNX file, but leave its large weights in it: as external data whose location is the file.

    ONNX Runtime maps such weights into memory, as far as they are read, and once it has packed one in a
    layout of its own, it lets go of it.

    Args:
        path: the file, without links on the way.
        least: bytes from which on a weight is large.

    Returns:
        None where weights lie in other files already, or the fields can't be told apart.

    Raises:
        DecodeError: it is no ONNX model.
        OSError: it can't be read.
    """
    proto, left = onnx.ModelProto(), 0
    with path.open("rb") as file, suppress(_OddWireFormatError, UnicodeError):
        path.name.encode()
        for number, field, value in _fields(file, slice(0, path.stat().st_size)):
            if number == _GRAPH and value is not None:
                left += _merge_outline(proto.graph, file, value, path.name, least)
            else:
                proto.MergeFromString(_read(file, field))
        return proto if sum(map(is_external, stored_tensors(proto))) == left else None
    return None


def _merge_outline(graph: onnx.GraphProto, file: BinaryIO, value: slice, name: str, least: int) -> int:
    """Add the fields of a graph that lie in a range of a file, large weights as references; their number."""
    graph.SetInParent()
    start, left = value.start, 0
    for number, field, inner in _fields(file, value):
        large = number == _WEIGHT and inner is not None and inner.stop - inner.start >= least
        reference = _reference(file, inner, name) if large and inner is not None else None
        if reference is None and field.stop - start <= _PART:
            continue
        graph.MergeFromString(_read(file, slice(start, field.start)))
        start = field.start
        if reference is not None:
            graph.initializer.append(reference)
            start, left = field.stop, left + 1
    graph.MergeFromString(_read(file, slice(start, value.stop)))
    return left


def _reference(file: BinaryIO, message: slice, name: str) -> onnx.TensorProto | None:
    """A weight of a file without its values; None if they are not all that it holds of them, or amiss."""
    values: list[slice] = []
    rest = bytearray()
    for number, field, inner in _fields(file, message):
        if number == _RAW and inner is not None:
            values.append(inner)
        elif field.stop - field.start > _LEAST:
            return None
        else:
            rest += _read(file, field)
    tensor = onnx.TensorProto.FromString(bytes(rest))
    others = any(len(getattr(tensor, field)) for field in _OTHER_VALUES)
    if len(values) != 1 or others or tensor.HasField("data_location") or tensor.HasField("segment"):
        return None
    length = values[0].stop - values[0].start
    known = tensor.data_type in onnx.TensorProto.DataType.values() and min(tensor.dims, default=1) > 0
    if len(tensor.external_data) or not known or not element_bits(tensor.data_type):
        return None
    if length != tensor_bytes(tensor):
        return None
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, entry in (("location", name), ("offset", str(values[0].start)), ("length", str(length))):
        tensor.external_data.add(key=key, value=entry)
    return tensor


def raw_lengths(path: Path, *, large: int = _PART) -> dict[str, int]:
    """Bytes of raw data that a file holds for its large weights by name, read without those data.

    Protobuf copies a field to tell its length. Nothing where fields can't be told apart.

    Args:
        path: a file that was read as a model.
        large: bytes from which on a weight counts.
    """
    found: dict[str, int] = {}
    with path.open("rb") as file, suppress(_OddWireFormatError):
        for graph in _values(file, slice(0, path.stat().st_size), _GRAPH):
            for weight in _values(file, graph, _WEIGHT):
                if weight.stop - weight.start > large:
                    name = b"".join(_read(file, value) for value in _values(file, weight, _NAME))
                    for raw in _values(file, weight, _RAW):
                        found[name.decode("utf-8", "replace")] = raw.stop - raw.start
    return found


def _values(file: BinaryIO, message: slice, number: int) -> Iterator[slice]:
    return (value for found, _, value in _fields(file, message) if found == number and value is not None)


def _merge_in_parts(graph: onnx.GraphProto, file: BinaryIO, value: slice, part: int) -> None:
    """Add the fields of a graph that lie in a range of a file."""
    graph.SetInParent()
    start = value.start
    for _, field, _ in _fields(file, value):
        if field.stop - start > part and field.start > start:
            graph.MergeFromString(_read(file, slice(start, field.start)))
            start = field.start
    graph.MergeFromString(_read(file, slice(start, value.stop)))


def _read(file: BinaryIO, place: slice) -> bytes:
    file.seek(place.start)
    return file.read(place.stop - place.start)


def _fields(file: BinaryIO, message: slice) -> Iterator[tuple[int, slice, slice | None]]:
    """Number, range and, where it has a length, range of the value of each field of a message in a file.

    Raises:
        _OddWireFormatError: the range holds no whole fields.
    """
    start = message.start
    while start < message.stop:
        head = _read(file, slice(start, min(start + 2 * _LONGEST_VARINT, message.stop)))
        key, place = _varint(head, 0)
        kind, value = key & 7, None
        if kind == _VARINT:
            end = start + _varint(head, place)[1]
        elif kind == _BYTES:
            length, place = _varint(head, place)
            end = start + place + length
            value = slice(start + place, end)
        elif kind in (_FIXED32, _FIXED64):
            end = start + place + (4 if kind == _FIXED32 else 8)
        else:
            raise _OddWireFormatError  # groups, which ONNX has none of
        if end > message.stop:
            raise _OddWireFormatError
        yield key >> 3, slice(start, end), value
        start = end


def _varint(content: bytes, start: int) -> tuple[int, int]:
    """An integer of variable length, and where the next byte is."""
    found = 0
    for k, byte in enumerate(content[start : start + _LONGEST_VARINT]):
        found |= (byte & 0x7F) << (7 * k)
        if byte < 0x80:
            return found, start + k + 1
    raise _OddWireFormatError
