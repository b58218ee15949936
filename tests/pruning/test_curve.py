"""A series of models: which sizes are tried, which points are on the front, and which one is chosen."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from nets import Net

import redtest_onnx as rt
from redtest_onnx.data.arrays import ArrayData
from redtest_onnx.metrics.agreement.summary import OutputAgreement
from redtest_onnx.pruning import curve as curve_module
from redtest_onnx.pruning.budget import DEFAULT_MAX_DROP, Budget
from redtest_onnx.pruning.curve import Curve, CurvePoint, _loss, trade_off_curve
from redtest_onnx.pruning.prune import PruneSettings, Pruning
from redtest_onnx.runtime.workbench import Workbench

LAYERS = 7  # that can go
PLAIN = PruneSettings("tail", rt.AnalysisSettings(samples=16, batches=2), repair="none")
told: list[tuple[int, int, str]] = []


def network() -> rt.Model:
    """Blocks in a row of which each changes little."""
    net, rng = Net(x=("n", 6)), np.random.default_rng(0)
    x = net("MatMul", "x", net.weight(6, 6))
    for _ in range(LAYERS):
        small = net.store(0.05 * rng.normal(size=(2, 6)))
        x = net("Add", x, net("MatMul", net("Relu", net("MatMul", x, net.weight(6, 2))), small))
    return net.model(net("MatMul", x, net.weight(6, 4), name="y"))


@cache
def bench() -> Workbench:
    model = network()
    drawn = rt.open_data(None, model, count=40)
    values = drawn.inputs(range(40))["x"]  # type: ignore[arg-type]
    return Workbench(model, ArrayData.in_memory("drawn", {"x": values}), rt.RunOptions("cpu", 1))


@cache
def analysis() -> rt.Analysis:
    return rt.analyze(bench(), settings=PLAIN.similarity)


def series(points: int, *protect: str, settings: PruneSettings = PLAIN, **limits: float) -> Curve:
    told.clear()
    budget = Budget(protect=protect, **limits)  # type: ignore[arg-type]
    return trade_off_curve(
        bench(),
        settings,
        analysis=analysis(),
        budget=budget,
        points=points,
        progress=lambda *step: told.append(step),
    )


@cache
def curve() -> Curve:
    return series(3)


def point(size: int, accuracy: float | None, agreement: float | None = None) -> CurvePoint:
    """A point with so many of 100 parameters."""
    known = curve().points[0].pruning
    before = replace(known.before, cost=replace(known.before.cost, parameters=100), accuracy=accuracy)
    after = replace(known.after, cost=replace(known.after.cost, parameters=size), accuracy=accuracy)
    outputs = (OutputAgreement("y", "values", None, "closeness", agreement),)
    judged = replace(known.agreement, outputs=outputs)
    return CurvePoint(replace(known, before=before, after=after, agreement=judged), 0.0)


def front(*points: CurvePoint) -> list[int]:
    return sorted(Curve(points, (), None, 0.01).front)


def test_sizes_go_from_few_layers_to_all() -> None:
    assert sum(layer.removable for layer in analysis().layers) == LAYERS
    assert [found.removed for found in curve().points] == [2, 5, 7]
    ends = [step.tensor for step in curve().points[0].pruning.plan.steps]
    removable = [layer.exit for layer in analysis().layers if layer.removable]
    assert ends == removable[-2:]  # those that rank first
    assert curve().points[0].pruning.plan.criterion == "tail"
    assert curve().skipped == ()
    sizes = [found.share for found in curve().points]
    assert sizes == sorted(sizes, reverse=True)
    found = curve().points[-1].pruning
    assert sizes[-1] == found.after.cost.parameters / found.before.cost.parameters < 1


def test_each_point_is_told() -> None:
    series(2)
    assert [step for step in told if step[2] == "pruning to a series of sizes"] == [
        (1, 2, "pruning to a series of sizes"),
        (2, 2, "pruning to a series of sizes"),
    ]


def test_more_points_than_layers_are_each_layer_once() -> None:
    names = [layer.name for layer in analysis().layers if layer.removable]
    found = series(9, *names[:4])
    assert [len(p.pruning.plan.steps) for p in found.points] == [1, 2, 3]
    kept = {step.region for step in found.points[-1].pruning.plan.steps}
    assert kept == set(names[4:])


def test_where_no_layer_can_go_there_is_no_series() -> None:
    with pytest.raises(rt.NegativeVerdictError, match="no layer can be removed") as error:
        series(3, "*")
    assert error.value.hint == "see `inspect`"


def test_the_smallest_model_within_the_limit_is_chosen() -> None:
    losses = [found.loss for found in curve().points]
    agreed = [found.pruning.agreement.value for found in curve().points]
    assert losses == [1 - (value or 0.0) for value in agreed]
    assert all(0 < loss < 1 for loss in losses)
    assert series(3, max_drop=1.0).chosen == 2
    nothing = series(3, max_drop=min(losses) / 2)
    assert (nothing.chosen, nothing.max_drop) == (None, min(losses) / 2)
    assert curve().max_drop == DEFAULT_MAX_DROP
    assert series(1, max_drop=losses[2]).chosen == 0  # the limit itself is tolerated


def test_a_size_that_can_not_be_had_is_skipped_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = curve_module.prune

    def refusing(bench: Workbench, plan: rt.Plan, *rest: object) -> Pruning:
        if len(plan.steps) == 5:
            raise rt.InputError("five layers are too many")
        return plain(bench, plan, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(curve_module, "prune", refusing)
    found = series(3)
    assert [p.removed for p in found.points] == [2, 7]
    assert found.skipped == ((5, "five layers are too many"),)
    assert found.document(["a", "b"])["skipped"] == [{"layers": 5, "reason": "five layers are too many"}]


def test_losses_are_those_of_the_repair_then_of_accuracy_then_of_agreement() -> None:
    known = point(50, 0.75, 0.875).pruning
    assert _loss(replace(known, repair=replace(known.repair, loss=0.0625))) == 0.0625
    assert _loss(replace(known, repair=replace(known.repair, loss=0.0))) == 0.0
    assert known.repair.loss is None
    better = replace(known, after=replace(known.after, accuracy=0.5))
    assert _loss(better) == 0.25
    for side in ("before", "after"):
        unlabelled = replace(better, **{side: replace(getattr(better, side), accuracy=None)})
        assert _loss(unlabelled) == 0.125
    assert _loss(point(50, None, None).pruning) == float("inf")


def test_quality_is_accuracy_or_agreement() -> None:
    assert point(50, 0.75, 0.5).quality == 0.75
    assert point(50, 0.0, 0.5).quality == 0.0
    assert point(50, None, 0.5).quality == 0.5
    assert point(50, None, None).quality is None
    assert point(30, 0.5).share == 0.3


@pytest.mark.parametrize(
    ("qualities", "expected"),
    [
        ([(50, 0.9), (40, 0.8), (30, 0.7)], [0, 1, 2]),
        ([(50, 0.9), (40, 0.9), (30, 0.7)], [1, 2]),  # equally good and smaller
        ([(50, 0.9), (50, 0.8), (30, 0.7)], [0, 2]),  # equally small and better
        ([(50, 0.9), (50, 0.9)], [0, 1]),  # the same
        ([(50, 0.7), (40, 0.8), (30, 0.9)], [2]),
        ([(50, None), (40, 0.8), (30, None)], [1]),
    ],
)
def test_the_front_holds_what_no_other_point_beats(
    qualities: list[tuple[int, float | None]], expected: list[int]
) -> None:
    assert front(*(point(size, quality) for size, quality in qualities)) == expected


def test_a_document_holds_every_point_with_its_file() -> None:
    found = replace(curve(), points=(replace(curve().points[0], loss=float("inf")), *curve().points[1:]))
    document = found.document(["a.onnx", "b.onnx", "c.onnx"])
    assert document["schema"].startswith("redtest-onnx/curve/")
    assert document["model"]["sha256"] == bench().model.sha256
    assert document["model"]["parameters"] == bench().cost.parameters
    assert [entry["output"] for entry in document["points"]] == ["a.onnx", "b.onnx", "c.onnx"]
    assert [entry["loss"] for entry in document["points"]] == [None, *(p.loss for p in curve().points[1:])]
    assert [len(entry["plan"]["steps"]) for entry in document["points"]] == [2, 5, 7]
    assert (document["chosen"], document["max_drop"]) == (curve().chosen, DEFAULT_MAX_DROP)
    with pytest.raises(ValueError, match=r"shorter|longer"):
        found.document(["a.onnx"])
    empty = Curve((), ((3, "why"),), None, 0.5).document(())
    assert "model" not in empty
    assert (empty["points"], empty["chosen"], empty["max_drop"]) == ([], None, 0.5)


def test_layers_that_need_an_adapter_are_left_without_data() -> None:
    net = Net(x=("n", 4, 8, 8))
    x = net("Relu", net.conv("x", 4, 6))
    for channels in ((6, 12), (12, 12)):
        x = net("Relu", net.conv(x, *channels, stride=channels[1] // channels[0]))
    model = net.model(net.conv(net("Relu", net.conv(x, 12, 12)), 12, 3))
    invented = Workbench(model, rt.open_data(None, model, count=24), rt.RunOptions("cpu", 1))
    known = rt.analyze(invented, settings=PLAIN.similarity)
    counts = [sum(layer.action == action for layer in known.layers) for action in ("bypass", "adapter")]
    assert min(counts) > 0
    found = trade_off_curve(invented, PLAIN, analysis=known, points=1)
    assert found.points[0].removed == counts[0]
    fitted = trade_off_curve(invented, replace(PLAIN, repair="adapter"), analysis=known, points=1)
    assert [p.removed for p in fitted.points] == [sum(counts)]
