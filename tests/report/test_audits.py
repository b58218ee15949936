"""Audits in every format, also with names that try to break it."""

from __future__ import annotations

import json
import re
from datetime import date
from pathlib import Path

import jsonschema
import numpy as np
import onnx
import pytest
from junitparser import JUnitXml
from nets import Net
from onnx import helper

import redtest_onnx as rt
from redtest_onnx.auditing.baseline import Known
from redtest_onnx.auditing.documents import audit_document
from redtest_onnx.auditing.profile import Profile, Suppression
from redtest_onnx.auditing.profile_file import load_profile
from redtest_onnx.auditing.run import Audit, audit
from redtest_onnx.cli.main import run
from redtest_onnx.report.audit_ci import audit_github, audit_gitlab, audit_junit
from redtest_onnx.report.audit_sarif import audit_sarif
from redtest_onnx.report.audits import audit_markdown, verdict
from redtest_onnx.runtime.workbench import Workbench

ROOT = Path(__file__).parents[2]
# The official schema as the npm package @microsoft/jest-sarif 1.0.0-beta.0 ships it (MIT).
SCHEMA = json.loads((ROOT / "tests" / "auditing" / "sarif-2.1.0-rtm.5.json").read_text(encoding="utf-8"))
# The fields of GitLab's code quality report: https://docs.gitlab.com/ci/testing/code_quality/
CODE_QUALITY = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["description", "check_name", "fingerprint", "severity", "location"],
        "properties": {
            "fingerprint": {"pattern": "^[0-9a-f]{32}$"},
            "severity": {"enum": ["info", "minor", "major", "critical", "blocker"]},
            "location": {"required": ["path", "lines"], "properties": {"lines": {"required": ["begin"]}}},
        },
    },
}
CPU = rt.RunOptions(device="cpu", threads=1)
HOSTILE = [
    "quote\"s and 'more'",
    "line\nbreak\r\nand\ttab",
    "<script>alert(1)</script>]]>&amp;",
    "\x1b[31mred\x1b[0m \x07 \x00 \x9b",
    "| pipe | `code` **bold** [link](http://x) @everyone #1",
    "\u2028\u2029\u202e \ufffe emoji \U0001f600",
]


def hostile(name: str) -> Audit:
    net = Net(x=[1, 4])
    h = net("Gemm", "x", net.weight(4, 4))
    proto = net.model(net("Relu", h, name="y")).proto
    proto.graph.initializer.append(helper.make_tensor(name, onnx.TensorProto.FLOAT, [64], np.ones(64)))
    proto.graph.node[1].name = name
    model = rt.Model(proto)
    profile = Profile.model_validate({"name": "hostile", "operators": {"forbidden": ["Relu"]}})
    return audit(Workbench(model, rt.open_data(None, model), CPU), profile, timed=False)


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_breaks_a_format(name: str) -> None:
    result = hostile(name)
    assert {"RT026", "RT041"} <= {one.rule for one in result.findings}
    sarif = json.loads(json.dumps(audit_sarif([result])))
    jsonschema.Draft4Validator(SCHEMA).validate(sarif)
    suite = next(iter(JUnitXml.fromstring(audit_junit([result]).encode())))
    assert suite.failures == 1
    document = json.loads(json.dumps(audit_document([result]), allow_nan=False))
    assert any(name in one["tensors"] for one in document["findings"])
    lines = [line for line in audit_markdown([result]).splitlines() if line.startswith("| RT")]
    assert len(lines) == len(result.findings)
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 6 for line in lines)
    assert not any(char in "\n".join(lines) for char in "\x1b\x00\x07\u2028")
    assert "<script>" not in "\n".join(lines)
    annotations = audit_github([result]).splitlines()
    assert len(annotations) == len(result.findings) + 1
    assert all(
        re.fullmatch(r"::(error|warning|notice) file=[^,]*,line=1,title=[^,:]*::.+", one)
        for one in annotations
    )
    quality = json.loads(audit_gitlab([result]))
    jsonschema.validate(quality, CODE_QUALITY)
    assert len(quality) == len(result.findings)


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_reaches_the_terminal_as_it_is(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(hostile(name).model.proto, path)
    for form in ("text", "markdown", "junit", "sarif", "json", "github", "gitlab", "html"):
        assert run(["audit", str(path), "--no-latency", "--format", form]) == 0
        out = capsys.readouterr().out
        assert not set(out) & set("\x1b\x00\x07\x9b\u2028\u2029")


def embedded(name: str, profile: Profile | None = None, **options: object) -> Audit:
    model = rt.load(ROOT / "models" / f"{name}_digits.onnx")
    chosen = profile or load_profile("nnapi")
    return audit(Workbench(model, rt.open_data(None, model), CPU), chosen, timed=False, **options)  # type: ignore[arg-type]


def test_sarif_says_what_code_scanning_needs() -> None:
    log = audit_sarif([embedded("vit"), embedded("resnet")])
    jsonschema.Draft4Validator(SCHEMA).validate(log)
    (one,) = log["runs"]
    ids = [rule["id"] for rule in one["tool"]["driver"]["rules"]]
    for result in one["results"]:
        assert ids[result["ruleIndex"]] == result["ruleId"]
        assert result["partialFingerprints"]
        physical = result["locations"][0]["physicalLocation"]
        assert physical["region"]["startLine"] >= 1
        assert "\\" not in physical["artifactLocation"]["uri"]
        assert result["locations"][0].get("logicalLocations") != []


def test_suppressed_findings_say_why_and_do_not_fail() -> None:
    base = load_profile("nnapi")
    rules = ("RT021", "RT024")
    suppressed = base.model_copy(
        update={"suppress": tuple(Suppression(rule=rule, reason="later") for rule in rules)}
    )
    assert not embedded("vit").passed
    result = embedded("vit", suppressed)
    assert result.passed
    log = audit_sarif([result])
    jsonschema.Draft4Validator(SCHEMA).validate(log)
    assert sum("suppressions" in one for one in log["runs"][0]["results"]) == 2


def test_suppressions_expire_and_can_be_for_some_places() -> None:
    base = load_profile("nnapi")

    def passed(**facts: object) -> bool:
        both = tuple(
            Suppression.model_validate({"rule": rule, "reason": "r", **facts}) for rule in ("RT021", "RT024")
        )
        profile = base.model_copy(update={"suppress": both})
        return embedded("vit", profile).passed

    assert passed(expires=date.max)
    assert not passed(expires=date.today())
    assert not passed(where="another/*")


def test_only_what_is_new_fails_against_a_baseline(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(ROOT / "models" / "vit_digits.onnx")
    before = tmp_path / "before.json"
    arguments = ["audit", model, "--profile", "nnapi", "--no-latency"]
    assert run([*arguments, "--json", str(before)]) == 1
    capsys.readouterr()
    assert run([*arguments, "--baseline", str(before)]) == 0
    assert "0 new, 0 gone" in capsys.readouterr().out
    document = json.loads(before.read_text())
    document["findings"] = [one for one in document["findings"] if one["rule"] != "RT024"]
    before.write_text(json.dumps(document))
    assert run([*arguments, "--baseline", str(before)]) == 1
    out = capsys.readouterr().out
    assert "1 new, 0 gone" in out
    assert "RT024" in out


def test_what_is_no_audit_is_no_baseline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = str(ROOT / "models" / "vgg_digits.onnx")
    path = tmp_path / "b.json"
    for text in ("[]", "{}", "no json"):
        path.write_text(text)
        assert run(["audit", model, "--baseline", str(path)]) == 2
    assert "is no audit" in capsys.readouterr().err


def test_several_models_in_one_call(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = [str(ROOT / "models" / f"{name}_digits.onnx") for name in ("vgg", "vit")]
    report = tmp_path / "report.xml"
    code = run(["audit", *models, "--no-latency", "--format", "junit", "--output", str(report)])
    assert code == 0
    assert len(list(JUnitXml.fromfile(str(report)))) == 2
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"nothing")
    assert run(["audit", models[0], str(broken), "--no-latency"]) == 2
    captured = capsys.readouterr()
    assert "PASSED" in captured.out
    assert "could not be audited" in captured.err
    assert "\n  try: " in captured.err
    assert "\\x0a" not in captured.err


def test_lists(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["audit", "--list-rules", "--list-profiles"]) == 0
    out = capsys.readouterr().out
    assert "RT001" in out
    assert "microcontroller" in out
    assert run(["audit"]) == 2


def test_operators_are_written_for_a_reduced_build(tmp_path: Path) -> None:
    model = str(ROOT / "models" / "vgg_digits.onnx")
    path = tmp_path / "ops.config"
    assert run(["audit", model, "--no-latency", "--write-operators", str(path)]) == 0
    assert "Conv" in path.read_text()


def test_one_run_writes_every_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = str(ROOT / "models" / "vit_digits.onnx")
    names = ("a.txt", "a.sarif", "a.xml", "a.md", "a.json", "a.html")
    outputs = [part for name in names for part in ("--output", str(tmp_path / name))]
    assert run(["audit", model, "--profile", "nnapi", "--no-latency", "--format", "github", *outputs]) == 1
    captured = capsys.readouterr()
    assert all(line.startswith("::") for line in captured.out.splitlines())
    assert captured.err.count("auditing ...") == 1  # measured once
    assert "RT021 error" in (tmp_path / "a.txt").read_text()
    log = json.loads((tmp_path / "a.sarif").read_text())
    jsonschema.Draft4Validator(SCHEMA).validate(log)
    assert all(rule["helpUri"].startswith("https://") for rule in log["runs"][0]["tool"]["driver"]["rules"])
    assert next(iter(JUnitXml.fromfile(str(tmp_path / "a.xml")))).failures == 2
    assert (tmp_path / "a.md").read_text().count("| RT021") == 1
    assert json.loads((tmp_path / "a.json").read_text())["verdict"] == "fail"
    assert "audit failed" in (tmp_path / "a.html").read_text(encoding="utf-8")


def test_a_json_file_holds_what_the_format_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = str(ROOT / "models" / "vgg_digits.onnx")
    path = tmp_path / "gl-code-quality-report.json"
    assert run(["audit", model, "--no-latency", "--format", "gitlab", "-o", str(path)]) == 0
    jsonschema.validate(json.loads(path.read_text()), CODE_QUALITY)
    assert capsys.readouterr().out == ""


def test_a_suffix_without_a_format_is_refused_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(ROOT / "models" / "vgg_digits.onnx")
    assert run(["audit", model, "-o", str(tmp_path / "report.docx")]) == 2
    assert ".sarif" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_junit_gives_times_and_skips_what_is_suppressed() -> None:
    base = load_profile("nnapi")
    result = embedded(
        "vit", base.model_copy(update={"suppress": (Suppression(rule="RT021", reason="later"),)})
    )
    suite = next(iter(JUnitXml.fromstring(audit_junit([result]).encode())))
    assert suite.skipped == 1
    assert suite.time > 0
    assert suite.time == pytest.approx(sum(case.time for case in suite), abs=0.05)


def test_budgets_without_a_figure_are_told() -> None:
    budgets = {"latency_ms": 1.0, "cold_start_ms": 1.0, "macs_m": 600.0}
    profile = Profile.model_validate({"name": "t", "budgets": budgets})
    found = embedded("vit", profile)
    assert found.unchecked == ("latency_ms", "cold_start_ms")
    assert verdict(found).endswith("; not checked: latency_ms, cold_start_ms")
    assert audit_document([found])["unchecked"] == ["latency_ms", "cold_start_ms"]


def test_models_of_one_name_keep_their_own_baselines(tmp_path: Path) -> None:
    marks = {"a/m.onnx": "1", "b/m.onnx": "2", "old/n.onnx": "3"}
    known = Known({(path, mark): f"RT {mark}" for path, mark in marks.items()}, frozenset(marks))
    now = [Path("a/m.onnx"), Path("c/m.onnx"), Path("new/n.onnx")]
    moved = known.moved_to(now)
    assert [sorted(moved.of(path)) for path in now] == [["1"], ["2"], ["3"]]
    both = known.moved_to([Path("c/m.onnx"), Path("d/m.onnx")])  # which of the two is a or b is not known
    assert not both.of(Path("c/m.onnx"))
    clean = Known({("b/m.onnx", "2"): "RT 2"}, frozenset({"a/m.onnx", "b/m.onnx"}))
    assert not clean.moved_to([Path("a/m.onnx")]).of(Path("a/m.onnx"))
