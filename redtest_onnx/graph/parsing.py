"""Parse ONNX files in parts, so that a large one is not held in memory twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import onnx

_LARGE = 32 << 20  # bytes of a file; smaller ones are parsed at once
_PART = 4 << 20  # bytes of fields that are parsed together

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_GRAPH = onnx.ModelProto.GRAPH_FIELD_NUMBER
_WEIGHT = onnx.GraphProto.INITIALIZER_FIELD_NUMBER
_NAME, _RAW = onnx.TensorProto.NAME_FIELD_NUMBER, onnx.TensorProto.RAW_DATA_FIELD_NUMBER
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
