"""Layers and channels in one budget, from the library's functions to what is written."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import redtest_onnx as rt
from redtest_onnx.data.open import open_data
from redtest_onnx.documents.schemas import schemas
from redtest_onnx.errors import InputError, InternalError, NegativeVerdictError, SettingError
from redtest_onnx.graph.channel_edits import keep_channels
from redtest_onnx.graph.inner_widths import inner_widths
from redtest_onnx.pruning.apply import apply_plan
from redtest_onnx.pruning.budget import Budget
from redtest_onnx.pruning.plan import Narrowing, Plan
from redtest_onnx.pruning.prune import PruneSettings, rewrite
from redtest_onnx.pruning.verify import verify_removal
from redtest_onnx.pruning.width.choose import require_width
from redtest_onnx.report.prunings import prune_markdown, widths_table
from redtest_onnx.runtime.workbench import Workbench
from tests.decoders import merged_decoder
from tests.nets import Net

CPU = rt.RunOptions(device="cpu", threads=1)


def low_rank(net: Net, rng: np.random.Generator, *shape: int) -> str:
    """Weights whose rows, one per output, lie near few directions: what a fit can make up for."""
    rows, size = shape[0], int(np.prod(shape[1:]))
    values = rng.normal(size=(rows, 3)) @ rng.normal(size=(3, size)) + 0.1 * rng.normal(size=(rows, size))
    return net.store(values.reshape(shape) / np.sqrt(size))


@cache
def residual() -> tuple[rt.Model, rt.Dataset]:
    """Five residual blocks of three kinds: plain convolutions, depthwise ones and squeeze and excite."""
    net, rng = Net(image=("n", 4, 8, 8)), np.random.default_rng(3)
    x = net("Relu", net("Conv", "image", net.weight(6, 4, 3, 3), net.weight(6), pads=[1, 1, 1, 1]))
    for kind in ("plain", "deep", "plain", "gate", "plain"):
        y = net("Relu", net("Conv", x, low_rank(net, rng, 12, 6, 3, 3), net.weight(12), pads=[1, 1, 1, 1]))
        if kind == "deep":
            deep = net("Conv", y, net.weight(12, 1, 3, 3), net.weight(12), group=12, pads=[1, 1, 1, 1])
            y = net("Relu", deep)
        if kind == "gate":
            mean = net(
                "Relu", net("Conv", net("GlobalAveragePool", y), net.weight(4, 12, 1, 1), net.weight(4))
            )
            y = net("Mul", y, net("Sigmoid", net("Conv", mean, net.weight(12, 4, 1, 1), net.weight(12))))
        weight = net.store(0.1 * rng.normal(size=(6, 12, 3, 3)))
        x = net("Relu", net("Add", x, net("Conv", y, weight, net.weight(6), pads=[1, 1, 1, 1])))
    flat = net("Flatten", net("GlobalAveragePool", x))
    model = net.model(net("Gemm", flat, net.weight(6, 5), net.weight(5), name="out"))
    data = {"image": np.random.default_rng(0).normal(size=(90, 4, 8, 8)).astype(np.float32)}
    return model, rt.open_data(data, model)


@cache
def transformer() -> tuple[rt.Model, rt.Dataset]:
    """Three gated MLPs with shortcuts and norms, over sequences."""
    net, rng = Net(tokens=("n", 6, 8)), np.random.default_rng(4)
    x = net("MatMul", "tokens", net.weight(8, 8))
    for _ in range(3):
        normal = net("LayerNormalization", x, net.store(np.ones(8)), net.store(np.zeros(8)), axis=-1)
        gate, up = (net("MatMul", normal, low_rank(net, rng, 8, 16)) for _ in range(2))
        hidden = net("Mul", net("Mul", gate, net("Sigmoid", gate)), up)
        y = net("Add", net("MatMul", hidden, net.store(0.1 * rng.normal(size=(16, 8)))), net.weight(8))
        x = net("Add", x, y)
    model = net.model(net("MatMul", x, net.weight(8, 5), name="out"))
    data = {"tokens": np.random.default_rng(0).normal(size=(60, 6, 8)).astype(np.float32)}
    return model, rt.open_data(data, model)


@cache
def pruned() -> rt.Pruning:
    model, data = residual()
    settings = rt.PruneSettings(repair="refit")
    return rt.prune(model, data, settings, targets={"macs": 0.5}, width=True, options=CPU)


def test_the_target_is_met_by_layers_and_channels() -> None:
    found = pruned()
    assert found.after.cost.macs is not None
    assert found.before.cost.macs is not None
    assert 0.4 < found.after.cost.macs / found.before.cost.macs <= 0.5
    assert found.plan.widths
    params = sum(step.parameters for step in found.plan.steps) + sum(
        narrowing.parameters or 0 for narrowing in found.plan.widths
    )
    gone = found.before.cost.parameters - found.after.cost.parameters
    assert gone <= params < 1.02 * gone  # an operator between two inner widths is counted for both
    assert found.repair.method == "refit"
    assert found.repair.loss is not None
    assert found.repair.loss_plain is not None
    assert found.repair.loss < found.repair.loss_plain


def test_plans_come_back_from_files_and_do_the_same(tmp_path: Path) -> None:
    model, data = residual()
    found = pruned()
    found.plan.save(tmp_path / "plan.json")
    again = rt.load_plan(tmp_path / "plan.json", model, data, CPU)
    assert again == found.plan
    same = rt.prune(model, data, rt.PruneSettings(repair="refit"), plan=again, options=CPU)
    assert same.model.serialised() == found.model.serialised()
    document = json.loads((tmp_path / "plan.json").read_text())
    document["widths"] = [{"width": document["widths"][0]["width"], "kept": [0, 2]}]
    (tmp_path / "edited.json").write_text(json.dumps(document))
    edited = rt.load_plan(tmp_path / "edited.json", model, data, CPU)
    assert edited.widths == (Narrowing(found.plan.widths[0].width, 12, (0, 2)),)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"width": "elsewhere", "kept": [0]}, "no inner width"),
        ({"kept": [0]}, "no inner width"),
        ({"width": None}, "rising order"),
        ({"width": None, "kept": []}, "rising order"),
        ({"width": None, "kept": [3, 1]}, "rising order"),
        ({"width": None, "kept": [12]}, "rising order"),
        ({"width": None, "kept": [0.5]}, "rising order"),
    ],
)
def test_files_of_other_channels_are_refused(entry: dict[str, object], words: str, tmp_path: Path) -> None:
    model, data = residual()
    if "width" in entry and entry["width"] is None:
        entry = {**entry, "width": inner_widths(model).found[0].name}
    (tmp_path / "plan.json").write_text(json.dumps({"steps": [], "widths": [entry]}))
    with pytest.raises(InputError, match=words):
        rt.load_plan(tmp_path / "plan.json", model, data, CPU)


def test_documents_and_reports_tell_of_channels() -> None:
    import jsonschema

    found = pruned()
    document = found.to_dict()
    jsonschema.validate(document, schemas()["prune"])
    first = document["plan"]["widths"][0]
    assert first["channels"] - len(first["kept"]) == found.plan.widths[0].removed
    gone = sum(narrowing.removed for narrowing in found.plan.widths)
    assert f"{gone} channels" in found.summary()
    assert f"{gone} channels of {len(found.plan.widths)} inner widths" in found.plan.summary()
    text = prune_markdown(found, "net.onnx", Path("out.onnx"))
    assert f"{gone} of " in text
    assert "Removed channels" in text
    table = widths_table(found.plan)
    assert table is not None
    assert len(table.rows) == len(found.plan.widths)
    plain = Plan("redtest", found.plan.model_sha256, found.plan.steps)
    assert widths_table(plain) is None
    assert "widths" not in plain.to_dict()


def half(model: rt.Model) -> Plan:
    """Every other channel goes, of all inner widths."""
    widths = tuple(
        Narrowing(width.name, width.channels, tuple(range(0, width.channels, 2)))
        for width in inner_widths(model).found
    )
    return Plan("half", model.sha256, (), widths=widths)


@pytest.mark.parametrize("build", [residual, transformer])
def test_what_reads_the_channels_is_refitted(build: object) -> None:
    model, data = build()  # type: ignore[operator]
    bench, plan = Workbench(model, data, CPU), half(model)
    assert len(plan.widths) >= 3
    errors = {}
    for method in ("none", "adapter", "refit"):
        done, repaired = rewrite(bench, plan, PruneSettings(repair=method))  # type: ignore[arg-type]
        errors[method] = bench.evaluator().evaluate(done.model).agreement.relative_l2
        assert done.cost.parameters < bench.cost.parameters
    solved = {fit.operator for fit in repaired.refits}
    names = [node.name for node in model.graph.node]
    for k, width in enumerate(inner_widths(model).found):
        assert {names[operator.node] for operator in width.consumers} <= solved
        # What makes the channels reads other values than before, too, but in the first layer.
        assert k == 0 or {names[operator.node] for operator in width.producers} & solved
    assert errors["refit"] < 0.6 * errors["none"]
    assert errors["refit"] <= errors["adapter"] < errors["none"]


def test_a_wrong_edit_is_seen() -> None:
    model, data = residual()
    bench, plan = Workbench(model, data, CPU), half(model)
    verify_removal(bench, apply_plan(bench, plan), plan)
    other = {narrowing.width: np.arange(len(narrowing.kept)) for narrowing in plan.widths}
    with pytest.raises(InternalError, match="computes something else"):
        verify_removal(bench, keep_channels(model, other), plan)


def test_limits_that_channels_cannot_be_chosen_by_are_refused() -> None:
    for limits in (
        {},
        {"remove": 2},
        {"max_drop": 0.1},
        {"targets": {"size": 0.5}},
        {"targets": {"macs": 0.5, "latency": 0.5}},
        {"targets": {"macs": 0.5}, "max_drop": 0.01},
    ):
        with pytest.raises(InputError, match="width"):
            Budget.of(width=True, **limits)
    with pytest.raises(SettingError):
        Budget.of(width=3, targets={"macs": 0.5})


def test_what_cannot_be_done_is_refused_before_any_work() -> None:
    model, data = residual()
    how = {"targets": {"macs": 0.5}, "width": True, "options": CPU}
    with pytest.raises(InputError, match="synthetic"):
        rt.plan(model, **how)
    with pytest.raises(InputError, match="refits what reads"):
        rt.plan(model, data, rt.PruneSettings(repair="reinit"), **how)
    with pytest.raises(InputError, match="no channels can be taken"):
        rt.plan(model, data, protect="*", **how)
    with pytest.raises(NegativeVerdictError, match="neither with layers nor with channels"):
        rt.plan(model, data, **{**how, "targets": {"params": 0.001}})


def test_layers_alone_do_where_no_channels_can_be_taken(caplog: pytest.LogCaptureFixture) -> None:
    """One product a layer, whose channels the shortcut holds."""
    net, rng = Net(x=("n", 6)), np.random.default_rng(4)
    x = net("MatMul", "x", net.weight(6, 6))
    for _ in range(4):
        x = net("Add", x, net("Relu", net("MatMul", x, net.weight(6, 6))))
    model = net.model(net("MatMul", x, net.weight(6, 3), name="y"))
    data = {"x": rng.normal(size=(60, 6)).astype(np.float32)}
    plan = rt.plan(model, data, targets={"params": 0.7}, width=True, options=CPU)
    assert plan.steps
    assert not plan.widths
    assert "layers alone" in caplog.text
    with pytest.raises(InputError, match="no channels can be taken"):
        rt.plan(model, data, targets={"params": 0.1}, width=True, options=CPU)


def test_models_with_branches_are_refused() -> None:
    model = merged_decoder(2)
    bench = Workbench(model, open_data(None, model), CPU)
    assert bench.view.choices
    with pytest.raises(InputError, match="no models with branches"):
        require_width(bench, "refit", sharded=False)


def test_channels_behind_fused_norms_go_and_the_norms_stay_fused() -> None:
    """The view divides what the file fuses; what is written is fused again."""
    net, rng = Net(tokens=("n", 6, 8)), np.random.default_rng(4)
    x = net("MatMul", "tokens", net.weight(8, 8))
    y = net("MatMul", "tokens", net.weight(8, 8))
    for k in range(3):
        norm = [net.store(np.ones(8)), net.store(np.zeros(8))]
        normal = net("SkipLayerNormalization", x, y, *norm, name=f"norm{k}", domain="com.microsoft")
        hidden = net("Relu", net("MatMul", normal, low_rank(net, rng, 8, 16)))
        x, y = normal, net("MatMul", hidden, net.store(0.1 * rng.normal(size=(16, 8))))
    norm = [net.store(np.ones(8)), net.store(np.zeros(8))]
    x = net("SkipLayerNormalization", x, y, *norm, name="last", domain="com.microsoft")
    model = net.model(net("MatMul", x, net.weight(8, 5), name="out"))
    values = np.random.default_rng(0).normal(size=(60, 6, 8)).astype(np.float32)
    data = rt.open_data({"tokens": values}, model)
    bench = Workbench(model, data, CPU)
    assert bench.opened is not bench
    plan = half(bench.opened.model)
    assert len(plan.widths) == 3
    done, repaired = rewrite(bench, plan, PruneSettings(repair="refit"))
    assert [node.op_type for node in done.model.graph.node] == [node.op_type for node in model.graph.node]
    assert done.cost.parameters < bench.cost.parameters
    assert repaired.loss is not None


def test_nothing_goes_where_nothing_must() -> None:
    model, data = residual()
    plan = rt.plan(model, data, targets={"macs": 1.0}, width=True, options=CPU)
    assert plan.empty
    assert plan.reason == "the model meets the targets as it is"


def test_protected_layers_keep_their_channels() -> None:
    model, data = residual()
    analysis = rt.analyze(model, data, options=CPU)
    name = next(layer.name for layer in analysis.layers if layer.removable)
    how = {"targets": {"macs": 0.8}, "width": True, "options": CPU, "analysis": analysis}
    plan = rt.plan(model, data, protect=name, **how)
    layer = next(layer for layer in analysis.layers if layer.name == name)
    index = Workbench(model, data, CPU).index
    inside = {index.nodes[i].name for i in index.between(layer.input, layer.exit)}
    assert inside.isdisjoint(narrowing.width for narrowing in plan.widths)
    assert name not in {step.region for step in plan.steps}
    assert replace(plan, widths=()).empty == (not plan.steps)


def test_copies_of_biases_that_operators_get_for_themselves_are_counted() -> None:
    net = Net(image=("n", 4, 6, 6))
    x, bias = net("Relu", net.conv("image", 4, 4)), net.store(np.zeros(32))
    for _ in range(3):
        y = net("Relu", net("Conv", x, net.weight(32, 4, 1, 1), net("Identity", bias)))
        y = net("Conv", y, net.weight(32, 1, 3, 3), net("Identity", bias), group=32, pads=[1, 1, 1, 1])
        x = net("Add", x, net("Conv", net("Relu", y), net.weight(4, 32, 1, 1)))
    model = net.model(net("Gemm", net("Flatten", net("GlobalAveragePool", x)), net.weight(4, 3), name="out"))
    values = np.random.default_rng(0).normal(size=(60, 4, 6, 6)).astype(np.float32)
    data = rt.open_data({"image": values}, model)
    settings = rt.PruneSettings(repair="none")
    found = rt.prune(model, data, settings, targets={"params": 0.6}, width=True, options=CPU)
    assert found.plan.widths
    assert found.after.cost.parameters <= 0.6 * found.before.cost.parameters
