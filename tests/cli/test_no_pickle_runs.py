"""Files that may hold pickles are read without running any."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from nets import Net

from redtest_onnx.cli.main import run

torch = pytest.importorskip("torch")

FEW = ["--epochs", "1", "--threads", "1", "-q", "--force"]


class Trap:
    """What unpickles this makes a folder."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.trace),)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    net = Net(x=["n", 4])
    h = net("Relu", net("MatMul", "x", net.weight(4, 4)))
    onnx.save(net.model(net("MatMul", h, net.weight(4, 2), name="y")).proto, tmp_path / "m.onnx")
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "d.npz", x=rng.random((24, 4), np.float32), labels=rng.integers(0, 2, 24))
    return tmp_path


def trap(folder: Path, name: str) -> None:
    torch.save({"state": Trap(folder / "trace")}, folder / name)


def test_the_trap_works(folder: Path) -> None:
    trap(folder, "c")
    torch.load(folder / "c", weights_only=False)
    assert (folder / "trace").exists()


def test_no_checkpoint_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trap(folder, "c")
    command = ["finetune", str(folder / "m.onnx"), "--data", str(folder / "d.npz"), *FEW, "--resume"]
    assert run([*command, "-o", str(folder / "o.onnx"), "--checkpoint", str(folder / "c")]) == 2
    assert "is not a checkpoint of this version" in capsys.readouterr().err
    assert not (folder / "trace").exists()


def test_no_kept_iteration_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["sparsity", str(folder / "m.onnx"), "--data", str(folder / "d.npz"), "--method", "lottery"]
    command += ["--iterations", "1", "--checkpoints", str(folder / "k"), "-o", str(folder / "o.onnx"), *FEW]
    assert run(command) in (0, 1)
    capsys.readouterr()
    trap(folder, "k/iteration-000.pt")
    assert run(command) == 2
    assert "iteration-000.pt: is not a checkpoint of this version" in capsys.readouterr().err
    assert not (folder / "trace").exists()


@pytest.mark.parametrize("name", ["d.npz", "d.npy"])
def test_no_array_runs(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    array = np.array([Trap(folder / "trace")] * 8, object)
    if name == "d.npz":
        np.savez(folder / name, x=array)
    else:
        np.save(folder / name, array)
    assert run(["analyze", str(folder / "m.onnx"), "--data", str(folder / name), "-q"]) == 2
    assert "error:" in capsys.readouterr().err
    assert not (folder / "trace").exists()
