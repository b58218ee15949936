"""Reading what is no model, and writing whole files or nothing."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from external_models import edit, external
from nets import Net
from onnx import helper

import redtest_onnx as rt
from redtest_onnx.graph.scratch import note_renames, remove_litter, scratch_folder
from redtest_onnx.graph.validity import full_check
from redtest_onnx.graph.writing import write_atomic

MODELS = Path(__file__).parents[2] / "models"


# Saves argv[1] as argv[2], and is killed before the last renames, or before the old data is removed.
KILLED = """
import os, sys
import redtest_onnx as rt
from redtest_onnx.graph import writing

left, rename = [{}], os.replace

def replace(source, target):
    if not left[0]:
        os.kill(os.getpid(), 9)
    left[0] -= 1
    rename(source, target)

writing.os.replace = replace
writing.Path.unlink = lambda *_, **__: os.kill(os.getpid(), 9)
rt.save(rt.load(sys.argv[1]), sys.argv[2], force=True)
"""


def content(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def same_weights(one: rt.Model, two: rt.Model) -> None:
    for a, b in zip(one.graph.initializer, two.graph.initializer, strict=True):
        np.testing.assert_array_equal(one.value(a), two.value(b))


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
    with pytest.raises(rt.InputError, match=r"inside\.onnx: the file is empty"):
        rt.load(tmp_path)


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


@pytest.mark.parametrize("force", [False, True])
def test_existing_data_is_never_overwritten(tmp_path: Path, force: bool) -> None:
    (tmp_path / "source").mkdir()
    model = rt.load(external(tmp_path / "source"))
    (tmp_path / "out.onnx.data").write_bytes(b"of another model")
    saved = rt.save(model, tmp_path / "out.onnx", force=force)
    assert saved.external_files == (tmp_path / "out.onnx.2.data",)
    assert (tmp_path / "out.onnx.data").read_bytes() == b"of another model"
    assert sorted(content(tmp_path)) == ["out.onnx", "out.onnx.2.data", "out.onnx.data"]


def test_a_model_can_keep_weights_under_the_name_that_its_copy_would_take(tmp_path: Path) -> None:
    path = external(tmp_path)
    (tmp_path / "big.data").rename(tmp_path / "out.onnx.data")
    for k in range(2):
        edit(path, "location", "out.onnx.data", which=k)
    before = content(tmp_path)
    rt.save(rt.load(path), tmp_path / "out.onnx", force=True)
    assert before.items() <= content(tmp_path).items()
    same_weights(rt.load(path), rt.load(tmp_path / "out.onnx"))


def test_old_data_goes_with_the_graph_that_it_belonged_to(tmp_path: Path) -> None:
    model = rt.load(external(tmp_path))
    for name in ("out.onnx.data", "out.onnx.2.data", "out.onnx.data"):
        rt.save(model, tmp_path / "out.onnx", force=True)
        assert sorted(content(tmp_path)) == sorted(["big.onnx", "big.data", "out.onnx", name])
    # A copy of the graph reads the same data: it stays for it.
    (tmp_path / "copy.onnx").write_bytes((tmp_path / "out.onnx").read_bytes())
    rt.save(model, tmp_path / "out.onnx", force=True)
    same_weights(model, rt.load(tmp_path / "copy.onnx"))


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_killed_between_renames(tmp_path: Path, renames: int) -> None:
    """Whatever rename is the last one: the graph that is there reads its own weights, and litter goes."""
    other = external(tmp_path)
    net = Net(x=[2, 4])
    first = net.model(net("MatMul", "x", net.weight(4, 4)))
    onnx.save(
        first.proto, tmp_path / "f.onnx", save_as_external_data=True, location="f.data", size_threshold=0
    )
    old, new = rt.load(tmp_path / "f.onnx"), rt.load(other)
    rt.save(old, tmp_path / "out.onnx")
    arguments = [sys.executable, "-c", KILLED.format(renames), str(other), str(tmp_path / "out.onnx")]
    assert subprocess.run(arguments, check=False).returncode == -signal.SIGKILL
    same_weights(rt.load(tmp_path / "out.onnx"), new if renames == 2 else old)
    litter = [path for path in tmp_path.iterdir() if path.name.startswith(".redtest-")]
    assert len(litter) == 1
    remove_litter(tmp_path)
    same_weights(rt.load(tmp_path / "out.onnx"), new if renames == 2 else old)
    kept = rt.load(tmp_path / "out.onnx").external_files[0].name
    expected = ["big.onnx", "big.data", "f.onnx", "f.data", "out.onnx", kept]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(expected)


def test_what_a_living_process_is_about_to_write_is_no_litter(tmp_path: Path) -> None:
    with scratch_folder(tmp_path) as folder:
        assert remove_litter(tmp_path) == ()
        assert folder.is_dir()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../victim", "victim", "out.onnx.data/../victim", "/etc/passwd"])
def test_a_note_that_somebody_synthetic_removes_nothing_else(tmp_path: Path, name: str) -> None:
    (tmp_path / "victim").write_text("mine")
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "victim").write_text("mine")
    with scratch_folder(folder) as made:
        dead = folder / made.name.replace(f"-{os.getpid()}-", "-999999999-")
    dead.mkdir()
    note_renames(dead, "out.onnx", [name], [name])
    remove_litter(folder)
    assert not dead.exists()
    assert (tmp_path / "victim").exists()
    assert (folder / "victim").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")
def test_streams_get_the_bytes_and_stay_what_they_are(tmp_path: Path) -> None:
    model = rt.load(MODELS / "vgg_digits.onnx")
    rt.save(model, "/dev/null", force=True)
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    rt.save(rt.load(external(tmp_path)), os.devnull)
    with pytest.raises(rt.OutputError, match="weights in files of their own"):
        rt.save(rt.load(tmp_path / "big.onnx"), "/dev/stdout")
    code = "import redtest_onnx as rt, sys; rt.save(rt.load(sys.argv[1]), '/dev/stdout')"
    command = [sys.executable, "-c", code, str(MODELS / "vgg_digits.onnx")]
    written = subprocess.run(command, capture_output=True, check=True).stdout
    assert written == (MODELS / "vgg_digits.onnx").read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")
def test_pipes_and_dangling_links_are_refused(tmp_path: Path) -> None:
    model = rt.load(MODELS / "vgg_digits.onnx")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(rt.OutputError, match="a device, a pipe or a socket"):
        rt.save(model, tmp_path / "pipe", force=True)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(rt.OutputError, match="a link of that name exists already"):
        rt.save(model, tmp_path / "link")
    rt.save(model, tmp_path / "link", force=True)
    assert not (tmp_path / "nowhere").exists()


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    def fill(path: Path) -> None:
        path.write_bytes(b"begun")
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "out").write_text("old")
    with pytest.raises(rt.OutputError, match="the disk is full") as caught:
        write_atomic(tmp_path / "out", fill)
    assert "free some space" in (caught.value.hint or "")
    assert content(tmp_path) == {"out": b"old"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


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
    assert after.external_files == (tmp_path / "big.onnx.2.data",)


def test_full_check_finds_stale_shapes() -> None:
    net = Net(x=[1, 4])
    net("Relu", net("Relu", "x", name="inner"), name="y")
    model = net.model("y")
    full_check(model)
    model = rt.Model(model.proto)  # what was found out of a model is kept with it
    model.graph.value_info[0].type.tensor_type.shape.dim[1].dim_value = 5
    model = rt.Model(model.proto)  # a model is taken not to change
    with pytest.raises(rt.InputError, match=r"fails onnx\.checker"):
        full_check(model)


def test_text_that_is_not_utf8(tmp_path: Path) -> None:
    content = (MODELS / "vit_digits.onnx").read_bytes()
    (tmp_path / "m.onnx").write_bytes(content.replace(b"MatMul", b"Mat\xfful", 1))
    with pytest.raises(rt.InputError, match=r"not UTF-8, in NodeProto\."):
        rt.load(tmp_path / "m.onnx")
