"""Execution providers, asked for by name; OpenVINO is run where onnxruntime-openvino is installed."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest

import redtest_onnx as rt
from redtest_onnx.cli.main import run
from redtest_onnx.runtime.latency import measure_latency
from redtest_onnx.runtime.library import captured_stderr, onnxruntime
from redtest_onnx.runtime.provider_check import check_provider
from redtest_onnx.runtime.providers import Provider, require
from redtest_onnx.runtime.workbench import Workbench

MODELS = Path(__file__).parents[2] / "models"
RESNET, VIT, DATA = MODELS / "resnet_digits.onnx", MODELS / "vit_digits.onnx", MODELS / "digits.npz"
OPENVINO = Provider("openvino", (("device_type", "CPU"),))


def bench(path: Path, *providers: Provider, command: str | None = None) -> Workbench:
    model = rt.load(path)
    options = rt.RunOptions("cpu", 1, providers, command)
    return Workbench(model, rt.open_data(DATA, model), options)


def needs_openvino() -> None:
    if "OpenVINOExecutionProvider" not in onnxruntime().get_available_providers():
        pytest.skip("needs onnxruntime-openvino in place of onnxruntime")


def test_text_of_a_provider() -> None:
    assert Provider.parse("openvino:device_type=CPU,precision=FP32") == Provider(
        "openvino", (("device_type", "CPU"), ("precision", "FP32"))
    )
    assert Provider.parse("mine:library=/a/b.so,x=1") == Provider("mine", (("x", "1"),), "/a/b.so")
    for text in (":a=b", "openvino:device_type", "openvino:=CPU"):
        with pytest.raises(rt.InputError, match="provider is"):
            Provider.parse(text)


def test_a_missing_provider_names_those_that_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(rt.RedtestError, match=r"no provider 'qnnn'; available: .*cpu") as error:
        require([Provider("qnnn")])
    assert error.value.exit_code == 2
    assert run(["prune", str(RESNET), "--provider", "qnnn", "--dry-run"]) == 2
    said = capsys.readouterr().err
    assert "available" in said
    assert "Traceback" not in said


def test_a_missing_plug_in_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(rt.InputError, match="no such file"):
        require([Provider("mine", library=str(tmp_path / "libmine.so"))])
    (tmp_path / "libmine.so").write_bytes(b"no library")
    with pytest.raises(rt.InputError, match="no plug-in that can be loaded"):
        require([Provider("mine", library=str(tmp_path / "libmine.so"))])


def test_the_cpu_takes_everything() -> None:
    report = check_provider(bench(RESNET, Provider("cpu")), timed=False)
    assert report.nodes > 27
    assert report.taken == report.nodes == sum(map(len, report.took.values()))
    assert report.agreement.relative_l2 == 0


@pytest.mark.parametrize("path", [RESNET, VIT, MODELS / "vgg_digits.onnx"], ids=lambda path: path.stem)
def test_openvino_agrees_and_says_what_it_took(path: Path) -> None:
    needs_openvino()
    report = check_provider(bench(path, OPENVINO), seconds=0.2)
    assert report.taken > 0
    assert report.taken == sum(map(len, report.took.values()))
    assert report.taken + sum(map(len, report.left.values())) == report.nodes
    assert report.agreement.relative_l2 < 1e-4
    assert report.latency is not None
    assert report.latency.p50 > 0
    json.dumps(report.to_dict())


def test_a_wrong_option_is_one_message() -> None:
    needs_openvino()
    with pytest.raises(rt.InputError, match="refuses: Invalid OpenVINO EP option: devicetype"):
        bench(VIT, Provider("openvino", (("devicetype", "CPU"),))).session(deployed=True)


@pytest.mark.parametrize("device", ["NPU", "TPU", "GPU.1"])
def test_a_device_that_is_not_there_is_one_message(device: str, capfd: pytest.CaptureFixture[str]) -> None:
    needs_openvino()
    command = ("audit", VIT, "--provider", f"openvino:device_type={device}", "--no-latency")
    assert run([str(part) for part in command]) == 2
    said = capfd.readouterr().err
    assert f"OpenVINO has no device '{device}'; available: CPU" in said
    assert "onnxruntime:Default" not in said


def test_a_group_of_devices_is_openvinos_own() -> None:
    needs_openvino()
    require([Provider("openvino", (("device_type", "AUTO:GPU,CPU"),))])


def test_native_stderr_is_kept_and_given_back(capfd: pytest.CaptureFixture[str]) -> None:
    with captured_stderr() as said:
        os.write(2, b"\x1b[1;31m[E:onnxruntime:Default] no such device\x1b[m\n\n")
    os.write(2, b"after\n")
    assert said == ["[E:onnxruntime:Default] no such device"]
    assert capfd.readouterr().err == "after\n"


def test_prune_and_audit_run_on_openvino(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    needs_openvino()
    few = ("--data", DATA, "--provider", "openvino:device_type=CPU", "--json", "-")
    command = ("prune", RESNET, "--remove", 2, "--repair", "none", "--samples", 16, "-o", tmp_path / "a.onnx")
    assert run([str(part) for part in (*command, *few)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["provider"]["share"] > 0.5
    assert run([str(part) for part in ("audit", RESNET, *few)]) in (0, 1)
    measured = json.loads(capsys.readouterr().out)["measured"]
    assert measured["provider"]["agreement"]["relative_l2"] < 1e-4
    assert run(["audit", str(RESNET), "--provider", "openvino", "--no-latency"]) in (0, 1)
    assert re.search(r"openvino runs \d+ of \d+ nodes and differs from the CPU by", capsys.readouterr().out)


def script(folder: Path, text: str) -> str:
    (folder / "time_it.py").write_text(text)
    return f"{sys.executable} {folder / 'time_it.py'} {{model}}"


def test_a_command_tells_the_latency(tmp_path: Path) -> None:
    command = script(
        tmp_path,
        "import sys, os\nprint('run 7 of', 9)\nprint('mean', os.path.getsize(sys.argv[1]) / 1e6, 'ms')",
    )
    one, two = measure_latency([bench(RESNET, command=command), bench(VIT, command=command)])
    assert one.p50 == pytest.approx(RESNET.stat().st_size / 1e6)
    assert two.p50 == pytest.approx(VIT.stat().st_size / 1e6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("print('no figure')", "prints no number"),
        ("import sys; sys.exit('device not found')", "exit code 1: device not found"),
    ],
)
def test_a_command_that_fails_is_bad_input(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(rt.InputError, match=message):
        measure_latency([bench(RESNET, command=script(tmp_path, text))])


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("adb shell run model", "has no {model}"),
        ("no-such-program {model}", "there is no program 'no-such-program'"),
        ("'{model}", "No closing quotation"),
    ],
)
def test_a_command_that_is_wrong_is_bad_input_before_any_work(command: str, message: str) -> None:
    with pytest.raises(rt.InputError, match=message):
        rt.RunOptions(latency_command=command)
