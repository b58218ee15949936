"""Other weights for single operators."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from nets import Net

import redtest_onnx as rt
from redtest_onnx.graph.validity import full_check
from redtest_onnx.graph.weights import change_operands
from redtest_onnx.runtime.session import RunOptions, Session

CPU = RunOptions("cpu", 1)
X = np.eye(4, dtype=np.float32)


def chain(*weights: str) -> rt.Model:
    net = Net(x=[4, 4])
    stored = {name: net.store(np.full((4, 4), k + 1)) for k, name in enumerate(dict.fromkeys(weights))}
    tensor = "x"
    for k, name in enumerate(weights):
        tensor = net("MatMul", tensor, stored[name], name=f"t{k}")
    return net.model(tensor)


def run(model: rt.Model) -> np.ndarray:
    full_check(model)
    (found,) = Session(model, CPU).run({"x": X}).values()
    return np.asarray(found)


def test_own_weights_are_replaced_in_place() -> None:
    model = chain("a", "b")
    before = model.proto.SerializeToString()
    changed = change_operands(model, {(1, "w1"): 2 * X})
    np.testing.assert_array_equal(run(changed), np.full((4, 4), 2))
    assert len(changed.graph.initializer) == 2
    assert model.proto.SerializeToString() == before


def test_shared_weights_stay_for_their_other_readers() -> None:
    changed = change_operands(chain("a", "a", "a"), {(1, "w0"): 3 * X})
    ones = np.ones((4, 4))
    np.testing.assert_array_equal(run(changed), ones @ (3 * X) @ ones)
    assert len(changed.graph.initializer) == 2


def test_external_weights_move_into_the_file(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(chain("a", "b").proto, path, save_as_external_data=True, location="m.data", size_threshold=0)
    changed = change_operands(rt.load(path), {(0, "w0"): 5 * X})
    np.testing.assert_array_equal(run(changed), np.full((4, 4), 10))
    assert [t.data_location for t in changed.graph.initializer] == [0, 1]
