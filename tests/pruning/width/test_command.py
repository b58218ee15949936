"""`prune --width` as a command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import redtest_onnx as rt
from redtest_onnx.cli.main import run
from redtest_onnx.graph.files import save
from redtest_onnx.graph.inner_widths import inner_widths
from redtest_onnx.pruning.apply import apply_plan
from redtest_onnx.pruning.plan import Narrowing, Plan
from redtest_onnx.pruning.repair.distilled import distil_targets
from redtest_onnx.runtime.workbench import Workbench
from tests.nets import Net

CPU = rt.RunOptions(device="cpu", threads=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A chain of convolutions with a shortcut over two of them, and samples."""
    net = Net(image=("n", 3, 6, 6))
    x = net("Relu", net("Conv", "image", net.weight(6, 3, 3, 3), net.weight(6), pads=[1, 1, 1, 1]))
    for _ in range(2):
        y = net("Relu", net("Conv", x, net.weight(8, 6, 3, 3), net.weight(8), pads=[1, 1, 1, 1]))
        y = net("Conv", y, net.weight(6, 8, 3, 3), net.weight(6), pads=[1, 1, 1, 1])
        x = net("Relu", net("Add", x, y))
    flat = net("Flatten", net("GlobalAveragePool", x))
    save(net.model(net("Gemm", flat, net.weight(6, 4), net.weight(4), name="out")), tmp_path / "net.onnx")
    image = np.random.default_rng(0).normal(size=(40, 3, 6, 6)).astype(np.float32)
    np.savez(tmp_path / "data.npz", image=image)
    return tmp_path


def command(folder: Path, *arguments: str) -> int:
    given = ["--data", str(folder / "data.npz"), "--device", "cpu", "--threads", "1", *arguments]
    return run(["prune", str(folder / "net.onnx"), *given])


def test_plans_first_and_writes_later(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan, out, page = folder / "plan.json", folder / "out.onnx", folder / "page.html"
    assert command(folder, "--target", "macs=0.6", "--width", "--dry-run", "--plan", str(plan)) == 0
    assert "channels of 2 inner widths are removed" in capsys.readouterr().out
    picture, document = folder / "heat.png", folder / "result.json"
    files = ("--json", str(document), "--html", str(page), "--png", str(picture))
    assert command(folder, "--plan", str(plan), "-o", str(out), *files) == 0
    found = json.loads(document.read_text())
    assert found["plan"]["widths"] == json.loads(plan.read_text())["widths"]
    assert found["after"]["macs"] <= 0.6 * found["before"]["macs"]
    assert "Removed channels" in page.read_text(encoding="utf-8")
    assert picture.exists()
    assert rt.load(out).outputs == rt.load(folder / "net.onnx").outputs


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--width",), "--width takes channels until a share"),
        (("--width", "--remove", "1"), "--width takes channels until a share"),
        (("--width", "--target", "size=0.5"), "--width takes channels until a share"),
        (("--width", "--target", "macs=0.5", "--max-drop", "0.1"), "--width takes channels until a share"),
        (("--width", "--target", "macs=0.5", "--plan", "plan.json"), "--width is for one round"),
        (("--width", "--target", "macs=0.5", "--finetune", "1", "--iterations", "2"), "--width is for one"),
        (("--width", "--target", "macs=0.5", "--repair", "reinit"), "--width refits what reads"),
        (("--width", "--target", "macs=0.5", "--curve", "series"), "--width"),
    ],
)
def test_wrong_combinations_end_with_one_message(
    folder: Path,
    arguments: tuple[str, ...],
    words: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder)
    assert command(folder, *arguments) == 2
    assert words in " ".join(capsys.readouterr().err.split())
    assert sorted(path.name for path in folder.iterdir()) == ["data.npz", "net.onnx"]


def test_models_without_removable_layers_lose_channels(tmp_path: Path) -> None:
    net = Net(image=("n", 3, 6, 6))
    x = net("Relu", net("Conv", "image", net.weight(8, 3, 3, 3), net.weight(8), pads=[1, 1, 1, 1]))
    x = net("Relu", net("Conv", x, net.weight(4, 8, 3, 3), net.weight(4), pads=[1, 1, 1, 1]))
    flat = net("Flatten", net("GlobalAveragePool", x))
    save(net.model(net("Gemm", flat, net.weight(4, 2), net.weight(2), name="out")), tmp_path / "net.onnx")
    image = np.random.default_rng(0).normal(size=(40, 3, 6, 6)).astype(np.float32)
    np.savez(tmp_path / "data.npz", image=image)
    out = tmp_path / "out.onnx"
    assert command(tmp_path, "--target", "macs=0.7", "--width", "-o", str(out)) == 0
    assert rt.load(out).initializers["w0"].dims[0] < 8


def test_narrower_tensors_are_no_targets_of_a_distillation(folder: Path) -> None:
    """Ends of stages may lie inside of an inner width where layers are plain convolutions."""
    net = Net(image=("n", 3, 6, 6))
    x = net("Relu", net("Conv", "image", net.weight(8, 3, 3, 3), net.weight(8)))
    x = net("MaxPool", net("Relu", net("Conv", x, net.weight(8, 8, 3, 3))), kernel_shape=[2, 2])
    model = net.model(net("Gemm", net("Flatten", x), net.weight(8, 2), net.weight(2), name="out"))
    bench = Workbench(model, rt.open_data(folder / "data.npz", model), CPU)
    widths = inner_widths(model).found
    plan = Plan("half", model.sha256, (), widths=tuple(Narrowing(w.name, 8, (0, 2, 5)) for w in widths))
    narrower = bench.successor(apply_plan(bench, plan))
    inside = {name for width in widths for name in width.tensors}
    targets = {target.name for target in distil_targets(bench, narrower.model)}
    assert targets
    assert targets.isdisjoint(inside)
    assert not {target.name for target in distil_targets(bench, model)}.isdisjoint(inside)
