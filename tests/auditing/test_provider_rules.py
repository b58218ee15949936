"""Rules about the execution providers that were asked for, on reports as `check_provider` gives them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import redtest_onnx as rt
from redtest_onnx.auditing.profile import Profile
from redtest_onnx.auditing.registry import rules
from redtest_onnx.auditing.subject import Subject
from redtest_onnx.metrics.agreement.summary import Agreement, OutputAgreement
from redtest_onnx.runtime.provider_check import ProviderReport
from redtest_onnx.runtime.workbench import Workbench

MODEL = Path(__file__).parents[2] / "models" / "resnet_digits.onnx"
LEFT = {"Relu": ("/stem/Relu", "/blocks/Relu"), "Loop": ("/loop",)}


def found(report: ProviderReport | None, **target: object) -> dict[str, list[str]]:
    model = rt.load(MODEL)
    profile = Profile.model_validate({"name": "test", "target": target})
    subject = Subject(Workbench(model, rt.open_data(None, model), rt.RunOptions("cpu", 1)), profile, False)
    subject.__dict__["provider"] = report
    return {
        rule.id: [problem.message for problem in rule.check(subject)]
        for rule in rules()
        if rule.id in ("RT029", "RT030", "RT031")
    }


def report(left: dict[str, tuple[str, ...]], difference: float) -> ProviderReport:
    lost = sum(map(len, left.values()))
    return ProviderReport(("openvino",), 30, 30 - lost, left, Agreement(1.0, 1.0, difference), None, None)


def test_nothing_is_found_without_providers_or_where_all_is_well() -> None:
    for quiet in (None, report({}, 1e-6)):
        assert found(quiet) == {"RT029": [], "RT030": [], "RT031": []}


def test_nodes_that_fell_back_are_named() -> None:
    messages = found(report(LEFT, 0))["RT029"]
    assert messages[0] == "openvino left Relu to the CPU: 2 of 30 nodes, 7%"
    assert "Loop" in messages[1]


@pytest.mark.parametrize("difference", [0.011, float("nan")])
def test_outputs_that_differ_are_an_error(difference: float) -> None:
    assert len(found(report({}, difference))["RT030"]) == 1


def test_outputs_without_a_number_are_null_in_json() -> None:
    part = OutputAgreement("y", "values", None, "closeness", None, details={"error": float("inf")})
    agreement = Agreement(None, float("nan"), float("nan"), (part,))
    found = ProviderReport(("openvino",), 1, 1, {}, agreement, None, None).to_dict()
    json.dumps(found, allow_nan=False)
    assert found["agreement"]["relative_l2"] is None
    assert found["agreement"]["outputs"][0]["details"] == {"error": None}


def test_a_table_that_promises_too_much_is_noted() -> None:
    listed = {"provider": "openvino", "operators": ["Relu", "Conv", "Add"]}
    messages = found(report(LEFT, 0), **listed)["RT031"]
    assert messages == ["Relu is listed as supported, 2 nodes were left"]
    assert found(report(LEFT, 0))["RT031"] == []
