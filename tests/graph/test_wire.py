"""Numbers as protobuf writes them."""

from __future__ import annotations

import onnx
import pytest

from redtest_onnx.graph.wire import varint


@pytest.mark.parametrize("number", [1, 127, 128, 300, (1 << 14) - 1, 1 << 14, (1 << 63) - 1])
def test_numbers_are_written_as_protobuf_does(number: int) -> None:
    assert b"\x08" + varint(number) == onnx.ModelProto(ir_version=number).SerializeToString()
