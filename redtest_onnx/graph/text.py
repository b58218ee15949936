"""Text in protos that is none: fields whose bytes are not UTF-8."""

from __future__ import annotations

from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

_TEXT, _MESSAGE = FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_MESSAGE


def broken_text(message: Message) -> str | None:
    """The first text field whose bytes are not UTF-8, such as `NodeProto.name`; None if all are.

    The protobuf library hands those out as bytes, at which every later stage would stumble.
    """
    stack: list[Message] = [message]
    while stack:
        current = stack.pop()
        for field in _texts_and_messages(current.DESCRIPTOR):
            value: Any = getattr(current, field.name)
            if field.type == _MESSAGE:
                if field.is_repeated:
                    stack.extend(value)
                elif current.HasField(field.name):
                    stack.append(value)
            elif not all(isinstance(item, str) for item in (value if field.is_repeated else (value,))):
                return str(field.full_name).removeprefix("onnx.")
    return None


@cache
def _texts_and_messages(descriptor: Descriptor) -> tuple[FieldDescriptor, ...]:
    """The fields that are looked at; values of weights are never copied out."""
    return tuple(field for field in descriptor.fields if field.type in (_TEXT, _MESSAGE))
