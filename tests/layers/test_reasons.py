"""Why layers have to stay, in full sentences, and which operators are predictions and no layers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from nets import Net, branch
from onnx import TensorProto, helper

from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.layers.layer import _frees_nothing, find_layers
from redtest_onnx.layers.regions import Region, describe, escaping_tensor, find_regions, measurable_at_entry


def block(net: Net, source: str, name: str, size: int = 4) -> str:
    inner = net("Relu", net("MatMul", source, net.weight(size, size), name=f"{name}.inner"))
    return net("Add", net("MatMul", inner, net.weight(size, size)), source, name=name)


def sequence() -> tuple[Net, str]:
    net = Net(x=(1, 6, 4))
    entry = net("MatMul", "x", net.weight(4, 4), name="entry")
    return net, block(net, entry, "block")


def test_sizes_that_others_read_hold_a_layer_unless_the_entry_has_them() -> None:
    def reason(size: int) -> str | None:
        net = Net(x=(1, 6, 4))
        entry = net("MatMul", "x", net.weight(4, 4), name="entry")
        inner = net("MatMul", entry, net.weight(4, size), name="inner")
        exit_ = net("Add", net("MatMul", net("Relu", inner), net.weight(size, 4)), entry, name="exit")
        shape = net("Shape", inner)
        moved = net("Gather", shape, net.store(1, np.int64))
        sized = net(
            "Reshape",
            exit_,
            net(
                "Concat",
                *[
                    net("Unsqueeze", part, net.store([0], np.int64))
                    for part in (net.store(1, np.int64), moved, net.store(4, np.int64))
                ],
                axis=0,
            ),
        )
        net("MatMul", net("Relu", sized), net.weight(4, 3), name="y")
        return net.layers("y")["exit"].reason

    assert reason(4) is None
    assert reason(7) == "other layers read their sizes off its inner tensor 'inner'"


def test_a_region_can_be_measured_where_its_entry_has_the_same_sizes() -> None:
    net = Net(x=(1, 6, 4))
    entry = net("MatMul", "x", net.weight(4, 4), name="entry")
    same = net("Relu", net("MatMul", entry, net.weight(4, 4), name="product"), name="same")
    other = net("Transpose", same, perm=[0, 2, 1], name="turned")
    net(
        "MatMul",
        net("Reshape", other, net.store([1, 6, 4], np.int64), name="back"),
        net.weight(4, 4),
        name="exit",
    )
    index = GraphIndex(net.model("exit").graph)
    region = Region(entry, "exit", "exit", index.between(entry, "exit"), frozenset())
    sizes = {
        "entry": (1, 6, 4),
        "product": (1, 6, 4),
        "same": (1, 6, 4),
        "turned": (1, 4, 6),
        "back": (1, 6, 4),
    }
    found = {name for name in sizes if measurable_at_entry(index, region, name, sizes)}
    assert found == {"entry", "product", "same"}  # `back` has them by chance
    assert not measurable_at_entry(index, replace(region, entry=None), "same", sizes)
    assert not measurable_at_entry(index, region, "same", {})


def test_outputs_and_readers_are_told_apart() -> None:
    net = Net(x=(1, 4))
    a = net("MatMul", "x", net.weight(4, 4), name="a")
    b = net("Relu", a, name="b")
    net("MatMul", b, net.weight(4, 4), name="c")
    net("Tanh", b, name="d")
    index = GraphIndex(net.model("c").graph)
    region = Region("a", "c", "c", frozenset({1, 2}), frozenset())
    assert escaping_tensor(index, region) == "its inner tensor 'b' is also read by node_d"
    outside = GraphIndex(net.model("c", "b").graph)
    assert escaping_tensor(outside, region) == "its inner tensor 'b' is also an output of the model"
    del net.nodes[-1]
    assert escaping_tensor(GraphIndex(net.model("c").graph), region) is None


def test_nodes_are_described_by_name_or_by_what_they_make() -> None:
    net = Net(x=(1, 4))
    net("Relu", "x", name="a")
    net("Tanh", "a", name="b")
    net.nodes[1].name = ""
    index = GraphIndex(net.model("b").graph)
    assert [describe(index, k) for k in (0, 1)] == ["node_a", "Tanh -> b"]


def test_a_branch_that_depends_on_what_is_fed_stays_whole() -> None:
    net = Net(x=(1, 4))
    net.add_input("flag", TensorProto.BOOL, [])
    first = net("MatMul", "x", net.weight(4, 4), name="first")
    weight = net.weight(4, 4)
    sides = [
        branch(
            side,
            [
                helper.make_node("MatMul", [first, weight], [f"{side}.m"]),
                helper.make_node(op, [f"{side}.m"], [f"{side}.out"]),
            ],
        )
        for side, op in (("then", "Relu"), ("else", "Tanh"))
    ]
    chosen = net("If", "flag", then_branch=sides[0], else_branch=sides[1], name="chosen")
    net("MatMul", net("Relu", chosen), net.weight(4, 3), name="y")
    layer = net.layers("y")["chosen"]
    assert layer.action is None
    assert layer.reason == (
        "its network lies inside the control-flow operator If, which stays whole: its condition 'flag' "
        "depends on what is fed, or the other branch shares values with it"
    )


def names(net: Net, *outputs: str) -> list[str]:
    model = net.model(*outputs)
    index = GraphIndex(model.graph)
    ranks = {name: len(shape) for name, shape in net.measured(*outputs)[1].sizes.items()}
    return [region.tensor for region in find_regions(index, ranks)]


def test_fully_connected_operators_behind_images_are_predictions() -> None:
    net = Net(x=(1, 3, 8, 8))
    body = net("Relu", net.conv(net("Relu", net.conv("x", 3, 4, "c1")), 4, 4, "c2"))
    flat = net("Flatten", body)
    first = net("Relu", net("MatMul", flat, net.weight(256, 8), name="f1"))
    net("MatMul", net("Relu", net("MatMul", first, net.weight(8, 8), name="f2")), net.weight(8, 3), name="y")
    assert names(net, "y") == ["c1", "c2"]


def test_behind_vectors_only_the_last_operator_predicts() -> None:
    net = Net(x=(1, 4))
    first = net("Relu", net("MatMul", "x", net.weight(4, 4), name="a"))
    second = net("Relu", net("MatMul", first, net.weight(4, 4), name="b"))
    net("MatMul", second, net.weight(4, 3), name="y")
    assert names(net, "y") == ["a", "b"]


def test_each_output_has_its_own_prediction_and_shared_operators_are_layers() -> None:
    net = Net(x=(1, 4))
    body = net("Relu", net("MatMul", "x", net.weight(4, 4), name="a"))
    neck = net("MatMul", body, net.weight(4, 4), name="neck")
    one = net("MatMul", net("Relu", neck), net.weight(4, 2), name="one")
    two = net("MatMul", net("Tanh", neck), net.weight(4, 3), name="two")
    assert names(net, one, two) == ["a", "neck"]
    assert names(net, one, two, neck) == ["a", "neck"]


def test_a_block_at_the_end_is_no_mere_prediction() -> None:
    net, exit_ = sequence()
    assert names(net, exit_) == ["entry", "block"]


def test_a_loop_stays_whole_and_what_frees_nothing_says_so() -> None:
    net = Net(x=(1, 4))
    first = net("MatMul", "x", net.weight(4, 4), name="first")
    weight = net.weight(4, 4)
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state", weight], ["next"]),
            helper.make_node("Identity", ["going"], ["still"]),
        ],
        "body",
        [
            value("step", TensorProto.INT64, []),
            value("going", TensorProto.BOOL, []),
            value("state", TensorProto.FLOAT, [1, 4]),
        ],
        [value("still", TensorProto.BOOL, []), value("next", TensorProto.FLOAT, [1, 4])],
    )
    looped = net("Loop", net.store(3, np.int64), "", first, body=body, name="looped")
    net("MatMul", net("Relu", looped), net.weight(4, 3), name="y")
    assert net.layers("y")["looped"].reason == (
        "its network lies inside the control-flow operator Loop, which stays whole: it runs once per step"
    )
    assert _frees_nothing(None) == (
        "removing it frees neither parameters nor multiply-accumulates: others need its weights, too"
    )


def test_an_operator_ends_where_the_model_gives_its_value() -> None:
    net = Net(x=(1, 4))
    first = net("MatMul", "x", net.weight(4, 4), name="a")
    bent = net("Relu", first, name="b")
    net("MatMul", net("Relu", net("MatMul", bent, net.weight(4, 4), name="c")), net.weight(4, 3), name="y")
    ends = {layer.tensor: layer.exit for layer in find_layers(*net.measured("y"), granularity="operator")}
    assert ends["a"] == "b"
    ends = {
        layer.tensor: layer.exit for layer in find_layers(*net.measured("y", "a"), granularity="operator")
    }
    assert ends["a"] == "a"


@pytest.mark.parametrize("between", ["Identity", "Dropout", None])
def test_a_stage_goes_on_behind_what_only_hands_on(between: str | None) -> None:
    net = Net(x=(1, 6))
    source = block(net, net("MatMul", "x", net.weight(6, 4), name="entry"), "one")
    source = source if between is None else net(between, source)
    source = block(net, source, "two")
    net("MatMul", net("Relu", source), net.weight(4, 3), name="y")
    found = find_layers(*net.measured("y"), granularity="stage")
    assert [layer.input for layer in found] == [None, "entry"]
    assert found[1].kind == "stage"
    assert found[1].parameters == 4 * 4 * 4


@pytest.mark.parametrize("behind", [(), ("Squeeze",), ("Squeeze", "Tanh"), ("Tanh",)])
def test_a_recurrent_layer_takes_along_what_makes_it_a_sequence_again(behind: tuple[str, ...]) -> None:
    net = Net(opset=17, x=(5, 1, 4))
    first = net("MatMul", "x", net.weight(4, 4), name="first")
    source = net("LSTM", first, net.weight(1, 16, 4), net.weight(1, 16, 4), hidden_size=4, name="cell")
    made = ["cell"]
    for k, operator in enumerate(behind):
        operands = [net.store([1], np.int64)] if operator == "Squeeze" else []
        source = net(operator, source, *operands, name=f"b{k}")
        made.append(source)
    index, shapes = net.measured(source)
    ranks = {name: len(shape) for name, shape in shapes.sizes.items()}
    regions = {region.tensor: region for region in find_regions(index, ranks)}
    assert regions["cell"].entry == "first"
    assert regions["cell"].exit == made[-1]


@pytest.mark.parametrize("spelt_out", [False, True])
def test_a_normalisation_behind_a_block_belongs_to_it_where_one_stands_in_front(spelt_out: bool) -> None:
    """As post-norm transformers have it, in one operator or in five."""
    net = Net(x=(1, 5, 4))

    def norm(value: str, name: str) -> str:
        if not spelt_out:
            return net("LayerNormalization", value, net.weight(4), net.weight(4), name=name)
        centred = net("Sub", value, net("ReduceMean", value, axes=[-1]))
        spread = net("ReduceMean", net("Mul", centred, centred), axes=[-1])
        return net("Div", centred, net("Sqrt", spread), name=name)

    first = norm(net("MatMul", "x", net.weight(4, 4), name="entry"), "n0")
    second = norm(block(net, first, "one"), "n1")
    third = norm(block(net, second, "two"), "n2")
    net("MatMul", net("ReduceMean", third, axes=[1], keepdims=0), net.weight(4, 3), name="y")
    index, shapes = net.measured("y")
    ranks = {name: len(shape) for name, shape in shapes.sizes.items()}
    assert [(region.entry, region.exit) for region in find_regions(index, ranks)][1:] == [
        ("n0", "n1"),
        ("n1", "n2"),
    ]


def test_sizes_of_vectors_without_samples_in_front_are_told() -> None:
    net = Net(x=[20])
    hidden = net("MatMul", "x", net.weight(20, 16))
    narrow = net("Relu", net("MatMul", hidden, net.weight(16, 12), name="narrow"))
    net("MatMul", narrow, net.weight(12, 3), name="y")
    assert net.layers("y")["narrow"].reason == "it changes the shape from 16 to 12, which no adapter can do"
