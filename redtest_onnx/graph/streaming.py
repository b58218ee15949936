"""Models as protobuf writes them, in parts: weights that lie in another file are never in memory together.

A message is its fields in the order of their numbers, so that what stands before and behind the large ones
is serialised by protobuf itself, and these are copied from where they lie.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import onnx
from google.protobuf.message import Message

from redtest_onnx.errors import OutputError
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.reading import copy_part, in_parts
from redtest_onnx.graph.reduced import copied_without
from redtest_onnx.graph.tensors import holds_much, is_external, tensor_bytes
from redtest_onnx.graph.wire import varint

Proto = TypeVar("Proto", bound=Message)

_LARGEST = (1 << 31) - 1  # bytes of a message of protobuf
_LENGTH = 2  # the type of a field that tells its length


@dataclass(frozen=True)
class _Stored:
    """A weight's values where they lie: so many bytes of a file, from an offset on."""

    path: Path
    offset: int
    length: int


def serialised_parts(model: Model) -> Iterator[bytes]:
    """The bytes of a model's file, external data aside: those that protobuf makes of the whole.

    Args:
        model: weights of the file in `weights_in` are read from there, a part at a time.

    Raises:
        InputError: that file was changed since it was read.
        OutputError: a file of ONNX can't hold so much.
    """
    for piece in _pieces(model):
        if isinstance(piece, bytes):
            yield piece
            continue
        with piece.path.open("rb") as file:
            file.seek(piece.offset)
            yield from in_parts(file, piece.length)


def write_serialised(model: Model, target: Path) -> None:
    """Write these bytes to a file; what lies in another one is copied, not read.

    Raises:
        InputError: as `serialised_parts`.
        OutputError: likewise.
    """
    with target.open("wb") as sink:
        for piece in _pieces(model):
            if isinstance(piece, bytes):
                sink.write(piece)
                continue
            with piece.path.open("rb") as source:
                copy_part(source, piece.offset, piece.length, sink)


def _pieces(model: Model) -> Iterator[bytes | _Stored]:
    if model.weights_in is None:
        yield model.proto.SerializeToString(deterministic=True)
        return
    model.require_unchanged()
    if (size := serialised_size(model)) > _LARGEST:
        raise OutputError(
            f"would take {size / 1e9:.2f} GB, and one ONNX file holds 2.1 GB at most",
            where=model.label,
            hint="convert it to external data with onnx.save(..., save_as_external_data=True) first",
        )
    whole, graph = _split(model.proto, "graph"), _split(model.graph, "initializer")
    weights = sum(_field(_tensor_size(tensor)) for tensor in model.graph.initializer)
    yield whole[0]
    yield _head(onnx.ModelProto, "graph", len(graph[0]) + weights + len(graph[1])) + graph[0]
    for tensor in model.graph.initializer:
        yield _head(onnx.GraphProto, "initializer", _tensor_size(tensor))
        if not is_external(tensor):
            yield tensor.SerializeToString(deterministic=True)
            continue
        header = _split(_without_place(tensor), "raw_data")
        yield header[0] + _head(onnx.TensorProto, "raw_data", tensor_bytes(tensor))
        yield _stored(model.weights_in, tensor)
        yield header[1]
    yield graph[1]
    yield whole[1]


def serialised_size(model: Model) -> int:
    """Bytes of a model's file, external data aside; large weights are counted without being copied."""
    taken = 0
    light = copied_without(model.proto, {"graph"})
    light.graph.CopyFrom(copied_without(model.graph, {"initializer"}))
    outside = model.weights_in is None
    for tensor in model.graph.initializer:
        if (is_external(tensor) and not outside) or holds_much(tensor):
            taken += _field(_tensor_size(tensor))
        else:
            light.graph.initializer.append(tensor)
    small = light.graph.ByteSize()
    return int(light.ByteSize() - _field(small) + _field(small + taken))


def _tensor_size(tensor: onnx.TensorProto) -> int:
    """Bytes of a weight as a message of the model's own file."""
    if not is_external(tensor) and not holds_much(tensor):
        return int(tensor.ByteSize())
    rest = _without_place(tensor) if is_external(tensor) else copied_without(tensor, {"raw_data"})
    return int(rest.ByteSize()) + _field(tensor_bytes(tensor))


def _without_place(tensor: onnx.TensorProto) -> onnx.TensorProto:
    rest = onnx.TensorProto()
    rest.CopyFrom(tensor)
    rest.ClearField("external_data")
    rest.ClearField("data_location")
    return rest


def _stored(path: Path, tensor: onnx.TensorProto) -> _Stored:
    start = int(next(entry.value for entry in tensor.external_data if entry.key == "offset"))
    return _Stored(path, start, tensor_bytes(tensor))


def _split(message: Proto, field: str) -> tuple[bytes, bytes]:
    """A message without a field: what protobuf writes before it, and behind it."""
    numbers = {name: found.number for name, found in message.DESCRIPTOR.fields_by_name.items()}
    behind = type(message)()
    behind.CopyFrom(message)  # with fields that this version of onnx does not know, which come last
    for name, number in numbers.items():
        if number <= numbers[field]:
            behind.ClearField(name)
    before = copied_without(message, {name for name, number in numbers.items() if number >= numbers[field]})
    return before.SerializeToString(deterministic=True), behind.SerializeToString(deterministic=True)


def _head(kind: type[Message], field: str, size: int) -> bytes:
    """Number and length of a field of so many bytes."""
    return varint(kind.DESCRIPTOR.fields_by_name[field].number << 3 | _LENGTH) + varint(size)


def _field(size: int) -> int:
    """Bytes of a field that holds so many: its number, their count and themselves."""
    return 1 + len(varint(size)) + size
