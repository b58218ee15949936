"""Each rule finds what is wrong and nothing else; what is said of real models."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from audited_models import (
    CASES,
    CPU,
    MODELS,
    WIDE,
    audited,
    budget,
    embedded,
    finished,
    found,
    plain,
    target,
    weights_listed,
    with_node,
    with_weight,
)
from nets import Net
from onnx import numpy_helper

import redtest_onnx as rt
from redtest_onnx.auditing.profile import Profile
from redtest_onnx.auditing.profile_file import load_profile, shipped
from redtest_onnx.auditing.registry import rules
from redtest_onnx.auditing.rules.weights import int8_decibels
from redtest_onnx.auditing.run import audit
from redtest_onnx.cli.main import run
from redtest_onnx.graph import macs
from redtest_onnx.metrics.pqi import pq_index
from redtest_onnx.runtime.latency import measure_latency
from redtest_onnx.runtime.workbench import Workbench

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "models"
FILES = [file for folder in (ROOT / "tests" / "fixtures", SHARED) for file in sorted(folder.rglob("*.onnx"))]


def test_every_rule_has_a_case_and_a_stable_id() -> None:
    of_providers = {"RT029", "RT030", "RT031"}  # see test_provider_rules
    assert {rule.id for rule in rules()} == set(CASES) | of_providers
    assert all(rule.explanation and rule.fix and rule.name for rule in rules())
    assert len({rule.name for rule in rules()}) == len(rules())


@pytest.mark.parametrize("id_", CASES)
def test_the_rule_finds_what_is_wrong(id_: str, tmp_path: Path) -> None:
    case = CASES[id_]
    options = {"save_as_external_data": True, "size_threshold": 0} if case.external else {}
    result = audited(case.bad(), tmp_path, case.profile, **options)
    assert id_ in found(result)
    # One finding per cause, never one per node.
    causes = [finding.fingerprint for finding in result.findings]
    assert len(causes) == len(set(causes))


@pytest.mark.parametrize("id_", CASES)
def test_the_rule_is_silent_where_nothing_is_wrong(id_: str, tmp_path: Path) -> None:
    case = CASES[id_]
    profile = case.profile if case.good_profile is None else case.good_profile
    assert id_ not in found(audited(case.good(), tmp_path, profile))


def test_a_clean_model_passes_without_a_word(tmp_path: Path) -> None:
    result = audited(plain(), tmp_path, {})
    assert result.passed
    assert not result.findings


def execute(command: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    arguments = shlex.split(command)
    if arguments[0] == "redtest-onnx":
        assert run(arguments[1:]) == 0
    else:
        subprocess.run([sys.executable, *arguments[1:]], check=True, cwd=folder, capture_output=True)


def share_of(name: str, quantity: str, share: float) -> dict[str, Any]:
    model = rt.load(MODELS / f"{name}_digits.onnx")
    result = audit(
        Workbench(model, rt.open_data(None, model), CPU), load_profile("onnxruntime-cpu"), timed=False
    )
    found_ = {
        "file_mb": result.measured["file_bytes"],
        "weights_mb": result.cost.parameter_bytes,
        "macs_m": result.cost.macs,
    }[quantity]
    return budget(**{quantity: share * found_ / 1e6})


@pytest.mark.parametrize("id_", ["RT023", "RT024", "RT050", "RT051", "RT053", "RT056", "RT071"])
def test_a_command_that_is_advised_clears_the_finding(
    id_: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = {
        "RT024": target(fixed_shapes=True),
        "RT050": share_of("resnet", "file_mb", 0.8),
        "RT051": share_of("resnet", "weights_mb", 0.8),
        "RT053": share_of("resnet", "macs_m", 0.8),
        "RT056": budget(memory_mb=0.5),
        "RT071": budget(msrs=60),
    }.get(id_, {})
    (tmp_path / "after").mkdir()
    result = audited(embedded("resnet")(), tmp_path, profile)
    (finding,) = (one for one in result.findings if one.rule == id_)
    execute(finding.fix, tmp_path, monkeypatch)
    changed = next(path for path in tmp_path.glob("model.*.onnx"))
    again = audited(onnx.load(changed), tmp_path / "after", profile)
    assert id_ not in found(again)


def test_advice_names_the_samples_that_were_given() -> None:
    data = MODELS / "digits.npz"
    profile = Profile.model_validate({"name": "small", **budget(file_mb=0.5)})
    result = rt.audit(MODELS / "resnet_digits.onnx", data, profile=profile, timed=False)
    (finding,) = (one for one in result.findings if one.rule == "RT050")
    words = shlex.split(finding.fix)
    assert words[words.index("--data") + 1] == str(data)


def test_weights_are_taken_from_the_inputs_by_the_advised_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = audited(weights_listed(), tmp_path, {})
    (finding,) = (one for one in result.findings if one.rule == "RT083")
    execute(finding.fix, tmp_path, monkeypatch)
    (tmp_path / "after").mkdir()
    again = audited(onnx.load(tmp_path / "model.constant.onnx"), tmp_path / "after", {})
    assert "RT083" not in found(again)


def test_a_reduced_build_for_this_model_has_what_it_needs(tmp_path: Path) -> None:
    audited(with_node("Tanh")(), tmp_path, {})
    config = tmp_path / "own.config"
    arguments = ["audit", str(tmp_path / "model.onnx"), "--no-latency", "--write-operators", str(config)]
    assert run(arguments) == 0
    model = rt.load(tmp_path / "model.onnx")
    profile = Profile.model_validate({"name": "t", "target": {"required_operators": str(config)}})
    again = audit(Workbench(model, rt.open_data(None, model), CPU), profile, timed=False)
    assert "RT028" not in found(again)


def test_the_pq_index_is_that_of_all_weights_together(tmp_path: Path) -> None:
    result = audited(with_weight(WIDE)(), tmp_path, {})
    assert result.measured["pq_index"] == pytest.approx(pq_index(WIDE, 0.5, 1.0))


def test_a_latency_budget_is_met_by_the_advised_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Both audits tell of one measurement: another one differs by what else the machine does.
    model = rt.load(MODELS / "resnet_digits.onnx")
    measured = measure_latency([Workbench(model, rt.open_data(None, model), CPU)])
    monkeypatch.setattr("redtest_onnx.auditing.subject.measure_latency", lambda benches: measured)
    assert "RT054" not in found(audited(embedded("resnet")(), tmp_path, budget(latency_ms=1e6)))
    limit = 0.8 * measured[0].p50
    finding = next(
        one
        for one in audited(embedded("resnet")(), tmp_path, budget(latency_ms=limit)).findings
        if one.rule == "RT054"
    )
    assert "--target latency=0." in finding.fix
    execute(finding.fix, tmp_path, monkeypatch)
    assert len(onnx.load(tmp_path / "model.pruned.onnx").graph.node) < len(embedded("resnet")().graph.node)


def test_budgets_together_are_met_by_one_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = budget(macs_m=1.2, weights_mb=0.5, memory_mb=0.4, msrs=90)
    findings = audited(embedded("resnet")(), tmp_path, limits).findings
    advised = {one.rule: one.fix for one in findings if one.rule in ("RT051", "RT053", "RT056", "RT071")}
    assert len(advised) == 4
    said = {one.rule: one.message for one in findings}
    assert said["RT053"].endswith("million MACs, 1.2 million are allowed")
    assert said["RT051"].startswith("weights of 0.86")
    (command,) = set(advised.values())
    assert "--target params=0.45 --target macs=0.61 -o" in command
    execute(command, tmp_path, monkeypatch)
    pruned = onnx.load(tmp_path / "model.pruned.onnx")
    assert {"RT051", "RT053", "RT056"}.isdisjoint(found(audited(pruned, tmp_path, limits)))


def test_rules_that_are_off_ask_for_nothing(tmp_path: Path) -> None:
    limits = {**budget(macs_m=1.2, weights_mb=0.5), "severities": {"RT051": "off"}}
    findings = audited(embedded("resnet")(), tmp_path, limits).findings
    (fix,) = (one.fix for one in findings if one.rule == "RT053")
    assert "macs=" in fix
    assert "params=" not in fix


@pytest.mark.parametrize("name", shipped())
def test_embedded_models_are_audited_for_every_shipped_profile(name: str) -> None:
    profile = load_profile(name)
    assert profile.sources
    model = rt.load(MODELS / "vit_digits.onnx")
    result = audit(Workbench(model, rt.open_data(None, model), CPU), profile, timed=False)
    assert "RT001" not in found(result)
    assert "RT084" not in found(result)
    if profile.target.support or profile.target.operators:
        assert result.measured["partitions"] >= 1


# Looked up by hand in the files with a viewer, November 2026.
BY_HAND = {
    "resnet20_cifar10.onnx": ({"RT024", "RT020", "RT045", "RT084"}, {"ConstantOfShape"}),
    "resnet56_cifar10_bn.onnx": ({"RT024", "RT020", "RT084"}, {"Shape", "ConstantOfShape"}),
    "wild/face_slim_320.onnx": ({"RT020", "RT021", "RT041", "RT042", "RT083", "RT084"}, {"Shape"}),
    "wild/yunet_n_dynamic.onnx": ({"RT020", "RT021", "RT024", "RT084"}, {"Shape"}),
    "wild/silero_vad.onnx": ({"RT020", "RT021", "RT024", "RT025", "RT045", "RT084"}, {"Equal", "If"}),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_findings_on_models_of_the_wild_are_those_seen_by_hand(name: str) -> None:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{name} is not here")
    model = rt.load(path)
    result = audit(Workbench(model, rt.open_data(None, model), CPU), load_profile("nnapi"), timed=False)
    expected, operators = BY_HAND[name]
    # Whether layers repeat on noise depends on the noise, where they are nearly as similar as .98.
    assert found(result) - {"RT070"} == expected
    left = {
        one.message.split(" does not take ")[1].split(":")[0]
        for one in result.findings
        if one.rule == "RT020"
    }
    assert left == operators
    if name.endswith("silero_vad.onnx"):
        control = next(one for one in result.findings if one.rule == "RT025")
        nodes = [n for n in every(model.graph) if n.op_type in ("If", "Loop", "Scan")]
        assert len(control.nodes) == len(nodes)
    if name.endswith("face_slim_320.onnx"):
        unused = next(one for one in result.findings if one.rule == "RT041")
        read = {name for node in model.graph.node for name in node.input}
        assert set(unused.tensors) == {t.name for t in model.graph.initializer} - read


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_of_the_wild_can_be_audited(path: Path) -> None:
    model = rt.load(path)
    result = audit(Workbench(model, rt.open_data(None, model), CPU), load_profile("coreml"), timed=False)
    assert not {"RT001", "RT002", "RT043", "RT060", "RT062"} & found(result)


def every(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    inner = [a.g for node in graph.node for a in node.attribute if a.HasField("g")]
    return [*graph.node, *(node for child in inner for node in every(child))]


def test_int8_noise_is_what_rounding_leaves() -> None:
    value = np.array([[127.0, 0.4], [1.0, -1.0]])
    noise = 0.4**2
    assert int8_decibels(value, per_channel=False) == pytest.approx(
        10 * np.log10((127**2 + 0.16 + 2) / noise), rel=1e-6
    )
    assert int8_decibels(np.zeros((2, 2)), per_channel=True) == float("inf")


@pytest.mark.parametrize("sizes", [(0, 4), (4, 0), (0, 0), (3, 0, 2), (0, 1, 1, 1), (0,)])
def test_weights_without_values_are_audited(sizes: tuple[int, ...], tmp_path: Path) -> None:
    net = Net(x=[1, 4])
    for array in (np.zeros(sizes, np.float32), np.zeros(sizes, np.float16), np.zeros(sizes, np.int8)):
        net("Identity", net.store(array, array.dtype))
    assert "RT045" not in found(audited(finished(net, net("Relu", "x", name="y")), tmp_path, {}))


def test_masks_of_infinity_are_no_broken_weights(tmp_path: Path) -> None:
    net = Net(x=[1, 4])
    h = net("Max", net("Gemm", "x", net.weight(4, 4)), net.store(-np.inf))
    assert "RT043" not in found(audited(finished(net, net("Relu", h, name="y")), tmp_path, {}))


def test_numpy_helper_round_trip_is_not_needed_for_constants() -> None:
    """A constant flag of a Constant node counts as much as an initializer."""
    net = Net(x=[1, 4])
    flag = net("Constant", value=numpy_helper.from_array(np.array(True)))
    h = net("Gemm", "x", net.weight(4, 4))
    proto = finished(net, net("Dropout", h, net.store(0.5), flag, name="y"))
    model = rt.Model(proto)
    result = audit(Workbench(model, rt.open_data(None, model), CPU), Profile(name="t"), timed=False)
    assert "RT080" in found(result)


def test_an_infinite_activation_does_not_exceed_float16(tmp_path: Path) -> None:
    net = Net(x=["N", 8])
    scores = net("MatMul", "x", net.weight(8, 8))
    masked = net("Where", net.store(np.arange(8) < 5, np.bool_), scores, net.store(-np.inf))
    net("Softmax", masked, name="y", axis=-1)
    assert "RT063" not in found(audited(finished(net, "y"), tmp_path, {}))


def test_shares_of_what_is_unknown_are_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES["RT070"]
    words = [
        one.message for one in audited(case.bad(), tmp_path, case.profile).findings if one.rule == "RT070"
    ]
    assert "% of the MACs" in words[0]
    monkeypatch.setattr(macs, "_node_macs", lambda *_: None)  # as of loops that run as often as data say
    words = [
        one.message for one in audited(case.bad(), tmp_path, case.profile).findings if one.rule == "RT070"
    ]
    assert "% of the parameters (MSRS" in words[0]
