"""Least-squares repair on small nets whose right answer is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from nets import Net
from onnx import TensorProto

import redtest_onnx as rt
from redtest_onnx.graph.cost import count_parameters
from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.graph.linear_operators import linear_operators
from redtest_onnx.pruning.apply import AdapterInsertion, apply_plan, apply_with_adapters
from redtest_onnx.pruning.plan import Plan, Step
from redtest_onnx.pruning.repair import joint
from redtest_onnx.pruning.repair.fit import FitSettings, fit_to_original
from redtest_onnx.pruning.repair.pairs import upstream_operator
from redtest_onnx.pruning.repair.refit import Effort, refit
from redtest_onnx.pruning.repair.repair import RepairSettings, repair
from redtest_onnx.runtime.session import RunOptions, Session
from redtest_onnx.runtime.workbench import Workbench

CPU = RunOptions(device="cpu", threads=1)
CONVOLUTIONS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "plain": ((6, 6, 3, 3), {"pads": [1, 1, 1, 1]}),
    "strided": ((6, 6, 3, 3), {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
    "uneven padding": ((6, 6, 2, 3), {"pads": [1, 0, 0, 2]}),
    "dilated": ((6, 6, 3, 3), {"pads": [2, 2, 2, 2], "dilations": [2, 2]}),
    "grouped": ((6, 3, 3, 3), {"pads": [1, 1, 1, 1], "group": 2}),
    "depthwise": ((6, 1, 3, 3), {"pads": [1, 1, 1, 1], "group": 6}),
    "same": ((6, 6, 2, 2), {"auto_pad": "SAME_UPPER"}),
    "line": ((6, 6, 3), {"pads": [1, 1]}),
}


def saved(folder: Path, net: Net, output: str, inputs: np.ndarray[Any, Any]) -> tuple[rt.Model, rt.Dataset]:
    path = folder / "net.onnx"
    onnx.save(net.model(output).proto, path)
    np.savez(folder / "data.npz", x=inputs)
    model = rt.load(path)
    return model, rt.open_data(folder / "data.npz", model)


def noise(*sizes: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(5).normal(size=sizes).astype(np.float32)


GAP = Step("gap", "h0", "h1", "bypass", None, 0, 0)


def without(model: rt.Model, data: rt.Dataset, entry: str, exit_: str, **options: Any) -> rt.Model:
    """The model without what lies between two tensors, repaired on all samples."""
    plan = Plan("test", model.sha256, (Step("gap", entry, exit_, "bypass", None, 0, 0),))
    bench = Workbench(model, data, CPU)
    pruned = AdapterInsertion(apply_plan(bench, plan))
    return refit(bench, pruned, plan, np.arange(len(data)), **options)[0]


def error(model: rt.Model, other: rt.Model, data: rt.Dataset) -> float:
    feeds = data.inputs(np.arange(len(data)))
    wanted, found = (next(iter(Session(m, CPU).run(feeds).values())) for m in (model, other))
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def test_all_nodes_of_the_graph_of_a_run_are_fitted_to() -> None:
    net = Net(x=["nodes", 8])
    net.add_input("edges", TensorProto.INT64, [2, "E"])
    wide = net("MatMul", net("MatMul", "x", net.weight(8, 6), name="a"), net.weight(6, 6), name="b")
    source = net("Gather", "edges", net.store(0, np.int64), axis=0)
    net("MatMul", net("Gather", wide, source, axis=0), net.weight(6, 3), name="y")
    model, rng = net.model("y"), np.random.default_rng(0)
    graphs = {"x": noise(10, 7, 8), "edges": rng.integers(0, 7, (10, 2, 12))}
    data = rt.open_data(graphs, model)
    plan = Plan("test", model.sha256, (Step("b", "a", "b", "bypass", None, 0, 0),))
    bench = Workbench(model, data, CPU)
    pruned = AdapterInsertion(apply_plan(bench, plan))
    repaired, done = refit(bench, pruned, plan, np.arange(10), scope="gaps")
    assert [fit.rows for fit in done] == [70]
    for k in range(10):
        wanted, found = (Session(m, CPU).run(data.inputs([k]))["y"] for m in (model, repaired))
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-2)


def per_channel_scale(net: Net, source: str, case: str) -> str:
    """A linear operator that the convolution in front of it could do, too."""
    lines = case == "line"
    sizes = (6, 1, 1) if lines else (6, 1, 1, 1)
    return net("Conv", source, net.weight(*sizes), name="b", group=6)


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_a_convolution_takes_over_what_is_linear(case: str, tmp_path: Path) -> None:
    sizes, attributes = CONVOLUTIONS[case]
    spatial = [9] if case == "line" else [7, 9]
    net = Net(x=[None, 6, *spatial])
    net("Conv", "x", net.weight(*sizes), net.weight(6), name="a", **attributes)
    net("Relu", per_channel_scale(net, "a", case), name="r")
    net("Flatten", "r", name="y")
    model, data = saved(tmp_path, net, "y", noise(64, 6, *spatial))
    step = Step("gap", "a", "b", "bypass", None, 0, 0)
    plain = apply_plan(Workbench(model, data, CPU), Plan("test", model.sha256, (step,)))
    fitted = without(model, data, "a", "b")
    assert error(model, plain, data) > 0.3
    assert error(model, fitted, data) < 2e-3


@pytest.mark.parametrize("op", ["MatMul", "Gemm", "Gemm transposed", "MatMul scaled"])
def test_a_product_takes_over_what_is_linear(op: str, tmp_path: Path) -> None:
    net = Net(x=[None, 8])
    transposed = op == "Gemm transposed"
    net(op.split()[0], "x", net.weight(8, 8), name="p", **({"transB": 1} if transposed else {}))
    net("Mul", "p", net.weight(8), name="a") if op == "MatMul scaled" else net("Identity", "p", name="a")
    net("MatMul", "a", net.weight(8, 8), name="b")
    net("Tanh", "b", name="y")
    model, data = saved(tmp_path, net, "y", noise(200, 8))
    entry = "p" if op != "MatMul scaled" else "a"
    assert error(model, without(model, data, entry, "b"), data) < 2e-3


def residual_net(tmp_path: Path, inputs: np.ndarray[Any, Any]) -> tuple[rt.Model, rt.Dataset]:
    net = Net(x=[None, 6])
    h = net("MatMul", "x", net.weight(6, 6), name="h0")
    for k in range(3):
        wide = net("Relu", net("Gemm", h, net.weight(6, 16), net.weight(16)))
        h = net("Add", net("Gemm", wide, net.weight(16, 6), net.weight(6)), h, name=f"h{k + 1}")
    net("MatMul", h, net.weight(6, 4), name="y")
    return saved(tmp_path, net, "y", inputs)


def test_two_operators_together_do_better_than_one(tmp_path: Path) -> None:
    model, data = residual_net(tmp_path, noise(600, 6))
    alone, together = (error(model, without(model, data, "h1", "h2", effort=Effort(r)), data) for r in (0, 3))
    assert together < 0.97 * alone


@pytest.mark.parametrize("least", [0.998, 0.9])
def test_rounds_end_where_they_bring_nothing_more(
    least: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joint, "_LEAST_GAIN", least)
    model, data = residual_net(tmp_path, noise(3000, 6))
    plan = Plan("test", model.sha256, (Step("gap", "h1", "h2", "bypass", None, 0, 0),))
    bench = Workbench(model, data, CPU)
    pruned = AdapterInsertion(apply_plan(bench, plan))

    def fitted(rounds: int) -> tuple[rt.Model, int]:
        found, records = refit(bench, pruned, plan, np.arange(len(data)), effort=Effort(rounds))
        return found, max(one.rounds for one in records)

    long, needed = fitted(60)
    assert 1 < needed < 60
    assert fitted(needed)[0].serialised() == long.serialised()
    assert fitted(needed - 1)[0].serialised() != long.serialised()


def test_the_first_of_a_pair_is_free_to_change(tmp_path: Path) -> None:
    """An operator whose values go elsewhere, too, is none."""
    net = Net(x=[None, 6])
    net("MatMul", "x", net.weight(6, 6), name="a")
    net("Relu", "a", name="r")
    net("MatMul", "r", net.weight(6, 6), name="b")
    for skip, expected in ((False, True), (True, False)):
        if skip:
            net("Add", "b", "r", name="s")
        model = net.model("s" if skip else "b")
        index = GraphIndex(model.graph)
        operators = linear_operators(model)
        by_target = {operator.target: operator for operator in operators}
        second = max(operators, key=lambda operator: operator.node)
        assert (upstream_operator(index, second, by_target) is not None) == expected


def test_operators_that_shared_weights_get_their_own_once(tmp_path: Path) -> None:
    net = Net(x=[None, 6])
    shared, bias = net.weight(6, 6), net.weight(6)
    h = net("Gemm", "x", shared, bias, name="h0")
    for k in range(3):
        h = net("Gemm", net("Relu", h), shared, bias, name=f"h{k + 1}")
    model, data = saved(tmp_path, net, "h3", noise(300, 6))
    fitted = without(model, data, "h0", "h1")
    onnx.checker.check_model(fitted.proto, full_check=True)
    names = [tensor.name for tensor in fitted.graph.initializer]
    assert len(names) == len(set(names))


def tied_net(folder: Path) -> tuple[rt.Model, rt.Dataset]:
    """Behind a gap, two operators that share weights and one with its own."""
    net = Net(x=[None, 6])
    first = net("Gemm", "x", net.weight(6, 6), net.weight(6), name="h0")
    second = net("Gemm", net("Relu", first), net.weight(6, 6), net.weight(6), name="h1")
    shared = net.weight(6, 6)
    third = net("MatMul", net("Relu", second), shared, name="t0")
    tied = net("MatMul", net("Relu", third), shared, name="t1")
    net("Gemm", net("Relu", tied), net.weight(6, 3), net.weight(3), name="y")
    return saved(folder, net, "y", noise(300, 6))


def test_operators_that_share_weights_can_stay_tied(tmp_path: Path) -> None:
    model, data = tied_net(tmp_path)
    plain = without(model, data, "h0", "h1")
    tied = without(model, data, "h0", "h1", effort=Effort(untie=False))
    assert count_parameters(GraphIndex(tied.graph)) < count_parameters(GraphIndex(plain.graph))
    removed = apply_plan(Workbench(model, data, CPU), Plan("test", model.sha256, (GAP,)))
    assert error(model, tied, data) < error(model, removed, data)


def test_a_repair_that_unties_too_much_is_made_with_tied_weights(tmp_path: Path) -> None:
    model, data = tied_net(tmp_path)
    bench, plan = Workbench(model, data, CPU), Plan("test", model.sha256, (GAP,))
    pruned = apply_plan(bench, plan)
    most = count_parameters(GraphIndex(pruned.graph))
    kept, found = repair(
        *(bench, pruned, plan, RepairSettings("refit")),
        allows=lambda candidate: (candidate.cost.parameters or 0) <= most,
    )
    assert found.method == "refit"
    assert found.refits
    assert kept.cost.parameters == most


@pytest.mark.parametrize("kind", ["constant", "zero", "collinear", "few", "huge"])
def test_poor_calibration_data_never_gives_nan(kind: str, tmp_path: Path) -> None:
    inputs = {
        "constant": np.ones((40, 6), np.float32),
        "zero": np.zeros((40, 6), np.float32),
        "collinear": np.outer(np.arange(40), np.ones(6)).astype(np.float32),
        "few": noise(3, 6),
        "huge": noise(40, 6) * np.float32(1e18),
    }[kind]
    model, data = residual_net(tmp_path, inputs)
    fitted = without(model, data, "h1", "h2")
    assert fitted.graph.initializer
    for tensor in fitted.graph.initializer:
        assert np.isfinite(fitted.value(tensor)).all(), tensor.name


@pytest.mark.parametrize("kernel", [1, 3])
def test_adapters_fill_gaps(kernel: int, tmp_path: Path) -> None:
    net = Net(x=[None, 4, 6, 6])
    h = net("Relu", net("Conv", "x", net.weight(4, 4, 3, 3), pads=[1] * 4), name="a")
    for _ in range(2):
        h = net("Relu", net("Conv", h, net.weight(4, 4, 3, 3), pads=[1] * 4))
    net("Flatten", h, name="y")
    model, data = saved(tmp_path, net, "y", noise(64, 4, 6, 6))
    plan = Plan("test", model.sha256, (Step("gap", "a", h, "bypass", None, 0, 0),))
    bench = Workbench(model, data, CPU)
    adapted = apply_with_adapters(bench, plan, kernel)
    assert adapted.exits == {h}
    indices = np.arange(len(data))
    fitted, done = refit(bench, adapted, plan, indices, effort=Effort(0))
    assert len(done) == 1
    assert done[0].unknowns == 4 * kernel**2
    assert done[0].condition >= 1
    weights = {tuple(t.dims) for t in fitted.graph.initializer}
    assert (4, 4, kernel, kernel) in weights
    judge = bench.evaluator(indices)
    plain = judge.evaluate(apply_plan(bench, plan)).agreement.relative_l2
    assert judge.evaluate(fitted).agreement.relative_l2 < 0.95 * plain


def test_larger_windows_fit_better(tmp_path: Path) -> None:
    errors = []
    for kernel in (1, 3):
        net = Net(x=[None, 4, 6, 6])
        net("Sigmoid", net("Conv", "x", net.weight(4, 4, 1, 1)), name="a")
        net("Conv", "a", net.weight(4, 4, 3, 3), name="b", pads=[1] * 4)
        net("Flatten", "b", name="y")
        model, data = saved(tmp_path, net, "y", noise(64, 4, 6, 6))
        plan = Plan("test", model.sha256, (Step("gap", "a", "b", "bypass", None, 0, 0),))
        bench = Workbench(model, data, CPU)
        adapted = apply_with_adapters(bench, plan, kernel)
        fitted, _ = refit(bench, adapted, plan, np.arange(len(data)), effort=Effort(0))
        errors.append(error(model, fitted, data))
    assert errors[0] > 0.3
    assert errors[1] < 2e-3


def test_an_adapter_is_folded_into_the_operator_in_front_where_nothing_stands_between(tmp_path: Path) -> None:
    net = Net(x=[None, 6])
    net("Gemm", "x", net.weight(6, 6), net.weight(6), name="a")
    net("Gemm", "a", net.weight(6, 6), net.weight(6), name="b")
    net("Tanh", "b", name="y")
    model, data = saved(tmp_path, net, "y", noise(200, 6))
    plan = Plan("test", model.sha256, (Step("gap", "a", "b", "bypass", None, 0, 0),))
    bench = Workbench(model, data, CPU)
    pruned = apply_plan(bench, plan)
    settings = FitSettings("adapter", np.arange(len(data)))
    fitted, done = fit_to_original(bench, pruned, plan, settings)
    assert len(done) == 1
    assert count_parameters(GraphIndex(fitted.graph)) == count_parameters(GraphIndex(pruned.graph))
    assert error(model, fitted, data) < 2e-3


def test_weights_that_are_right_are_not_turned(tmp_path: Path) -> None:
    """A block that adds nothing, as it begins in training: without it everything is as before."""
    net = Net(x=("n", 6))
    source = net("Relu", net("MatMul", "x", net.weight(6, 6)), name="h0")
    inner = net("Relu", net("MatMul", source, net.weight(6, 6)))
    nothing = net("MatMul", inner, net.store(np.zeros((6, 6))))
    behind = net("Relu", net("Add", nothing, source), name="h1")
    net("MatMul", behind, net.weight(6, 3), name="y")
    model, data = saved(tmp_path, net, "y", noise(400, 6))
    repaired = without(model, data, "h0", "h1")
    assert len(repaired.graph.initializer) == 2
    for tensor in repaired.graph.initializer:
        [before] = [other for other in model.graph.initializer if other.name == tensor.name]
        assert np.array_equal(model.value(before), repaired.value(tensor))


def test_small_losses_of_half_precision_are_fitted(tmp_path: Path) -> None:
    """A block that adds three hundredths, which is far more than rounding to float16 leaves."""

    net = Net(x=("n", 6))
    narrow = net("Cast", "x", to=TensorProto.FLOAT16)
    weights = [factor * noise(6, width) for factor, width in ((1, 6), (0.015, 6), (1, 3))]
    first, block, last = (net.store(values, np.float16) for values in weights)
    source = net("MatMul", narrow, first, name="h0")
    behind = net("Add", net("MatMul", source, block), source, name="h1")
    net("Cast", net("MatMul", behind, last), to=TensorProto.FLOAT, name="y")
    model, data = saved(tmp_path, net, "y", noise(400, 6))
    plain = apply_plan(Workbench(model, data, CPU), Plan("test", model.sha256, (GAP,)))
    assert error(model, plain, data) > 0.01
    assert error(model, without(model, data, "h0", "h1"), data) < 2e-3
