"""Reading what is no model, and writing whole files or nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from nets import Net, branch
from onnx import TensorProto, helper, numpy_helper

import redtest_onnx as rt
from redtest_onnx.graph.files import full_check
from redtest_onnx.runtime.session import Session

MODELS = Path(__file__).parents[2] / "models"


def external(folder: Path) -> Path:
    """Two products with weights outside the file."""
    net = Net(x=[2, 4])
    model = net.model(net("MatMul", net("MatMul", "x", net.weight(4, 4)), net.weight(4, 4)))
    path = folder / "big.onnx"
    onnx.save(model.proto, path, save_as_external_data=True, location="big.data", size_threshold=0)
    return path


def edit(path: Path, key: str, value: str) -> None:
    proto = onnx.load(path, load_external_data=False)
    next(e for e in proto.graph.initializer[0].external_data if e.key == key).value = value
    path.write_bytes(proto.SerializeToString())


def content(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b"this is no model, only text\n" * 20, "not an ONNX model"),
        ((MODELS / "vgg_digits.onnx").read_bytes()[:100_000], "cut off"),
        (helper.make_model(helper.make_graph([], "g", [], [])).SerializeToString(), "holds no graph"),
    ],
    ids=["empty", "text", "truncated", "no graph"],
)
def test_what_is_no_model_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "file.onnx"
    path.write_bytes(data)
    with pytest.raises(rt.InputError, match=message) as caught:
        rt.load(path)
    assert caught.value.where == str(path)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("field", "message"), [("output", "no outputs"), ("opset_import", "no operator set")]
)
def test_what_no_stage_can_do_without(tmp_path: Path, field: str, message: str) -> None:
    net = Net(x=[1, 4])
    proto = net.model(net("Relu", "x")).proto
    del getattr(proto.graph if field == "output" else proto, field)[:]
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(rt.InputError, match=message):
        rt.load(tmp_path / "m.onnx")


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(rt.InputError, match="no such file"):
        rt.load(tmp_path / "gone.onnx")
    (tmp_path / "inside.onnx").touch()
    with pytest.raises(rt.InputError, match="is a folder") as caught:
        rt.load(tmp_path)
    assert "inside.onnx" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [("offset", "-4", "too short"), ("length", "8", "too short"), ("offset", "far", "no valid offset")],
)
def test_wrong_ranges_of_external_data(tmp_path: Path, key: str, value: str, message: str) -> None:
    path = external(tmp_path)
    edit(path, key, value)
    with pytest.raises(rt.InputError, match=message):
        rt.load(path)


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    path = external(folder)
    (folder / "big.data").rename(tmp_path / "elsewhere")
    (folder / "big.data").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(rt.InputError, match="outside"):
        rt.load(path)


def test_external_weights_of_a_branch(tmp_path: Path) -> None:
    net = Net(x=[2, 4])
    product = helper.make_node("MatMul", ["x", "inner"], ["then"])
    inner = numpy_helper.from_array(np.eye(4, dtype=np.float32), "inner")
    net(
        "If",
        net.store(True, np.bool_),
        name="y",
        then_branch=branch("then", [product], [inner]),
        else_branch=branch("else", [helper.make_node("Relu", ["x"], ["else"])]),
    )
    path = tmp_path / "if.onnx"
    onnx.save(net.model("y").proto, path, save_as_external_data=True, location="w", size_threshold=0)
    model = rt.load(path)
    full_check(model)
    assert model.external_files == (tmp_path / "w",)
    saved = rt.load(rt.save(model, tmp_path / "copy.onnx").path or "")
    then = next(a.g for a in saved.graph.node[0].attribute if a.name == "then_branch").initializer[0]
    np.testing.assert_array_equal(saved.value(then), np.eye(4))


def test_an_unchanged_model_is_copied_byte_for_byte(tmp_path: Path) -> None:
    net = Net(x=[1, 4])
    whole = net.model(net("Relu", "x")).proto
    opsets = onnx.ModelProto()
    opsets.opset_import.extend(whole.opset_import)
    whole.ClearField("opset_import")
    # The same message with its fields in another order.
    data = opsets.SerializeToString() + whole.SerializeToString()
    (tmp_path / "a.onnx").write_bytes(data)
    saved = rt.save(rt.load(tmp_path / "a.onnx"), tmp_path / "b.onnx")
    assert content(tmp_path) == {"a.onnx": data, "b.onnx": data}
    assert saved.path == tmp_path / "b.onnx"
    assert saved.sha256 == rt.load(tmp_path / "a.onnx").sha256
    assert saved.file_bytes == len(data)


def test_force_overwrites_and_nothing_else_does(tmp_path: Path) -> None:
    model = rt.load(MODELS / "vgg_digits.onnx")
    (tmp_path / "out.onnx").write_bytes(b"old")
    with pytest.raises(rt.OutputError, match="exists already"):
        rt.save(model, tmp_path / "out.onnx")
    assert content(tmp_path) == {"out.onnx": b"old"}
    rt.save(model, tmp_path / "out.onnx", force=True)
    assert content(tmp_path) == {"out.onnx": (MODELS / "vgg_digits.onnx").read_bytes()}


def test_existing_data_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    model = rt.load(external(tmp_path / "source"))
    (tmp_path / "out.onnx.data").write_bytes(b"old")
    with pytest.raises(rt.OutputError, match=r"out\.onnx\.data: the file exists"):
        rt.save(model, tmp_path / "out.onnx")
    assert content(tmp_path) == {"out.onnx.data": b"old"}


@pytest.mark.parametrize("name", ["nowhere/out.onnx", "folder"])
def test_places_where_nothing_can_be_written(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(rt.OutputError):
        rt.save(rt.load(MODELS / "vgg_digits.onnx"), tmp_path / name, force=True)


def test_a_failed_save_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    model = rt.load(external(tmp_path / "source"))
    (tmp_path / "source" / "big.data").unlink()
    with pytest.raises(rt.OutputError, match="can't be written"):
        rt.save(model, tmp_path / "out.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


def test_a_model_with_external_data_can_take_its_own_place(tmp_path: Path) -> None:
    path = external(tmp_path)
    before = rt.load(path)
    values = [before.value(t) for t in before.graph.initializer]
    for _ in range(2):
        rt.save(rt.load(path), path, force=True)
    after = rt.load(path)
    for value, tensor in zip(values, after.graph.initializer, strict=True):
        np.testing.assert_array_equal(after.value(tensor), value)
    assert after.external_files == (tmp_path / "big.onnx.data",)


def test_half_bytes_of_external_data_are_kept(tmp_path: Path) -> None:
    four_bits = helper.make_tensor("w", TensorProto.INT4, [3], bytes([0x21, 0x03]), raw=True)
    net = Net(21, x=[3])
    net.weights.append(four_bits)
    net("Add", "x", net("DequantizeLinear", "w", net.store(1.0)), name="y")
    path = tmp_path / "four.onnx"
    onnx.save(net.model("y").proto, path, save_as_external_data=True, location="four.data", size_threshold=0)
    proto = onnx.load(path, load_external_data=False)
    entries = proto.graph.initializer[0].external_data
    entries.remove(next(e for e in entries if e.key == "length"))
    path.write_bytes(proto.SerializeToString())
    saved = rt.save(rt.load(path), tmp_path / "copy.onnx")
    np.testing.assert_array_equal(saved.value(saved.graph.initializer[0]).astype(int), [1, 2, 3])


def test_full_check_finds_stale_shapes() -> None:
    net = Net(x=[1, 4])
    net("Relu", net("Relu", "x", name="inner"), name="y")
    model = net.model("y")
    full_check(model)
    model.graph.value_info[0].type.tensor_type.shape.dim[1].dim_value = 5
    model = rt.Model(model.proto)  # a model is taken not to change
    with pytest.raises(rt.InputError, match=r"fails onnx\.checker"):
        full_check(model)


def test_external_weights_of_constant_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = np.random.default_rng(0).random((4, 4), np.float32)
    (tmp_path / "w.bin").write_bytes(weight.tobytes())
    tensor = onnx.TensorProto(name="w", data_type=1, dims=[4, 4], data_location=1)
    tensor.external_data.add(key="location", value="w.bin")
    net = Net(x=[2, 4])
    net.nodes.append(helper.make_node("Constant", [], ["w"], value=tensor))
    path = tmp_path / "m.onnx"
    path.write_bytes(net.model(net("MatMul", "x", "w", name="y")).proto.SerializeToString())
    monkeypatch.chdir(Path(__file__).parent)
    model = rt.load(path)
    full_check(model)
    saved = rt.save(model, tmp_path / "copy.onnx")
    x = np.ones((2, 4), np.float32)
    for one in (model, saved):
        np.testing.assert_allclose(Session(one).run({"x": x})["y"], x @ weight, rtol=1e-6)


def test_text_that_is_not_utf8(tmp_path: Path) -> None:
    content = (MODELS / "vit_digits.onnx").read_bytes()
    (tmp_path / "m.onnx").write_bytes(content.replace(b"MatMul", b"Mat\xfful", 1))
    with pytest.raises(rt.InputError, match=r"not UTF-8, in NodeProto\."):
        rt.load(tmp_path / "m.onnx")
