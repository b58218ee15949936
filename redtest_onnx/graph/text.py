"""Text in protos that is none: fields whose bytes are not UTF-8."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

_TEXT, _MESSAGE = FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_MESSAGE


def broken_text(message: Message) -> str | None:
    """The first text field whose bytes are not UTF-8, such as `NodeProto.name`; None if all are.

    The protobuf library hands those out as bytes, at which every later stage would stumble.
    """
    stack: list[Message] = [message]
    while stack:
        for field, value in stack.pop().ListFields():
            values: Any = value if field.is_repeated else (value,)
            if field.type == _MESSAGE:
                stack.extend(values)
            elif field.type == _TEXT and not all(isinstance(item, str) for item in values):
                return str(field.full_name).removeprefix("onnx.")
    return None
