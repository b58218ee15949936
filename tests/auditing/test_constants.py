"""Stored values are seen wherever they are: initializers, Constant nodes, attributes, branches."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import redtest_onnx as rt
from redtest_onnx.auditing.profile_file import load_profile
from redtest_onnx.auditing.rules.weights import channels_lost
from redtest_onnx.auditing.run import Audit, audit
from redtest_onnx.cli.main import run
from redtest_onnx.graph.files import save
from redtest_onnx.runtime.session import RunOptions
from redtest_onnx.runtime.workbench import Workbench
from tests.nets import Net, branch

LOW = float(np.finfo(np.float32).min)


def weights(kind: str) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    found = [(np.eye(64) + rng.normal(size=(64, 64)) * 0.05).astype(np.float32) for _ in range(3)]
    if kind == "nan":
        found[1][3, 4] = np.nan
    if kind == "equal":
        found[2] = found[1].copy()
    if kind == "large":
        found[1] *= 1e6
    if kind == "small":
        found[1] *= 1e-7
    if kind == "channels":
        found[1] *= np.logspace(-4, 2, 64).astype(np.float32)
    return found


def chain(kind: str, *, constants: bool) -> rt.Model:
    net, x = Net(x=["N", 64]), "x"
    for k, value in enumerate(weights(kind)):
        name = f"weight{k}"
        tensor = numpy_helper.from_array(value, name)
        if constants:
            net.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        else:
            net.weights.append(tensor)
        x = net("Tanh", net("MatMul", x, name))
    return net.model(x)


def audited(model: rt.Model) -> Audit:
    bench = Workbench(model, rt.open_data(None, model), RunOptions(threads=1))
    return audit(bench, load_profile("onnxruntime-cpu"), timed=False)


@pytest.mark.parametrize("constants", [False, True])
@pytest.mark.parametrize(
    ("kind", "rule"),
    [("nan", "RT043"), ("equal", "RT042"), ("large", "RT044"), ("small", "RT047"), ("channels", "RT045")],
)
def test_rules_see_weights_in_constants(kind: str, rule: str, constants: bool) -> None:
    found = {finding.rule: finding for finding in audited(chain(kind, constants=constants)).findings}
    assert rule in found
    assert "weight1" in found[rule].tensors
    assert rule not in {finding.rule for finding in audited(chain("none", constants=constants)).findings}


def test_channels_are_those_of_the_outputs() -> None:
    """The columns of a MatMul, not its rows: 38 of 64 are smaller than half a step of the common scale."""
    weight = weights("channels")[1]
    assert channels_lost(weight.T) == 38
    [finding] = [f for f in audited(chain("channels", constants=False)).findings if f.rule == "RT045"]
    assert "38 of 64 channels of weight1" in finding.message


def in_branch() -> rt.Model:
    net = Net(x=["N", 8])
    hidden = net("MatMul", "x", net.weight(8, 8))
    low = [
        helper.make_node("Constant", [], ["low"], value_float=LOW),
        helper.make_node("Add", [hidden, "low"], ["masked"]),
    ]
    plain = [helper.make_node("Identity", [hidden], ["same"])]
    level = net("Greater", net("ReduceMean", hidden, keepdims=0), net.store(0.0))
    net.nodes.append(
        helper.make_node(
            "If", [level], ["r"], name="if", then_branch=branch("a", low), else_branch=branch("b", plain)
        )
    )
    return net.model(net("Softmax", "r", name="y"))


def with_attribute(op: str, opset: int = 17, **attributes: float) -> rt.Model:
    net = Net(opset=opset, x=["N", 8])
    hidden = net("MatMul", "x", net.weight(8, 8))
    operands = [hidden, net.store(np.ones(8))] if op == "LayerNormalization" else [hidden]
    return net.model(net(op, *operands, name="y", **attributes))


def small_epsilon() -> rt.Model:
    net = Net(x=["N", 8])
    hidden = net("MatMul", "x", net.weight(8, 8))
    return net.model(net("Div", hidden, net("Add", net("Abs", hidden), net.store(1e-9)), name="y"))


@pytest.mark.parametrize(
    ("model", "rule"),
    [
        (in_branch(), "RT044"),
        (with_attribute("Clip", 7, max=1e6, min=-1e6), "RT044"),
        (with_attribute("LayerNormalization", epsilon=1e-12), "RT047"),
        (small_epsilon(), "RT047"),
    ],
)
def test_half_precision_and_scattered_constants(model: rt.Model, rule: str) -> None:
    assert rule in {finding.rule for finding in audited(model).findings}


def test_a_usual_epsilon_is_no_finding() -> None:
    model = with_attribute("LayerNormalization", epsilon=1e-5)
    assert "RT047" not in {finding.rule for finding in audited(model).findings}


def test_inputs_of_our_own_that_fail_are_no_finding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net = Net(x=["N", 3, "H", "W"])
    flat = net("Flatten", net.conv("x", 3, 4))  # only 10x10 fits
    save(net.model(net("MatMul", flat, net.weight(400, 8), name="y")), tmp_path / "m.onnx")
    arguments = ["audit", str(tmp_path / "m.onnx"), "--no-latency", "--threads", "1"]
    assert run(arguments) == 2
    shown = capsys.readouterr()
    assert "could not be audited" in shown.err
    assert "RT002" not in shown.out
    assert run([*arguments, "--input-shape", "x:1,3,10,10"]) == 0


def test_fixes_are_commands_that_run(tmp_path: Path) -> None:
    net = Net(x=["N", "T", 8], z=["N", "T", 8])
    hidden = net("Relu", net("MatMul", net("Add", "x", "z"), net.weight(8, 8)))
    path = tmp_path / "a model.onnx"
    save(net.model(net("MatMul", hidden, net.weight(8, 8), name="y")), path)
    [finding] = [finding for finding in audited(rt.load(path)).findings if finding.rule == "RT023"]
    commands = finding.fix.partition("  #")[0].split(" && ")
    assert len(commands) == 2
    for command in commands:
        words = shlex.split(command)
        assert words[0] == "python"
        subprocess.run([sys.executable, *words[1:]], check=True, capture_output=True)
    fixed = onnx.load(tmp_path / "a model.fixed.onnx")
    for value in fixed.graph.input:
        assert all(dim.HasField("dim_value") for dim in value.type.tensor_type.shape.dim)
