"""Values of synthetic inputs: rows of the tables they point into, and lengths of whole sequences."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import redtest_onnx as rt
from redtest_onnx.data.synthetic import Synthetic
from redtest_onnx.runtime.session import Session
from tests.nets import Net

INT = TensorProto.INT64
ROWS = 23


def table(net: Net, rows: int = ROWS) -> str:
    return net.weight(rows, 8)


def plain(net: Net) -> str:
    return net("Gather", table(net), "ids")


def cast(net: Net) -> str:
    return net("Gather", table(net), net("Cast", "ids", to=TensorProto.INT32))


def identity_table(net: Net) -> str:
    return net("Gather", net("Identity", table(net)), "ids")


def constant_table(net: Net) -> str:
    values = numpy_helper.from_array(np.zeros((ROWS, 8), np.float32))
    net.nodes.append(helper.make_node("Constant", [], ["stored"], value=values))
    return net("Gather", "stored", "ids")


def turned_table(net: Net) -> str:
    return net("Gather", net("Transpose", net.weight(8, ROWS), perm=[1, 0]), "ids")


def shifted_up(net: Net) -> str:
    return net("Gather", table(net, ROWS + 2), net("Add", "ids", net.store(2, np.int64)))


def shifted_down(net: Net) -> str:
    return net("Gather", table(net, ROWS - 1), net("Sub", "ids", net.store(1, np.int64)))


def gather_nd(net: Net) -> str:
    return net("GatherND", table(net), net("Unsqueeze", "ids", net.store([2], np.int64)))


def one_hot(net: Net) -> str:
    codes = net("OneHot", "ids", net.store(ROWS, np.int64), net.store([0, 1]))
    return net("MatMul", codes, table(net))


def compared_one_hot(net: Net) -> str:
    column = net("Unsqueeze", "ids", net.store([2], np.int64))
    equal = net("Equal", column, net.store(np.arange(ROWS).reshape(1, 1, ROWS), np.int64))
    return net("MatMul", net("Cast", equal, to=TensorProto.FLOAT), table(net))


def two_tables(net: Net) -> str:
    return net("Add", net("Gather", table(net), "ids"), net("Gather", table(net, 100), "ids"))


KINDS = [plain, cast, identity_table, constant_table, turned_table, shifted_up, gather_nd, one_hot]
KINDS += [compared_one_hot, two_tables, shifted_down]


def ids_of(model: rt.Model, count: int = 200) -> np.ndarray:
    feeds = Synthetic(model, 0, count, {}).inputs(np.arange(count))
    Session(model).run(feeds)  # indices beyond their table are refused
    return feeds["ids"]


@pytest.mark.parametrize("build", KINDS)
def test_indices_cover_the_whole_table(build: Callable[[Net], str]) -> None:
    net = Net()
    net.add_input("ids", INT, ["N", 4])
    build(net)
    values = ids_of(net.model(net.nodes[-1].output[0]))
    assert len(np.unique(values)) >= ROWS - 2
    assert values.min() == (1 if build is shifted_down else 0)


def test_columns_have_tables_of_their_own() -> None:
    net = Net()
    net.add_input("ids", INT, ["N", 2])
    first, second = (net("Gather", "ids", net.store(k, np.int64), axis=1) for k in (0, 1))
    net("Add", net("Gather", table(net, 100), first), net("Gather", table(net, 3), second), name="y")
    values = ids_of(net.model("y"))
    assert values[:, 0].max() > 90
    assert values[:, 1].max() == 2


@pytest.mark.parametrize("how", ["Slice", "Split"])
def test_parts_of_an_input_have_tables_of_their_own(how: str) -> None:
    net = Net(opset=18)
    net.add_input("ids", INT, ["N", 4])
    if how == "Split":
        net("Split", "ids", outputs=2, axis=1, num_outputs=2)
        parts = list(net.nodes[-1].output)
    else:
        bounds = [[net.store([k], np.int64) for k in row] for row in ((0, 2, 1), (2, 4, 1))]
        parts = [net("Slice", "ids", *row) for row in bounds]
    net("Add", net("Gather", table(net, 100), parts[0]), net("Gather", table(net, 3), parts[1]), name="y")
    values = ids_of(net.model("y"))
    assert values[:, :2].max() > 90
    assert values[:, 2:].max() == 2


def test_rows_of_a_graph_lie_within_its_nodes() -> None:
    net = Net(x=["N", 8])
    net.add_input("edges", INT, [2, "E"])
    net(
        "Gather",
        net("MatMul", "x", net.weight(8, 8)),
        net("Gather", "edges", net.store(0, np.int64)),
        name="y",
    )
    model = net.model("y")
    feeds = Synthetic(model, 0, 8, {"x": (5, 8), "edges": (2, 300)}).inputs([0])
    assert feeds["x"].shape == (5, 8)
    assert set(np.unique(feeds["edges"][0])) == set(range(5))


def masked(name: str) -> rt.Model:
    """Positions 0, 1, ... below the length are kept."""
    net = Net()
    net.add_input("ids", INT, ["N", "T"])
    net.add_input(name, INT, ["N"])
    values = net("Gather", table(net), "ids")
    steps = net("Gather", net("Shape", "ids"), net.store(1, np.int64))
    positions = net("Range", net.store(0, np.int64), steps, net.store(1, np.int64))
    kept = net("Less", positions, net("Unsqueeze", name, net.store([1], np.int64)))
    mask = net("Cast", net("Unsqueeze", kept, net.store([2], np.int64)), to=TensorProto.FLOAT)
    net("Mul", values, mask, name="y")
    return net.model("y")


@pytest.mark.parametrize("name", ["lengths", "whatever"])
def test_lengths_are_those_of_the_whole_sequence(name: str) -> None:
    model = masked(name)
    feeds = Synthetic(model, 0, 8, {}).inputs([0, 1])
    assert feeds[name].tolist() == [feeds["ids"].shape[1]] * 2
    longer = Synthetic(model, 0, 8, {"ids": (1, 40)}).inputs([0, 1])
    assert longer[name].tolist() == [40, 40]


def test_the_lengths_of_a_recurrent_operator() -> None:
    net = Net(x=["T", "N", 4])
    net.add_input("valid", TensorProto.INT32, ["N"])
    net("GRU", "x", net.weight(1, 24, 4), net.weight(1, 24, 8), "", "valid", outputs=2, hidden_size=8)
    feeds = Synthetic(net.model(net.nodes[-1].output[1]), 0, 8, {}).inputs([0, 1])
    assert feeds["x"].shape == (16, 2, 4)
    assert feeds["valid"].tolist() == [16, 16]


def test_a_sample_does_not_depend_on_the_run_it_is_in() -> None:
    net = Net()
    net.add_input("ids", INT, ["N", 4])
    plain(net)
    data = Synthetic(net.model(net.nodes[-1].output[0]), 3, 10, {})
    together = data.inputs(np.arange(10))["ids"]
    assert np.array_equal(together[7:8], data.inputs([7])["ids"])
    assert not np.array_equal(together[7], together[8])


def test_a_model_without_samples_gets_another_sample_each_run() -> None:
    net = Net(x=["T", "F"])
    net(
        "GRU",
        net("Unsqueeze", "x", net.store([1], np.int64)),
        net.weight(1, 24, 4),
        net.weight(1, 24, 8),
        outputs=2,
        hidden_size=8,
    )
    data = Synthetic(net.model(net.nodes[-1].output[0]), 0, 10, {})
    assert not np.array_equal(data.inputs([0])["x"], data.inputs([1])["x"])
    assert onnx.TensorProto.FLOAT == 1


def pooled_graphs(counted_by: str) -> Net:
    """Nodes get a weight and are pooled over the graphs that they belong to by their largest value."""
    net = Net(opset=18)
    net.add_input("x", TensorProto.FLOAT, ["nodes", 8])
    net.add_input("batch", INT, ["nodes"])
    if counted_by == "slots":
        net.add_input("graph_slots", TensorProto.FLOAT, ["graphs"])
        count = net("Shape", "graph_slots")
    else:
        net.add_input("num_graphs", INT, [] if counted_by == "scalar" else [1])
        count = "num_graphs"
        if counted_by == "scalar":
            count = net("Unsqueeze", count, net.store([0], np.int64))
    sizes = net("Concat", count, net.store([8], np.int64), axis=0)
    empty = helper.make_tensor("none", TensorProto.FLOAT, [1], [-np.inf])
    start = net("ConstantOfShape", sizes, value=empty)
    rows = net("Relu", net("MatMul", "x", net.weight(8, 8)))
    places = net("Expand", net("Unsqueeze", "batch", net.store([1], np.int64)), net("Shape", rows))
    pooled = net("ScatterElements", start, places, rows, axis=0, reduction="max")
    net("MatMul", pooled, net.weight(8, 3), name="y")
    return net


@pytest.mark.parametrize("counted_by", ["slots", "scalar", "vector"])
def test_no_graph_is_without_nodes(counted_by: str) -> None:
    model = pooled_graphs(counted_by).model("y")
    scores = Session(model, rt.RunOptions("cpu", 1)).run(Synthetic(model, 0, 4, {}).inputs([0]))["y"]
    assert scores.shape == (1, 3)
    assert np.isfinite(scores).all()


@pytest.mark.parametrize(("side", "count"), [(8, 2560), (2000, 315), (12000, 96)])
def test_large_models_get_fewer_samples(side: int, count: int) -> None:
    net = Net(x=["N", 3, side, side])
    net.conv("x", 3, 4, name="a")
    net.conv("a", 4, 8, name="b")
    net("ReduceMean", "b", axes=[2, 3], name="y")
    model = net.model("y")
    macs = side * side * 9 * (3 * 4 + 4 * 8)
    assert len(Synthetic(model, 0, None, {})) == count == max(96, min(2560, 5 * 10**11 // macs))
    assert len(Synthetic(model, 0, 7, {})) == 7


def test_sizes_that_are_unknown_leave_the_weights_to_tell() -> None:
    net = Net(x=["N", 8])
    kept = net("NonZero", net("MatMul", "x", net.weight(8, 8)))
    net("MatMul", net("Cast", net("Transpose", kept), to=1), net.weight(2, 3), name="y")
    assert len(Synthetic(net.model("y"), 0, None, {})) == 2560


@pytest.mark.parametrize("states", [(), ("past_key_values.0.decoder.key",)])
def test_what_an_encoder_gave_is_no_zeros(states: tuple[str, ...]) -> None:
    """Zeros would make a cross-attention give nothing, so that to remove it seemed free."""
    net = Net(opset=18, input_ids=["n", 4])
    cross = net.add_input("past_key_values.0.encoder.key", TensorProto.FLOAT, ["n", 2, "frames", 8])
    for name in states:
        net.add_input(name, TensorProto.FLOAT, ["n", 2, 3, 8])
    found = rt.open_data(None, net.model(net("MatMul", cross, net.weight(8, 4)))).inputs([0, 1, 2])
    assert found[cross].std() == (pytest.approx(1, abs=0.2) if states else 0)
    assert all(not found[name].any() for name in states)


@pytest.mark.parametrize("filler", [0, ROWS - 1])
def test_ids_are_never_the_one_that_fills_up(filler: int) -> None:
    """Ids are held against that of padding; a sample of nothing else gives NaN where padding is masked."""
    net = Net(opset=18)
    ids = net.add_input("ids", INT, ["n", 6])
    padding = net("Cast", net("Equal", ids, net.store(filler, np.int64)), to=TensorProto.FLOAT)
    masked = net("Add", net("Gather", table(net), ids), net("Unsqueeze", padding, net.store([2], np.int64)))
    found = rt.open_data(None, net.model(masked)).inputs(range(64))["ids"]
    assert set(found.flat) == set(range(ROWS)) - {filler}


def test_a_flag_is_what_it_is_held_against() -> None:
    net = Net(opset=18, x=["n", 4])
    flag = net.add_input("rate", INT, [])
    chosen = net("Where", net("Equal", flag, net.store(16000, np.int64)), "x", net("Neg", "x"))
    found = rt.open_data(None, net.model(net("MatMul", chosen, net.weight(4, 2)))).inputs([0, 1])
    assert found["rate"] == 16000
