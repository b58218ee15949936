"""Resizing what comes behind a gap: what is drawn, that it runs, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import redtest_onnx as rt
from redtest_onnx.cli.main import run
from redtest_onnx.graph.validity import full_check
from redtest_onnx.pruning.follow import follow_plan
from redtest_onnx.pruning.plan import Plan, Step
from redtest_onnx.pruning.prune import rewrite
from redtest_onnx.pruning.repair.reinit import reinitialised
from redtest_onnx.runtime.session import Session
from redtest_onnx.runtime.workbench import Workbench
from tests.nets import Net

MODELS = Path(__file__).parents[3] / "models"
REINIT = rt.PruneSettings(repair="reinit")


def bench_of(name: str, seed: int = 0) -> Workbench:
    model = rt.load(MODELS / f"{name}_digits.onnx")
    return Workbench(model, rt.open_data(MODELS / "digits.npz", model), seed=seed)


def plan_of(bench: Workbench, *indices: int) -> Plan:
    layers = bench.layers()
    return Plan("test", bench.digest, tuple(Step.of(layers[k]) for k in indices))


def adapters(bench: Workbench) -> list[int]:
    return [layer.index for layer in bench.layers() if layer.action == "adapter"]


@pytest.mark.parametrize("name", ["resnet", "vgg"])
def test_only_what_reads_a_gap_is_drawn_anew(name: str) -> None:
    bench = bench_of(name)
    before = {t.name: t for t in bench.model.graph.initializer}
    assert adapters(bench)
    for index in adapters(bench):
        model, drawn = reinitialised(bench, plan_of(bench, index))
        full_check(model)
        assert drawn
        fresh = [t for t in model.graph.initializer if t.name not in before]
        assert {t.name.partition("/reinit")[1] for t in fresh} == {"/reinit"}
        kept = [t for t in model.graph.initializer if t.name in before]
        assert all(t == before[t.name] for t in kept)
        outputs = Session(model).run(bench.sample)
        assert {k: v.shape for k, v in outputs.items()} == {
            k: v.shape for k, v in bench.session().run(bench.sample).items()
        }


def test_the_later_block_steps_and_projects_its_shortcut() -> None:
    bench = bench_of("resnet")
    model, drawn = reinitialised(bench, plan_of(bench, adapters(bench)[0]))
    assert [name.rpartition("/")[2] for name in drawn] == ["Conv", "projection"]
    nodes = {node.name: node for node in model.graph.node}
    for name in drawn:
        weight = model.initializers[nodes[name].input[1]]
        assert weight.dims[1] == 8  # channels of the stage before
        strides = next(list(a.ints) for a in nodes[name].attribute if a.name == "strides")
        assert strides == [2, 2]
        bound = 1 / np.sqrt(np.prod(weight.dims[1:]))
        values = model.value(weight)
        assert 0.9 * bound < np.abs(values).max() <= bound


def test_same_seed_same_bytes() -> None:
    first, again, other = (bench_of("resnet", seed) for seed in (0, 0, 1))
    plan = plan_of(first, adapters(first)[0])
    made = [rewrite(bench, plan, REINIT)[0].model.serialised() for bench in (first, again, other)]
    assert made[0] == made[1]
    assert made[0] != made[2]


@pytest.mark.parametrize("name", ["resnet", "vgg"])
def test_all_layers_can_go_and_the_classifier_takes_what_comes(name: str) -> None:
    bench = bench_of(name)
    removable = [layer.index for layer in bench.layers() if layer.removable]
    model, drawn = reinitialised(bench, plan_of(bench, *removable))
    assert len(drawn) == 1
    last = next(node for node in model.graph.node if node.name == drawn[0])
    assert last.op_type in ("Gemm", "MatMul")
    assert Session(model).run(bench.sample)[model.outputs[0].name].shape[1] == 10
    full_check(model)


def test_where_shapes_fit_nothing_is_drawn() -> None:
    bench = bench_of("resnet")
    pruned, repair = rewrite(bench, plan_of(bench, 2), REINIT)
    plain, _ = rewrite(bench, plan_of(bench, 2), rt.PruneSettings(repair="none"))
    assert repair.method == "none"
    assert "shapes fit" in (repair.reason or "")
    assert pruned.model.serialised() == plain.model.serialised()


def test_what_cannot_be_resized_is_refused_by_name() -> None:
    net = Net(x=("n", 4, 6, 6))
    first = net.conv("x", 4, 8, name="first")
    second = net.conv(first, 8, 16, name="second")
    depthwise = net("Conv", second, net.weight(16, 1, 3, 3), name="depthwise", group=16, pads=[1, 1, 1, 1])
    model = net.model(net.conv(depthwise, 16, 4))
    samples = {"x": np.random.default_rng(0).normal(size=(16, 4, 6, 6)).astype(np.float32)}
    bench = Workbench(model, rt.open_data(samples, model))
    index = next(k for k in adapters(bench) if bench.layers()[k].name == "second")
    with pytest.raises(rt.InputError, match="depthwise") as error:
        reinitialised(bench, plan_of(bench, index))
    assert "second" in error.value.what
    assert "repair='adapter'" in (error.value.hint or "")


@pytest.mark.parametrize("kind", ["LayerNormalization", "BatchNormalization"])
def test_normalisations_start_as_the_identity(kind: str) -> None:
    """A residual block that normalises first, behind a layer of more channels."""
    images = kind == "BatchNormalization"
    net = Net(x=("n", 6, 4, 4) if images else ("n", 6))

    def linear(source: str, inputs: int, outputs: int) -> str:
        return (
            net.conv(source, inputs, outputs)
            if images
            else net("MatMul", source, net.weight(inputs, outputs))
        )

    first = net("Relu", linear("x", 6, 8))
    wide = net("Relu", linear(first, 8, 12), name="wide")
    statistics = [net.store(np.full(12, value)) for value in ((2.0, 3.0, 4.0, 5.0) if images else (2.0, 3.0))]
    last = {} if images else {"axis": 1}
    normal = net(kind, wide, *statistics, name="normal", **last)
    block = net("Add", linear(net("Relu", normal), 12, 12), wide)
    model = net.model(linear(net("Relu", linear(net("Relu", block), 12, 12)), 12, 3))
    samples = {
        "x": np.random.default_rng(0).normal(size=(16, 6, 4, 4) if images else (16, 6)).astype(np.float32)
    }
    bench = Workbench(model, rt.open_data(samples, model))
    plan = Plan("test", bench.digest, (Step("wide", first, "wide", "adapter", None, 0, 0),))
    pruned, drawn = reinitialised(bench, plan)
    assert len(drawn) == 3  # the normalisation, the operator behind it, and a projection of the shortcut
    node = next(node for node in pruned.graph.node if node.output[0] == "normal")
    found = [pruned.value(pruned.initializers[name]) for name in node.input[1:]]
    for values, expected in zip(found, (1.0, 0.0, 0.0, 1.0), strict=False):
        np.testing.assert_array_equal(values, np.full(8, expected, np.float32))
    assert len(found) == len(statistics)
    projection = next(node for node in pruned.graph.node if node.output[0].endswith("/projection"))
    weight = pruned.initializers[projection.input[1]]
    assert list(weight.dims) == ([12, 8, 1, 1] if images else [8, 12])
    full_check(pruned)
    Session(pruned).run(bench.sample)


def test_a_sum_of_what_changed_alike_is_handed_on() -> None:
    net = Net(x=("n", 4, 6, 6))
    first = net.conv("x", 4, 8)
    net.conv(first, 8, 16, name="wide")
    both = net("Add", net("Relu", "wide"), net("Tanh", "wide"), name="both")
    model = net.model(net.conv(net.conv(both, 16, 16, name="next"), 16, 4))
    samples = {"x": np.random.default_rng(0).normal(size=(16, 4, 6, 6)).astype(np.float32)}
    bench = Workbench(model, rt.open_data(samples, model))
    plan = Plan("test", bench.digest, (Step("wide", first, "wide", "adapter", None, 0, 0),))
    pruned, drawn = reinitialised(bench, plan)
    assert drawn == ("node_next",)
    full_check(pruned)
    Session(pruned).run(bench.sample)


def test_sizes_that_a_file_does_not_tell_are_refused() -> None:
    net = Net(x=("n", 4, 6, 6))
    first = net.conv("x", 4, 8)
    net.conv(first, 8, 16, name="wide")
    sizes = net("Constant", value_ints=[-1, 16, 6, 6])
    same = net("Reshape", "wide", sizes, name="same")
    model = net.model(net.conv(net("Relu", same), 16, 4))
    samples = {"x": np.random.default_rng(0).normal(size=(16, 4, 6, 6)).astype(np.float32)}
    bench = Workbench(model, rt.open_data(samples, model))
    plan = Plan("test", bench.digest, (Step("wide", first, "wide", "adapter", None, 0, 0),))
    with pytest.raises(rt.InputError, match="the sizes behind Reshape node_same can't be told"):
        reinitialised(bench, plan)


def test_a_branch_that_reads_what_changed_is_named() -> None:
    net = Net(x=("n", 4))
    net.add_input("flag", onnx.TensorProto.BOOL, [])
    net("MatMul", "x", net.weight(4, 6), name="entry")
    net("MatMul", "entry", net.weight(6, 12), name="wide")
    bent = net("Relu", "wide", name="bent")
    value = onnx.helper.make_tensor_value_info
    sides = [
        onnx.helper.make_graph(
            [onnx.helper.make_node(kind, [bent], [f"{kind}.out"])],
            kind,
            [],
            [value(f"{kind}.out", onnx.TensorProto.FLOAT, None)],
        )
        for kind in ("Tanh", "Sigmoid")
    ]
    chosen = net("If", "flag", then_branch=sides[0], else_branch=sides[1], name="chosen")
    model = net.model(net("MatMul", chosen, net.weight(12, 3), name="y"))
    bench = Workbench(model, rt.open_data(None, model, count=4))
    plan = Plan("test", model.sha256, (Step("gone", "entry", "wide", "adapter", None, 0, 0),))
    with pytest.raises(rt.InputError, match="a branch of If reads it"):
        reinitialised(bench, plan)


def test_a_partner_file_does_not_get_weights_of_another_size() -> None:
    bench, partner = bench_of("vgg"), bench_of("vgg")
    plan = plan_of(bench, adapters(bench)[-1])
    model, drawn = reinitialised(bench, plan)
    with pytest.raises(rt.InputError, match="can't be carried over") as error:
        follow_plan(bench, model, plan, partner)
    assert drawn[0] in error.value.what


def test_a_limit_of_loss_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(rt.InputError, match="drawn anew"):
        rt.plan(bench_of("vgg"), settings=REINIT, budget=rt.Budget())
    call = ["prune", str(MODELS / "vgg_digits.onnx"), "--data", str(MODELS / "digits.npz")]
    output = tmp_path / "out.onnx"
    assert run([*call, "-o", str(output), "--repair", "reinit", "--samples", "32"]) == 2
    assert "--remove" in capsys.readouterr().err
    assert not output.exists()
    plan = tmp_path / "plan.json"
    plan.write_text('{"steps": [{"region": "features.14"}]}', encoding="utf-8")
    assert run([*call, "-o", str(output), "--repair", "reinit", "--samples", "32", "--plan", str(plan)]) == 0
    assert "drew anew" in capsys.readouterr().out
    assert output.exists()


def test_the_method_is_checked_where_it_is_said() -> None:
    with pytest.raises(rt.InputError, match="reinit"):
        rt.PruneSettings(repair="reinitialise")  # type: ignore[arg-type]
