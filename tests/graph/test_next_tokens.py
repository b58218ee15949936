"""Which models predict the next token, told by the graph alone."""

from __future__ import annotations

from typing import get_args

import numpy as np
import onnx
import pytest

import redtest_onnx as rt
from redtest_onnx.graph.next_tokens import decoder_vocabulary, scores_next_tokens
from redtest_onnx.runtime.session import Session
from tests.causal_decoders import WORDS, Hides, causal_decoder
from tests.decoders import encoder, plain_decoder

CAUSAL = ("ranges", "triangle", "trilu")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("hides", get_args(Hides))
def test_decoders_are_told_by_what_their_attention_sees(hides: Hides, packed: bool) -> None:
    model = causal_decoder(hides, positions=12, packed=packed)
    assert decoder_vocabulary(model) == (WORDS if hides in CAUSAL else None)
    assert scores_next_tokens(model) == (hides in CAUSAL)
    # What the graph is said to do is what it does: only a later token changes.
    session = Session(model)
    ids = np.arange(10)[None]
    before = session.run({"input_ids": ids})["logits"]
    after = session.run({"input_ids": np.where(ids == 9, 30, ids)})["logits"]
    assert np.array_equal(before[:, :7], after[:, :7]) == (hides in (*CAUSAL, "window"))
    assert np.array_equal(before[:, :9], after[:, :9]) == (hides in CAUSAL)


def test_outputs_of_undeclared_width_are_as_wide_as_their_matrix() -> None:
    assert scores_next_tokens(causal_decoder(scores="wide"))
    assert scores_next_tokens(causal_decoder(scores=None))
    assert scores_next_tokens(causal_decoder(scores=None, packed=True))


def test_a_head_that_is_handed_on_tells_the_width_too() -> None:
    model = causal_decoder(scores=None)
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    [head] = [node for node in proto.graph.node if node.output[0] == "logits"]
    [stored] = [tensor for tensor in proto.graph.initializer if tensor.name == head.input[1]]
    stored.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(stored).T.copy(), stored.name))
    turned = onnx.helper.make_node("Transpose", [stored.name], ["turned"], perm=[1, 0])
    head.input[1] = "turned"
    proto.graph.node.insert(0, turned)
    assert scores_next_tokens(rt.Model(proto))


def test_other_widths_are_no_scores_of_tokens() -> None:
    assert not scores_next_tokens(causal_decoder(scores=WORDS - 1))
    assert not scores_next_tokens(encoder(1))
    assert scores_next_tokens(plain_decoder(1))  # by its caches


@pytest.mark.parametrize("change", ["one above the diagonal", "one below it", "all one", "used as a weight"])
def test_a_stored_square_that_hides_nothing_is_no_mask(change: str) -> None:
    model = causal_decoder("triangle", positions=12)
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    [stored] = [tensor for tensor in proto.graph.initializer if tensor.name == "square"]
    square = onnx.numpy_helper.to_array(stored).copy()
    if change == "one above the diagonal":
        square[0, 11] = 1
    elif change == "one below it":
        square[11, 0] = 0
    elif change == "all one":
        square[:] = 1
    else:
        node = onnx.helper.make_node("MatMul", ["more", "square"], ["product"])
        widen = onnx.helper.make_node("MatMul", ["sum", "position_table_t"], ["more"])
        table = np.zeros((16, 12), np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(table, "position_table_t"))
        proto.graph.node.extend([widen, node])
    stored.CopyFrom(onnx.numpy_helper.from_array(square, "square"))
    assert decoder_vocabulary(rt.Model(proto)) is None
