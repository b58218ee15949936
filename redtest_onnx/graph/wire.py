"""Protobuf's wire format, as far as it is written or looked for by hand."""

from __future__ import annotations


def varint(number: int) -> bytes:
    """A number as protobuf writes it."""
    content = bytearray()
    while number > 127:
        content.append(number & 127 | 128)
        number >>= 7
    return bytes([*content, number])
