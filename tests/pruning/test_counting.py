"""What `remove` counts: blocks of a transformer, layers of other networks; the same in every way to prune."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import redtest_onnx as rt
from redtest_onnx.cli.main import main
from redtest_onnx.layers.blocks import is_transformer
from redtest_onnx.pruning.counting import counted_analysis, planning_analysis
from redtest_onnx.pruning.curve import trade_off_curve
from redtest_onnx.similarity.saved import load_analysis
from redtest_onnx.similarity.settings import AnalysisSettings

MODELS = Path(__file__).parents[2] / "models"
VIT, RESNET, DATA = MODELS / "vit_digits.onnx", MODELS / "resnet_digits.onnx", MODELS / "digits.npz"
CPU = rt.RunOptions("cpu", 1)
FEW = AnalysisSettings(samples=32, batches=2)
HOW = rt.PruneSettings(repair="none", similarity=FEW)
SMALL = ("--samples", "32", "--batches", "2", "--repair", "none", "--threads", "1")


@cache
def bench(path: Path = VIT) -> rt.Workbench:
    model = rt.load(path)
    return rt.Workbench(model, rt.open_data(DATA, model, split="calibration"), CPU)


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    return int(caught.value.code or 0)


def finely() -> rt.PruneSettings:
    return rt.PruneSettings(repair="none", similarity=AnalysisSettings(samples=32, granularity="sub-layer"))


def test_a_number_counts_blocks_of_a_transformer() -> None:
    found = rt.prune(bench(), settings=HOW, remove=2)
    assert len(found.plan.steps) == 2
    assert found.plan.unit == "block"
    for step in found.plan.steps:
        assert [part.name for part in step.parts] == [f"{step.region}.attention", f"{step.region}.mlp"]
        assert [part.kind for part in step.parts] == ["attention", "feed-forward"]
    assert found.summary().startswith("2 of 8 blocks removed")
    assert len(bench().successor(found.model).layers()) == 17 - 4


def test_single_sub_layers_are_asked_for() -> None:
    plan = rt.plan(bench(), settings=finely(), remove=2)
    assert plan.unit == "layer"
    assert all(step.region.endswith((".attention", ".mlp")) and not step.parts for step in plan.steps)
    globbed = rt.PruneSettings(similarity=AnalysisSettings(samples=32, layers="*.mlp"))
    assert {
        step.region.rpartition(".")[2] for step in rt.plan(bench(), settings=globbed, remove=2).steps
    } == {"mlp"}


def test_other_networks_and_other_limits_take_single_layers() -> None:
    assert rt.plan(bench(RESNET), settings=HOW, remove=2).summary().startswith("remove 2 layers")
    assert rt.plan(bench(), settings=HOW, targets={"params": 0.95}).unit == "layer"
    assert rt.plan(bench(), settings=HOW, threshold=0.99).unit == "layer"


def test_the_blocks_of_an_earlier_analysis_are_those_of_a_new_one(tmp_path: Path) -> None:
    fine = rt.analyze(bench(), settings=FEW)
    fine.save(tmp_path / "fine.json")
    for given in (fine, load_analysis(tmp_path / "fine.json", bench().model)):
        found = counted_analysis(bench(), FEW, counts=True, given=given)
        new = counted_analysis(bench(), FEW, counts=True)
        assert [layer.name for layer in found.layers] == [layer.name for layer in new.layers]
        assert found.settings.granularity == new.settings.granularity == "block"
        np.testing.assert_allclose(found.similarity, new.similarity, rtol=0, atol=1e-12)
        assert found.redundancy.value == pytest.approx(new.redundancy.value, abs=1e-9)
        assert found.redundancy.per_batch == pytest.approx(new.redundancy.per_batch, abs=1e-9)
        assert (found.features, found.dominated) == (new.features, new.dominated)
        assert rt.plan(bench(), settings=HOW, remove=2, analysis=given) == rt.plan(
            bench(), settings=HOW, remove=2
        )


def test_what_an_earlier_analysis_was_explicitly_made_of_stays() -> None:
    fine = rt.analyze(bench(), settings=finely().similarity)
    assert rt.plan(bench(), settings=HOW, remove=1, analysis=fine).unit == "layer"
    whole = rt.analyze(bench(), settings=AnalysisSettings(samples=32, granularity="block"))
    with pytest.raises(rt.InputError, match=r"no values of the layers of .*sub-layer"):
        rt.plan(bench(), settings=finely(), remove=1, analysis=whole)


def test_more_blocks_than_there_are_are_refused_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "redtest_onnx.pruning.counting.analyze_and_answer", lambda *_: pytest.fail("it was measured")
    )
    with pytest.raises(rt.NegativeVerdictError, match="9 blocks can't be removed: 8 of 8 can go") as caught:
        rt.plan(bench(), settings=HOW, remove=9)
    assert "granularity='sub-layer'" in str(caught.value.hint)
    with pytest.raises(rt.NegativeVerdictError, match="8 blocks can't be removed: 7 of 8 can go") as held:
        rt.plan(bench(), settings=HOW, remove=8, protect="blocks.3")
    assert "keeps 1 that could go" in str(held.value.hint)
    with pytest.raises(rt.NegativeVerdictError, match="17 layers can't be removed: 16 of 17 can go"):
        rt.plan(bench(), settings=finely(), remove=17)
    with pytest.raises(rt.InputError, match="'nothing' matches no layer"):
        rt.plan(bench(), settings=HOW, remove=1, protect="nothing")


def test_a_protected_sub_layer_keeps_its_block() -> None:
    free = rt.plan(bench(), settings=HOW, remove=1).steps[0].region
    held = rt.plan(bench(), settings=HOW, remove=1, protect=f"{free}.mlp").steps[0].region
    assert held != free


def test_plans_of_blocks_are_read_and_applied_like_others(tmp_path: Path) -> None:
    plan = rt.plan(bench(), settings=HOW, remove=2)
    plan.save(tmp_path / "plan.json")
    assert rt.load_plan(tmp_path / "plan.json", VIT, DATA, CPU) == plan
    found = rt.prune(bench(), settings=HOW, plan=plan)
    assert found.summary().startswith("2 of 8 blocks removed")
    written = json.loads((tmp_path / "plan.json").read_text())
    bare = {"steps": [{"region": step["region"]} for step in written["steps"]]}
    (tmp_path / "bare.json").write_text(json.dumps(bare))
    assert [step.region for step in rt.load_plan(tmp_path / "bare.json", VIT, DATA, CPU).steps] == [
        step.region for step in plan.steps
    ]
    common = ("prune", VIT, "--data", DATA, *SMALL, "-q")
    assert run(*common, "--plan", tmp_path / "bare.json", "-o", tmp_path / "a.onnx") == 0
    assert run(*common, "--remove", "2", "-o", tmp_path / "b.onnx") == 0
    left = [rt.find_layers(tmp_path / name) for name in ("a.onnx", "b.onnx")]
    assert [layer.name for layer in left[0]] == [layer.name for layer in left[1]]


def test_the_command_says_what_a_block_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("prune", VIT, "--data", DATA, *SMALL, "--remove", "1")
    assert run(*command, "--dry-run", "--json", tmp_path / "plan.json") == 0
    shown = capsys.readouterr().out
    assert "1 of 8 blocks is removed" in shown
    assert "attention, feed-forward" in shown
    step = json.loads((tmp_path / "plan.json").read_text())["plan"]["steps"][0]
    assert {part["kind"] for part in step["parts"]} == {"attention", "feed-forward"}
    assert run(*command, "--granularity", "sub-layer", "--dry-run") == 0
    assert "1 of 17 layers is removed" in capsys.readouterr().out
    assert run("inspect", VIT) == 0
    assert "16 of them form 8 blocks of a transformer" in " ".join(capsys.readouterr().out.split())


def test_series_and_layers_before_weights_count_blocks_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    curve = trade_off_curve(bench(), HOW, points=2)
    assert [point.removed for point in curve.points] == [4, 8]
    assert curve.unit == "block"
    command = ("sparsity", VIT, "--data", DATA, "--method", "one-shot", "--amount", "0.1", "--threads", "1")
    assert run(*command, "--remove-layers", "1", "-o", tmp_path / "out.onnx") == 0
    assert "1 of 8 blocks is removed" in " ".join(capsys.readouterr().out.split())


def test_a_network_with_little_attention_is_no_transformer() -> None:
    blocks = bench().layers("block")
    assert is_transformer(bench().layers(), blocks)
    assert not is_transformer(bench(RESNET).layers(), bench(RESNET).layers("block"))
    many = [*bench().layers(), *bench(RESNET).layers()]
    assert not is_transformer(many, blocks)
    analysis = planning_analysis(bench(RESNET), rt.Budget(remove=1), HOW)
    assert analysis.settings.granularity == "auto"
