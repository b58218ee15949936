"""A crash of ONNX Runtime itself is told, where the first run is isolated; all else is as without."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from nets import Net

import redtest_onnx as rt
from redtest_onnx.cli.main import run
from redtest_onnx.runtime.feeds_file import read_feeds, write_feeds

FEW = ["--samples", "8", "--batches", "1", "--threads", "1", "-q"]
RUN = (
    "import sys, numpy, onnxruntime; session = onnxruntime.InferenceSession(sys.argv[1]); "
    "session.run(None, {'x': numpy.ones((1, 4), numpy.float32)})"
)


def overflow() -> onnx.ModelProto:
    """The smallest integer divided by -1, which ONNX Runtime leaves to the processor: x86 traps."""
    net = Net(x=["n", 4])
    h = net("Relu", net("MatMul", "x", net.weight(4, 4)))
    zero = net("Cast", net("Mul", h, net.store([0.0])), to=onnx.TensorProto.INT64)
    lowest = net("Add", zero, net.store([np.iinfo(np.int64).min], np.int64))
    quotient = net("Div", lowest, net("Sub", zero, net.store([1], np.int64)))
    h = net("Add", h, net("Cast", quotient, to=onnx.TensorProto.FLOAT))
    return net.model(net("MatMul", h, net.weight(4, 2), name="y")).proto


@pytest.mark.parametrize(
    "command",
    [["inspect"], ["analyze", "--json", "out.json"], ["audit", "--no-latency", "--json", "out.json"]],
)
def test_a_crash_of_onnx_runtime_is_told(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(overflow(), path)
    monkeypatch.chdir(tmp_path)
    alone = subprocess.run([sys.executable, "-c", RUN, str(path)], capture_output=True, check=False)
    if alone.returncode >= 0:
        pytest.skip("this ONNX Runtime does not crash on the smallest integer divided by -1 here")
    few = FEW if command[0] == "analyze" else []
    assert run([command[0], str(path), "--isolate", *command[1:], *few]) == 2
    message = capsys.readouterr().err
    assert f"{path}: ONNX Runtime crashed in its first run (SIGFPE)" in message
    assert [file.name for file in tmp_path.iterdir()] == ["m.onnx"]


def test_what_is_refused_is_told_as_without(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = Net(x=["n", 4])
    h = net("Relu", net("Reshape", "x", net.store([7, 11], np.int64)))
    onnx.save(net.model(net("MatMul", h, net.weight(11, 2), name="y")).proto, tmp_path / "m.onnx")
    messages = []
    for options in ([], ["--isolate"]):
        assert run(["analyze", str(tmp_path / "m.onnx"), *options, *FEW]) == 2
        messages.append(capsys.readouterr().err)
    assert messages[0] == messages[1]
    assert "error:" in messages[0]


@pytest.mark.parametrize("saved", [True, False])
def test_the_numbers_are_those_without(saved: bool, tmp_path: Path) -> None:
    """Also where sizes are guesses, the first of which doesn't fit, and for models without a file."""
    net = Net(file=["n", "length", 3])
    flat = net("Reshape", "file", net.store([-1, 192], np.int64))
    h = net("Relu", net("MatMul", flat, net.weight(192, 8)))
    h = net("Relu", net("MatMul", h, net.weight(8, 8)))
    model = net.model(net("MatMul", h, net.weight(8, 2), name="y"))
    if saved:
        onnx.save(model.proto, tmp_path / "m.onnx")
        model = rt.load(tmp_path / "m.onnx")
    settings = rt.AnalysisSettings(samples=8, batches=1)
    found = [
        rt.analyze(model, None, settings, rt.RunOptions("cpu", 1, isolate=flag)).similarity
        for flag in (True, False)
    ]
    np.testing.assert_array_equal(*found)


def test_inputs_of_any_name_and_type_reach_the_other_process(tmp_path: Path) -> None:
    feeds = {
        "file": np.arange(6, dtype=np.float32).reshape(2, 3),
        "allow_pickle": np.array([[True]]),
        "names": np.array(["a", "bcd"], object),
        "0": np.ones((), np.float16),
        "../a/b\x1b": np.ones(2, ml_dtypes.bfloat16),
        "": np.empty((0, 4), np.int64),
    }
    write_feeds(tmp_path / "f.npz", feeds)
    found = read_feeds(tmp_path / "f.npz")
    assert list(found) == list(feeds)
    for name, array in feeds.items():
        np.testing.assert_array_equal(found[name], array.astype(found[name].dtype))
    assert [array.dtype.kind for array in found.values()] == ["f", "b", "U", "f", "f", "i"]
    assert [path.name for path in tmp_path.iterdir()] == ["f.npz"]
