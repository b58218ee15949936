"""Inputs of recurrent models, states, scalars and what all samples share."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from nets import Net
from onnx import TensorProto, helper

import redtest_onnx as rt
from redtest_onnx.graph.denotations import denote_axes
from redtest_onnx.graph.signature import batch_axes, fixed_batch
from redtest_onnx.graph.surgery import Removal, remove_regions
from redtest_onnx.runtime.workbench import Workbench

SILERO = Path(__file__).parents[3] / "shared" / "models" / "wild" / "silero_vad.onnx"


def recurrent(steps: object = "steps", batch: object = "batch", *, layout: str = "plain") -> rt.Model:
    shape = [batch, steps, 8] if layout == "transposed" else [steps, batch, 8]
    net = Net()
    x = net.add_input("x", TensorProto.FLOAT, shape)  # type: ignore[arg-type]
    h = net("Transpose", x, perm=[1, 0, 2]) if layout == "transposed" else net("Relu", x)
    h = net("MatMul", h, net.weight(8, 6))
    for _ in range(2):
        h = net(
            "LSTM", h, net.weight(1, 16, 6 if h.startswith("Mat") else 4), net.weight(1, 16, 4), hidden_size=4
        )
        h = net("Squeeze", h, net.store([1], np.int64))
    return net.model(net("MatMul", h, net.weight(4, 3)))


def two_inputs(*inputs: tuple[str, int, list[object]], output: list[object] | None = None) -> rt.Model:
    values = [helper.make_tensor_value_info(*spec) for spec in inputs]  # type: ignore[arg-type]
    node = helper.make_node("Identity", [inputs[0][0]], ["y"])
    out = helper.make_tensor_value_info("y", inputs[0][1], output)  # type: ignore[arg-type]
    return rt.Model(helper.make_model(helper.make_graph([node], "g", values, [out]), ir_version=8))


@pytest.mark.parametrize(("layout", "axis"), [("plain", 1), ("transposed", 0)])
def test_samples_of_a_recurrent_model(layout: str, axis: int) -> None:
    model = recurrent(layout=layout)
    assert batch_axes(model) == {"x": axis}
    data = rt.open_data(None, model)
    assert data.inputs([0, 1, 2])["x"].shape[axis] == 3
    analysis = rt.analyze(model, data, rt.AnalysisSettings(samples=8, batches=1))
    assert [layer.kind for layer in analysis.layers].count("LSTM") == 2


def test_a_fixed_batch_lies_behind_the_steps() -> None:
    model = recurrent(steps=5, batch=1)
    assert fixed_batch(model) == 1
    data = rt.open_data(None, model)
    seen = Workbench(model, data, rt.RunOptions("cpu")).resolved
    assert {axis for name, axis in seen.batch_axes.items() if name.startswith("Squeeze")} == {1}


def test_samples_of_a_recurrent_model_from_arrays(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((5, 9, 8), np.float32)
    np.savez(tmp_path / "d.npz", x=x)
    data = rt.open_data(tmp_path / "d.npz", recurrent())
    assert len(data) == 9
    np.testing.assert_array_equal(data.inputs([7, 2])["x"], x[:, [7, 2]])


def test_scalars_and_states_from_arrays(tmp_path: Path) -> None:
    if not SILERO.exists():
        pytest.skip("silero is not beside the checkout")
    rng = np.random.default_rng(0)
    arrays = {"input": rng.random((6, 512), np.float32), "state": rng.random((2, 6, 128), np.float32)}
    np.savez(tmp_path / "d.npz", sr=np.array(16000), **arrays)
    feeds = rt.open_data(tmp_path / "d.npz", rt.load(SILERO)).inputs([4, 1])
    assert feeds["sr"] == 16000
    np.testing.assert_array_equal(feeds["state"], arrays["state"][:, [4, 1]])
    np.savez(tmp_path / "d.npz", sr=np.full(6, 16000), **arrays)
    with pytest.raises(rt.InputError, match="all samples share 'sr'"):
        rt.open_data(tmp_path / "d.npz", rt.load(SILERO))


def test_what_has_a_fixed_size_is_shared_where_the_batch_is_open(tmp_path: Path) -> None:
    model = two_inputs(("x", TensorProto.FLOAT, ["n", 2]), ("scale", TensorProto.FLOAT, [1]))
    assert batch_axes(model) == {"x": 0, "scale": None}
    assert rt.open_data(None, model).inputs(range(5))["scale"].shape == (1,)


@pytest.mark.parametrize(
    ("inputs", "output", "zero"),
    [
        ([("state", ["n", 4])], ["n", 4], False),
        ([("state", ["n", 17]), ("action", ["n", 6])], ["n", 1], False),
        ([("state", [2, "n", 8]), ("x", ["n", 6])], [2, "n", 8], True),
        ([("past_key", ["n", 2, 3, 8]), ("x", ["n", 6])], ["n", 1], True),
    ],
)
def test_only_what_comes_back_is_a_state(
    inputs: list[tuple[str, list[object]]], output: list[object], zero: bool
) -> None:
    model = two_inputs(*((name, TensorProto.FLOAT, shape) for name, shape in inputs), output=output)
    assert rt.open_data(None, model).inputs([0])[inputs[0][0]].any() != zero


def test_arrays_that_no_input_takes_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = two_inputs(("x", TensorProto.FLOAT, ["n", 2]))
    np.savez(tmp_path / "d.npz", x=np.zeros((5, 2), np.float32), y=np.zeros(3), labels=np.zeros(5, int))
    with caplog.at_level(logging.WARNING):
        rt.open_data(tmp_path / "d.npz", model)
    assert "'y'" in caplog.text
    assert "labels" not in caplog.text


@pytest.mark.parametrize("compressed", [False, True])
def test_only_what_is_asked_for_is_read(tmp_path: Path, compressed: bool) -> None:
    model = two_inputs(("x", TensorProto.FLOAT, ["n", 2]))
    x = np.random.default_rng(0).random((7, 2))
    write = np.savez_compressed if compressed else np.savez
    write(tmp_path / "d.npz", **{"calibration/x": np.asfortranarray(x), "test/x": x})
    data = rt.open_data(tmp_path / "d.npz", model)
    held = data.arrays["x"].values  # type: ignore[attr-defined]
    assert isinstance(held, np.memmap) != compressed
    feeds = data.inputs([5, 0])["x"]
    assert feeds.dtype == np.float32
    np.testing.assert_array_equal(feeds, x[[5, 0]].astype(np.float32))


@pytest.mark.parametrize("shape", [["steps", "batch", 8], [12, "batch", 8], [5, 1, 8], ["steps", 8]])
def test_samples_are_where_they_were_once_no_recurrent_operator_remains(
    shape: list[object], tmp_path: Path
) -> None:
    """In the file that is written, too: without that, steps are taken for samples."""
    net = Net()
    first = net("MatMul", net.add_input("x", TensorProto.FLOAT, shape), net.weight(8, 8))  # type: ignore[arg-type]
    h = net("Unsqueeze", first, net.store([1], np.int64)) if len(shape) == 2 else first
    h = net("GRU", h, net.weight(1, 24, 8), net.weight(1, 24, 8), hidden_size=8)
    h = net("Squeeze", h, net.store([1, 2] if len(shape) == 2 else [1], np.int64))
    last = net("Add", h, first)
    model = net.model(net("MatMul", last, net.weight(8, 3)))
    known = batch_axes(model)
    assert known["x"] in (1, None)
    pruned = remove_regions(model, [Removal(first, last)])
    assert not [node for node in pruned.graph.node if node.op_type == "GRU"]
    assert pruned.inputs == model.inputs
    rt.save(pruned, tmp_path / "pruned.onnx")
    for again in (pruned, rt.load(tmp_path / "pruned.onnx")):
        assert batch_axes(again) == known
        assert fixed_batch(again) == fixed_batch(model)


@pytest.mark.parametrize(
    ("said", "axis"),
    [
        (["", "DATA_BATCH", ""], 1),
        (["DATA_CHANNEL", "", ""], None),
        (["", "", ""], 0),
        (["N", "T", "C"], 0),
    ],
)
def test_what_a_file_denotes_of_its_axes_is_believed(said: list[str], axis: int | None) -> None:
    model = two_inputs(("x", TensorProto.FLOAT, ["a", "b", 8]))
    for dim, word in zip(model.graph.input[0].type.tensor_type.shape.dim, said, strict=True):
        dim.denotation = word
    assert batch_axes(model) == {"x": axis}


@pytest.mark.parametrize(
    ("axis", "said"),
    [(1, ["T", "DATA_BATCH", "C"]), (None, ["DATA_FEATURE", "N", "C"]), (0, ["T", "N", "C"])],
)
def test_words_of_a_files_own_say_nothing_and_make_room(axis: int | None, said: list[str]) -> None:
    info = two_inputs(("x", TensorProto.FLOAT, ["a", "b", 8])).graph.input[0]
    dims = info.type.tensor_type.shape.dim
    for dim, word in zip(dims, "TNC", strict=True):
        dim.denotation = word
    denote_axes([info], {"x": axis})
    assert [dim.denotation for dim in dims] == said


@pytest.mark.parametrize("kind", ["sequence", "optional"])
def test_inputs_that_are_no_tensors_are_refused_as_what_they_are(kind: str) -> None:
    net = Net(opset=18, x=["n", 4])
    first = net("ConcatFromSequence", "x", axis=0) if kind == "sequence" else net("OptionalGetElement", "x")
    proto = net.model(net("MatMul", first, net.weight(4, 2))).proto
    inside = helper.make_tensor_type_proto(TensorProto.FLOAT, ["n", 4])
    make = helper.make_sequence_type_proto if kind == "sequence" else helper.make_optional_type_proto
    proto.graph.input[0].CopyFrom(helper.make_value_info("x", make(inside)))
    with pytest.raises(rt.InputError, match="'x' is no tensor") as error:
        rt.analyze(rt.Model(proto), options=rt.RunOptions("cpu", 1))
    assert "shapes" not in str(error.value)
