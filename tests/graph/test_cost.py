"""Costs against counts by hand, with inferred shapes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from nets import Net, branch
from onnx import TensorProto, helper, numpy_helper

import redtest_onnx as rt
from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.cost import (
    count_macs,
    count_parameters,
    model_cost,
    parameter_bytes,
    peak_activation_bytes,
)
from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.graph.shapes import Shapes
from redtest_onnx.runtime.workbench import Workbench


def macs(net: Net, output: str) -> int | None:
    return count_macs(*net.measured(output))


def test_grouped_strided_convolution() -> None:
    net = Net(x=[2, 6, 9, 9])
    y = net("Conv", "x", net.weight(4, 3, 3, 3), net.weight(4), group=2, strides=[2, 2])
    assert macs(net, y) == 2 * 4 * 4 * 4 * (3 * 3 * 3)


def test_depthwise_convolution_of_a_signal() -> None:
    net = Net(x=[1, 8, 20])
    assert macs(net, net("Conv", "x", net.weight(8, 1, 5), group=8)) == 8 * 16 * 5


def test_transposed_convolution_spreads_every_input() -> None:
    net = Net(x=[1, 4, 5, 5])
    y = net("ConvTranspose", "x", net.weight(4, 3, 2, 2), group=2, strides=[2, 2])
    assert macs(net, y) == 4 * 25 * 3 * 4


@pytest.mark.parametrize(("shape", "trans"), [([3, 7], 0), ([7, 3], 1)])
def test_gemm(shape: list[int], trans: int) -> None:
    net = Net(x=shape)
    assert macs(net, net("Gemm", "x", net.weight(5, 7), transA=trans, transB=1)) == 3 * 5 * 7


def test_batched_products_broadcast() -> None:
    net = Net(a=[2, 1, 4, 8], b=[3, 8, 5])
    assert macs(net, net("MatMul", "a", "b")) == 2 * 3 * 4 * 5 * 8


def test_both_directions_of_a_recurrent_layer() -> None:
    net = Net(x=[7, 2, 4])
    y = net("GRU", "x", net.weight(2, 9, 4), net.weight(2, 9, 3), hidden_size=3, direction="bidirectional")
    assert macs(net, y) == 7 * 2 * 2 * 9 * (4 + 3)


@pytest.mark.parametrize(
    ("equation", "expected"),
    [
        ("bhij,bhjk->bhik", 2 * 3 * 4 * 5 * 6),
        ("...ij, ...jk -> ...ik", 2 * 3 * 4 * 5 * 6),
        ("bhij,bhjk->bk", 2 * 3 * 4 * 5 * 6),
    ],
)
def test_einsum(equation: str, expected: int) -> None:
    net = Net(a=[2, 3, 4, 5], b=[2, 3, 5, 6])
    assert macs(net, net("Einsum", "a", "b", equation=equation)) == expected


def test_unknown_shapes_make_macs_unknown() -> None:
    net = Net(x=[6, 1, 4])
    y = net("LSTM", "x", net.weight(1, 12, 4), net.weight(1, 12, 3), hidden_size=3)
    index, shapes = net.measured(y)
    for missing in ("x", "w0", "w1"):
        known = Shapes({name: size for name, size in shapes.sizes.items() if name != missing}, shapes.dtypes)
        assert count_macs(index, known) is None


def test_products_inside_branches_are_not_taken_for_nothing() -> None:
    net = Net(x=[1, 4])
    inner = numpy_helper.from_array(np.ones((4, 4), np.float32), "inner")
    product = helper.make_node("MatMul", ["x", "inner"], ["then"])
    relu = branch("else", [helper.make_node("Relu", ["x"], ["else"])])
    net(
        "If",
        net.store(True, np.bool_),
        name="y",
        then_branch=branch("t", [product], [inner]),
        else_branch=relu,
    )
    assert macs(net, "y") is None
    plain = Net(x=[1, 4])
    plain("If", plain.store(True, np.bool_), name="y", then_branch=relu, else_branch=relu)
    assert macs(plain, "y") == 0


def test_fused_attention_projects_and_mixes() -> None:
    node = helper.make_node("Attention", ["x", "w", "b"], ["y"], domain="com.microsoft", num_heads=2)
    index = GraphIndex(helper.make_graph([node], "g", [], []))
    sizes = {"x": (2, 5, 8), "w": (8, 24), "b": (24,), "y": (2, 5, 8)}
    assert count_macs(index, Shapes(sizes)) == 2 * 5 * 8 * 24 + 2 * (2 * 5 * 5 * 8)


@pytest.mark.parametrize(
    ("op", "domain", "inputs", "expected"),
    [
        ("Attention", "", ["q", "k", "v", "", "past", "past"], 2 * 8 * (1 + 100)),
        (
            "MultiHeadAttention",
            "com.microsoft",
            ["q", "k", "v", *"123", "past"],
            2 * 8 * 101,
        ),
        ("Attention", "com.microsoft", ["q", "w", "b", "", "past"], 8 * 24 + 2 * 8 * 101),
        ("QAttention", "com.microsoft", ["q", "w", "b", *"12345", "past"], 8 * 24 + 2 * 8 * 101),
    ],
)
def test_attention_reads_the_keys_of_the_cache(
    op: str, domain: str, inputs: list[str], expected: int
) -> None:
    known = {
        "q": (1, 1, 8),
        "k": (1, 1, 8),
        "v": (1, 1, 8),
        "w": (8, 24),
        "past": (1, 2, 100, 4),
        "y": (1, 1, 8),
    }
    node = helper.make_node(op, inputs, ["y"], domain=domain)
    assert count_macs(GraphIndex(helper.make_graph([node], "g", [], [])), Shapes(known)) == expected
    node = helper.make_node(op, inputs, ["y", "present"], domain=domain)
    known["present"] = (1, 2, 101, 4)
    assert count_macs(GraphIndex(helper.make_graph([node], "g", [], [])), Shapes(known)) == expected


@pytest.mark.parametrize(
    "op", sorted((ops.WEIGHT_INPUTS.keys() - ops.TABLES) | (ops.ATTENTION - {"Softmax"}))
)
def test_operators_that_multiply_are_counted_or_unknown(op: str) -> None:
    """Of sizes that fit nothing: a rule asks for them, and without one nothing is known."""
    domain, _, kind = op.rpartition(":")
    node = helper.make_node(kind, [f"x{k}" for k in range(9)], ["y"], domain=domain)
    assert count_macs(GraphIndex(helper.make_graph([node], "g", [], [])), Shapes({})) is None


def test_a_fixed_number_of_samples_costs_as_much_for_each(tmp_path: Path) -> None:
    costs = []
    for batch in ("n", 4):
        net = Net(x=[batch, 6])
        h = net("Relu", net("Gemm", "x", net.weight(6, 8), net.weight(8)))
        path = tmp_path / f"{batch}.onnx"
        onnx.save(net.model(net("Gemm", h, net.weight(8, 3), name="y")).proto, path)
        bench = rt.open_workbench(path)
        costs.append(bench.cost)
        assert [layer.macs for layer in bench.layers()] == [6 * 8]
    opened, fixed = costs
    assert opened.macs == fixed.macs == 6 * 8 + 8 * 3
    assert (opened.run_samples, fixed.run_samples) == (1, 4)
    assert fixed.peak_activation_bytes == 4 * (opened.peak_activation_bytes or 0)


def test_stored_queries_that_work_on_one_another_cost_something() -> None:
    """Their sizes are seen in a run only, and their values depend on no input."""
    net = Net(x=["n", 4, 8])
    count = net("Gather", net("Shape", "x"), net.store([0], np.int64))
    sizes = net("Concat", count, net.store([5, 8], np.int64), axis=0)
    # An exporter's way to say "-1 keeps a size" hides what inference could tell.
    asked = net(
        "Where", net("Equal", sizes, net.store([-1] * 3, np.int64)), net.store([1] * 3, np.int64), sizes
    )
    queries = net("MatMul", net("Expand", net.weight(1, 5, 8), asked), net.weight(8, 8))
    keys = net("Transpose", "x", perm=[0, 2, 1])
    out = net("MatMul", net("Add", queries, net("Relu", queries)), keys, name="out")
    model = net.model(out)
    bench = Workbench(model, rt.open_data(None, model), rt.RunOptions("cpu", 1))
    assert bench.cost.macs == 5 * 8 * 8 + 5 * 4 * 8


def test_parameters_are_what_was_learned() -> None:
    net = Net(x=[1, 4, 8, 8])
    c = net("Conv", "x", net.weight(4, 4, 3, 3), net.weight(4))
    n = net("BatchNormalization", c, *(net.weight(4) for _ in range(4)))
    n = net("Mul", n, net.store(0.5))
    n = net("Reshape", n, net.store([1, -1], np.int64))
    constant = net("Constant", value=numpy_helper.from_array(np.ones((144, 2), np.float32)))
    y = net("MatMul", n, constant)
    index, shapes = net.measured(y)
    assert count_parameters(index) == 144 + 4 + 2 * 4 + 288
    assert count_parameters(index, [0]) == 144 + 4
    assert parameter_bytes(index) == 4 * (144 + 4 + 4 * 4 + 1 + 288) + 2 * 8
    assert model_cost(index, shapes).parameters == count_parameters(index)


def test_shared_weights_count_once_and_go_with_their_last_reader() -> None:
    net = Net(x=[1, 4])
    shared = net.weight(4, 4)
    net("MatMul", net("MatMul", "x", shared), shared, name="y")
    index, _ = net.measured("y")
    assert count_parameters(index) == 16
    assert count_parameters(index, [0]) == 0
    assert count_parameters(index, [0, 1]) == 16


def test_weights_in_branches_and_few_bits() -> None:
    net = Net(21, x=[1, 4])
    inner = numpy_helper.from_array(np.ones((4, 4), np.float32), "inner")
    product = helper.make_node("MatMul", ["x", "inner"], ["then"])
    relu = branch("else", [helper.make_node("Relu", ["x"], ["else"])])
    net(
        "If",
        net.store(True, np.bool_),
        name="h",
        then_branch=branch("t", [product], [inner]),
        else_branch=relu,
    )
    net.weights.append(helper.make_tensor("w4", TensorProto.INT4, [5], bytes(3), raw=True))
    net("Sub", "h", net("DequantizeLinear", "w4", net.store(1.0)), name="y")
    index = GraphIndex(net.model("y").graph)
    assert count_parameters(index) == 16 + 5
    assert parameter_bytes(index) == 1 + 64 + 3 + 4


def test_peak_with_a_skip_and_a_dead_end() -> None:
    net = Net(x=[1, 4])
    net("Gemm", "x", net.weight(4, 100), name="h")
    net("Split", "h", net.store([60, 40], np.int64), outputs=2, axis=1)
    net("Gemm", "h", net.weight(100, 50), name="a")
    net("Softmax", "a", name="b")
    net("Gemm", "b", net.weight(50, 100), name="c")
    net("Add", "c", "h", name="y")
    index, shapes = net.measured("y")
    # Split makes halves beside h that nobody reads; c needs b and h besides itself, Add works in place.
    # The caller holds the input all the time.
    expected = 4 * (4 + max(100 + 100, 100 + 50 + 50, 100 + 50 + 100, 200))
    assert peak_activation_bytes(index, shapes) == expected


def test_outputs_stay_alive_and_types_have_sizes() -> None:
    net = Net(x=[1, 10])
    net("Cast", "x", name="half", to=TensorProto.FLOAT16)
    net("Cast", net("Softmax", "half"), name="kept", to=TensorProto.FLOAT)
    assert peak_activation_bytes(*net.measured("kept")) == 10 * 4 + 10 * 2 + 10 * 4
    net("Softmax", "kept", name="y")
    net("Softmax", "y", name="z")
    assert peak_activation_bytes(*net.measured("z")) == 10 * 4 * 3
    assert peak_activation_bytes(*net.measured("kept", "z")) == 10 * 4 * 4


def test_free_buffers_are_taken_again_for_the_same_shape_only() -> None:
    net = Net(x=[1, 10])
    h = net("Gemm", "x", net.weight(10, 100), name="a")
    for k, width in enumerate((60, 100, 60, 100)):
        h = net("Gemm", h, net.weight(100 if width == 60 else 60, width), name=f"h{k}")
    y = net("Gemm", h, net.weight(100, 10), name="y")
    # One buffer of either width, taken turn by turn; held beside the input.
    assert peak_activation_bytes(*net.measured(y)) == 4 * (10 + 100 + 60)


def test_unknown_shapes_make_the_peak_unknown() -> None:
    index, shapes = (net := Net(x=[1, 10])).measured(net("Relu", "x", name="y"))
    assert peak_activation_bytes(index, shapes) == 40 + 40
    assert peak_activation_bytes(index, Shapes({"x": (1, 10)}, shapes.dtypes)) is None


@pytest.mark.parametrize(
    ("shape", "attributes"),
    [
        ([7, 3], {"transA": 1}),
        ([3, 7], {}),
        ([2, 7, 3], {"transA": 1}),
        ([7, 2, 3], {"transA": 1, "transBatchA": 1}),
    ],
)
def test_fused_products_with_a_transposed_factor(shape: list[int], attributes: dict[str, int]) -> None:
    node = helper.make_node("FusedMatMul", ["a", "b"], ["y"], domain="com.microsoft", **attributes)
    batch = 2 if len(shape) == 3 else 1
    out = (2, 3, 5) if len(shape) == 3 else (3, 5)
    shapes = Shapes({"a": tuple(shape), "b": (7, 5), "y": out})
    assert count_macs(GraphIndex(helper.make_graph([node], "g", [], [])), shapes) == batch * 3 * 7 * 5


def test_what_a_branch_needs_counts_for_the_peak() -> None:
    net = Net(x=[4, 10])
    wide = [
        helper.make_node("Concat", ["x"] * 20, ["wide"], axis=0),
        helper.make_node("ReduceSum", ["wide"], ["narrow"], keepdims=1),
    ]
    plain = [helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=1)]
    yes = net("Greater", net("ReduceMax", "x", keepdims=0), net.store(0))
    net("If", yes, name="y", then_branch=branch("a", wide), else_branch=branch("b", plain))
    peak = peak_activation_bytes(*net.measured("y"))
    assert peak is not None
    assert 4 * 10 * 4 * 21 <= peak < 4 * 10 * 4 * 22


def test_a_branch_of_unknown_shapes_leaves_the_peak_unknown() -> None:
    net = Net(x=[4, 10])
    picked = [
        helper.make_node("NonZero", ["x"], ["where"]),
        helper.make_node("Cast", ["where"], ["z"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["z"], ["sum"], keepdims=0),
    ]
    plain = [helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0)]
    yes = net("Greater", net("ReduceMax", "x", keepdims=0), net.store(0))
    net("If", yes, name="y", then_branch=branch("a", picked), else_branch=branch("b", plain))
    assert peak_activation_bytes(*net.measured("y")) is None


def test_branches_whose_results_differ_in_rank_leave_the_memory_known() -> None:
    net = Net(x=[1, 4, 1])
    h = net("Relu", net("MatMul", net.weight(8, 4), "x"))
    squeezed = helper.make_node("Squeeze", [h, net.store([2], np.int64)], ["flat"])
    kept = helper.make_node("Identity", [h], ["whole"])
    flag = net("Less", net("ReduceMax", h, keepdims=0), net.store(1e9))
    y = net("If", flag, then_branch=branch("then", [squeezed]), else_branch=branch("else", [kept]))
    net("Relu", y, name="y")
    model = net.model("y")
    bench = Workbench(model, rt.open_data(None, model), rt.RunOptions("cpu", 1))
    assert bench.cost.peak_activation_bytes is not None
    assert bench.cost.peak_activation_bytes >= 4 * (4 + 8 + 8)
