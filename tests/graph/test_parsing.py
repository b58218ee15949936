"""Files that are parsed in parts are what they are parsed at once; weights that a stage can do without."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import Net
from onnx import TensorProto, helper, numpy_helper

import redtest_onnx as rt
from redtest_onnx.graph.parsing import raw_lengths, read_proto
from redtest_onnx.graph.reduced import with_weights_as_inputs, with_weights_made_in_place
from redtest_onnx.graph.text import broken_text
from redtest_onnx.runtime.workbench import Workbench

ROOT = Path(__file__).parents[2]
FILES = sorted((*(ROOT / "models").glob("*.onnx"), *(ROOT / "tests" / "fixtures").rglob("*.onnx")))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_in_parts_it_is_the_same_model(path: Path) -> None:
    whole = onnx.load(path, load_external_data=False)
    for part in (1, 4096):
        assert read_proto(path, large=0, part=part) == whole


CONTENT = (ROOT / "models" / "vgg_digits.onnx").read_bytes()


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_damage_is_found_as_it_is_at_once(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    damaged = bytearray(CONTENT[: data.draw(st.integers(1, len(CONTENT)))])
    # Lengths and kinds of fields stand at the beginning of the file.
    last = len(damaged) - 1
    place = st.one_of(st.integers(0, min(400, last)), st.integers(0, last))
    for position in data.draw(st.lists(place, max_size=3)):
        damaged[position] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "m.onnx"
    path.write_bytes(damaged)
    found: list[onnx.ModelProto | None] = []
    for large in (0, 1 << 30):
        try:
            found.append(read_proto(path, large=large, part=64))
        except DecodeError:
            found.append(None)
    assert found[0] == found[1]


def test_a_graph_in_two_pieces_is_one(tmp_path: Path) -> None:
    """Protobuf takes a message in pieces, and adds them up."""
    proto = onnx.load(ROOT / "models" / "vgg_digits.onnx")
    nodes, rest = onnx.ModelProto(ir_version=proto.ir_version), onnx.ModelProto()
    nodes.graph.node.extend(proto.graph.node)
    rest.CopyFrom(proto)
    rest.ClearField("ir_version")
    del rest.graph.node[:]
    path = tmp_path / "m.onnx"
    path.write_bytes(nodes.SerializeToString() + rest.SerializeToString())
    assert read_proto(path, large=0) == proto


def large_network(middle: int = 600) -> rt.Model:
    net = Net(x=["N", 600])
    hidden = net("Relu", net("MatMul", "x", net.weight(600, 600)))
    net("MatMul", hidden, net.weight(middle, 500), name="y")
    return net.model("y")


def test_weights_that_are_made_in_place_tell_of_sizes() -> None:
    light = with_weights_made_in_place(large_network())
    assert light.proto.ByteSize() < 10_000
    session = onnxruntime.InferenceSession(light.proto.SerializeToString())
    assert session.run(None, {"x": np.ones((3, 600), np.float32)})[0].shape == (3, 500)
    unfit = with_weights_made_in_place(large_network(700)).proto.SerializeToString()
    with pytest.raises(Exception, match="Incompatible dimensions"):
        onnxruntime.InferenceSession(unfit)


def test_weights_listed_as_inputs_are_made_too() -> None:
    """As in files of IR 3."""
    model = large_network()
    old = onnx.ModelProto()
    old.CopyFrom(model.proto)
    old.ir_version = 3
    old.graph.input.extend(
        helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in model.graph.initializer
    )
    light = with_weights_made_in_place(rt.Model(old))
    session = onnxruntime.InferenceSession(light.proto.SerializeToString())
    assert session.run(None, {"x": np.ones((2, 600), np.float32)})[0].shape == (2, 500)
    assert [spec.name for spec in light.inputs] == ["x"]


@pytest.mark.parametrize("axis", [None, 0, -2, 1])
def test_of_a_table_of_embeddings_one_column_is_made(axis: int | None) -> None:
    """Whose rows are read: so it holds whether an index lies in it."""
    net = Net(ids=["N", "L"])
    net(
        "Gather",
        net.weight(5000, 300),
        net("Cast", "ids", to=TensorProto.INT64),
        name="y",
        **({} if axis is None else {"axis": axis}),
    )
    model = net.model("y")
    light = with_weights_made_in_place(model)
    made = {t.name: list(numpy_helper.to_array(t)) for t in light.graph.initializer}
    assert made["redtest.sizes.0"] == ([5000, 300] if axis == 1 else [5000, 1])
    onnx.checker.check_model(light.proto)
    sessions = [onnxruntime.InferenceSession(one.SerializeToString()) for one in (model.proto, light.proto)]
    ids = np.array([[0, 299, 7], [1, 2, 3]], np.float32)
    whole, column = (session.run(None, {"ids": ids})[0] for session in sessions)
    assert whole.shape == column.shape
    for session in sessions:
        with pytest.raises(Exception, match="out of"):
            session.run(None, {"ids": np.array([[5000]], np.float32)})


def test_a_table_that_something_else_reads_is_made_whole() -> None:
    """The output projection of a language model with tied embeddings, for one."""
    net = Net(ids=["N", "L"])
    table = net.weight(2000, 300)
    hidden = net("Gather", table, net("Cast", "ids", to=TensorProto.INT64), axis=0)
    net("MatMul", hidden, net("Transpose", table, perm=[1, 0]), name="y")
    light = with_weights_made_in_place(net.model("y"))
    session = onnxruntime.InferenceSession(light.proto.SerializeToString())
    assert session.run(None, {"ids": np.zeros((2, 3), np.float32)})[0].shape == (2, 3, 2000)


def test_the_length_of_a_large_weight_is_read_off_the_file(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    proto = large_network().proto
    path.write_bytes(proto.SerializeToString())
    first, second = (t.name for t in proto.graph.initializer)
    assert raw_lengths(path, large=0) == {first: 600 * 600 * 4, second: 600 * 500 * 4}
    assert raw_lengths(path, large=600 * 550 * 4) == {first: 600 * 600 * 4}
    path.write_bytes(b"\x0b" + proto.SerializeToString())  # a group, which ONNX has none of
    assert raw_lengths(path) == {}


@pytest.mark.parametrize("bytes_too_many", [-4, 4])
def test_a_large_weight_of_another_length_is_refused(tmp_path: Path, bytes_too_many: int) -> None:
    net = Net(x=["N", 1500])
    net("MatMul", "x", net.weight(1500, 1500), name="y")
    proto = net.model("y").proto
    tensor = proto.graph.initializer[0]
    tensor.raw_data = (tensor.raw_data + b"\0" * 4)[: len(tensor.raw_data) + bytes_too_many]
    path = tmp_path / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(rt.InputError, match=r"take 9000000 bytes, the file holds"):
        rt.load(path)


def test_small_weights_stay() -> None:
    net = Net(x=["N", 8])
    net("MatMul", "x", net.weight(8, 4), name="y")
    model = net.model("y")
    assert with_weights_made_in_place(model) is model
    assert with_weights_as_inputs(model.proto) is model.proto


def test_sizes_are_settled_without_large_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    real = onnxruntime.InferenceSession

    def session(content: object, *arguments: object, **options: object) -> object:
        made.append(len(content) if isinstance(content, bytes) else 1 << 30)
        return real(content, *arguments, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    net = Net(x=["N", 3, "H", "W"])
    flat = net("Flatten", net("Relu", net.conv("x", 3, 4)))  # 128x128 alone fits the weights behind it
    net("MatMul", flat, net.weight(4 * 128 * 128, 8), name="y")
    model = net.model("y")
    bench = Workbench(model, rt.open_data(None, model))
    assert bench.data.sizes == {}
    assert bench.sample["x"].shape == (1, 3, 128, 128)
    assert made
    assert max(made) < 100_000


def test_the_checker_sees_what_is_wrong_beside_large_weights(tmp_path: Path) -> None:
    proto = large_network().proto
    proto.graph.node[1].attribute.append(helper.make_attribute("alpha", 1.0))
    path = tmp_path / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(rt.InputError, match="not a valid ONNX model"):
        rt.load(path)


def test_a_large_weight_with_values_twice_is_refused(tmp_path: Path) -> None:
    proto = large_network().proto
    proto.graph.initializer[0].float_data.extend([0.0] * 360_000)
    path = tmp_path / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(rt.InputError, match="one and only one"):
        rt.load(path)


def test_large_constants_of_branches_need_not_be_seen() -> None:
    value = numpy_helper.from_array(np.ones((700, 700), np.float32))
    then = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value=value), helper.make_node("MatMul", ["x", "c"], ["t"])],
        "then", [], [helper.make_tensor_value_info("t", TensorProto.FLOAT, [None, 700])],
    )  # fmt: skip
    other = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["e"])],
        "else", [], [helper.make_tensor_value_info("e", TensorProto.FLOAT, [None, 700])],
    )  # fmt: skip
    graph = helper.make_graph(
        [helper.make_node("If", ["b"], ["y"], then_branch=then, else_branch=other)],
        "net",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 700]),
            helper.make_tensor_value_info("b", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 700])],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    checked = with_weights_as_inputs(proto)
    assert checked.ByteSize() < 2_000
    onnx.checker.check_model(checked)


def test_text_that_is_none_is_found_in_every_place() -> None:
    proto = large_network().proto
    assert broken_text(proto) is None
    content = proto.SerializeToString()
    for good in (b"node_y", b"Relu", b"net", b"w1"):
        bad = onnx.ModelProto()
        try:
            bad.ParseFromString(content.replace(good, b"\xff" * len(good)))
        except DecodeError:
            continue  # newer libraries refuse it themselves
        assert broken_text(bad) is not None
