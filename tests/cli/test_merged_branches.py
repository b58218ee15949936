"""What is said of the branches of merged decoders, and of other branches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nets import Net, branch
from onnx import helper

from redtest_onnx.cli.main import run
from redtest_onnx.graph.files import save
from tests.decoders import merged_decoder


def said(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    small = ["--samples", "8", "--batches", "1", "--threads", "1"]
    assert run(["prune", str(path), "--remove", "1", "--dry-run", *small]) == 0
    return " ".join(capsys.readouterr().out.split())


def test_both_branches_of_a_merged_decoder_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(merged_decoder(2), tmp_path / "model.onnx")
    assert "they go from its other branch, too" in said(tmp_path / "model.onnx", capsys)


def test_a_branch_that_holds_another_network_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net = Net(opset=18, x=["N", 6])
    flag = net.add_input("flag", 9, [])
    net("Relu", net("MatMul", "x", net.weight(6, 6)), name="h")
    nodes = [helper.make_node("Relu", ["h"], ["a0"])]
    for k in range(3):
        nodes.append(helper.make_node("MatMul", [f"a{k}", net.weight(6, 6)], [f"m{k}"]))
        nodes.append(helper.make_node("Tanh", [f"m{k}"], [f"a{k + 1}"]))
    other = [helper.make_node("Neg", ["x"], ["n"])]
    y = net("If", flag, then_branch=branch("then", nodes), else_branch=branch("else", other))
    save(net.model(net("MatMul", y, net.store(np.ones((6, 2))))), tmp_path / "m.onnx")
    assert "its other branch stays" in said(tmp_path / "m.onnx", capsys)
