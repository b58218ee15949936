"""Layers of graphs with several outputs, branches, embeddings, and why some can't go."""

from __future__ import annotations

import numpy as np
import pytest
from nets import Net, branch
from onnx import TensorProto, helper, numpy_helper

from redtest_onnx.graph.shapes import Shape, Shapes
from redtest_onnx.layers.layer import adaptable, every_activation, find_layers, has_branches


def layer_norm(net: Net, x: str) -> str:
    """LayerNormalization as exporters of old operator sets spell it out."""
    centred = net("Sub", x, net("ReduceMean", x, axes=[-1]))
    variance = net("ReduceMean", net("Pow", centred, net.store(2.0)), axes=[-1])
    scaled = net("Div", centred, net("Sqrt", net("Add", variance, net.store(1e-5))))
    return net("Add", net("Mul", scaled, net.weight(8)), net.weight(8))


def gelu(net: Net, x: str) -> str:
    error = net("Erf", net("Div", x, net.store(2**0.5)))
    return net("Mul", net("Mul", x, net("Add", error, net.store(1.0))), net.store(0.5))


def block(net: Net, x: str, name: str) -> tuple[str, str]:
    """One pre-norm transformer block."""
    normed = layer_norm(net, x)
    q, k, v = (net("Add", net("MatMul", normed, net.weight(8, 8)), net.weight(8)) for _ in range(3))
    scores = net("Softmax", net("MatMul", q, net("Transpose", k, perm=[0, 2, 1])))
    mixed = net("MatMul", net("MatMul", scores, v), net.weight(8, 8))
    a = net("Add", x, mixed, name=f"{name}.attn")
    wide = gelu(net, net("MatMul", layer_norm(net, a), net.weight(8, 16)))
    return a, net("Add", a, net("MatMul", wide, net.weight(16, 8)), name=f"{name}.mlp")


def test_an_embedding_ends_in_its_normalisation() -> None:
    net = Net()
    ids, kinds = (net.add_input(name, TensorProto.INT64, [1, 5]) for name in ("ids", "types"))
    summed = net("Add", net("Gather", net.weight(20, 8), ids), net("Gather", net.weight(2, 8), kinds))
    normed = net("LayerNormalization", summed, net.weight(8), net.weight(8), name="normed", axis=-1)
    a, b = block(net, normed, "block")
    layers = net.layers(net("MatMul", layer_norm(net, b), net.weight(8, 20), name="logits"))
    assert list(layers) == ["normed", a, b]
    assert layers["normed"].kind == "embedding"
    assert layers[a].input == "normed"


def test_language_model_from_its_embedding_on() -> None:
    net = Net()
    net.add_input("ids", TensorProto.INT64, [1, 5])
    net("Gather", net.weight(20, 8), "ids", name="embedding")
    positions = net("Gather", net.weight(16, 8), net.store(range(5), np.int64))
    x = net("Add", "embedding", positions, name="with positions")
    sub_layers = []
    for k in range(2):
        pair = block(net, x, f"block{k}")
        sub_layers += pair
        x = pair[1]
    layers = net.layers(net("MatMul", layer_norm(net, x), net.weight(8, 20), name="logits"))
    # What the first block reads is measured: rows of the table with positions added.
    assert list(layers) == ["with positions", *sub_layers]
    assert layers["with positions"].kind == "embedding"
    assert layers["with positions"].exit == "with positions"
    assert [layers[name].kind for name in sub_layers] == ["attention", "feed-forward"] * 2
    assert [layers[name].action for name in sub_layers] == ["bypass"] * 4
    assert layers["block0.attn"].input == "with positions"
    # Four matrices, three biases, scale and shift; constants of the formulas are none.
    assert layers["block0.attn"].parameters == 4 * 64 + 3 * 8 + 2 * 8
    assert layers["block0.mlp"].macs == 2 * 5 * 8 * 16


def test_detector_with_two_outputs() -> None:
    net = Net(x=[1, 3, 16, 16])
    h = net("Relu", net.conv("x", 3, 4, "stem"))
    h = net("Relu", net.conv(h, 4, 4, "body"), name="features")
    boxes = net.conv(net("Relu", net.conv(h, 4, 4, "boxes tower")), 4, 4, "boxes")
    scores = net("Sigmoid", net.conv(net("Relu", net.conv(h, 4, 4, "scores tower")), 4, 2, "scores"))
    layers = net.layers(boxes, scores)
    assert list(layers) == ["stem", "body", "boxes tower", "scores tower"]
    assert layers["boxes tower"].input == layers["scores tower"].input == "features"
    assert [layer.action for layer in layers.values()] == [None, "bypass", "bypass", "bypass"]


def test_a_network_inside_a_branch_is_one_layer_that_stays() -> None:
    net = Net(x=[1, 4])
    net("MatMul", "x", net.weight(4, 4), name="first")
    inner = numpy_helper.from_array(np.ones((4, 4), np.float32), "inner")
    net(
        "If",
        net.store(True, np.bool_),
        name="choice",
        then_branch=branch("then", [helper.make_node("MatMul", ["first", "inner"], ["then"])], [inner]),
        else_branch=branch("else", [helper.make_node("Identity", ["first"], ["else"])]),
    )
    net("MatMul", net("Relu", "choice"), net.weight(4, 2), name="y")
    layers = net.layers("y")
    assert list(layers) == ["first", "choice"]
    assert layers["choice"].action is None
    assert "control-flow" in (layers["choice"].reason or "")
    assert layers["choice"].parameters == 16


def test_a_branch_without_weights_is_no_layer() -> None:
    net = Net(x=[1, 4])
    net("MatMul", "x", net.weight(4, 4), name="first")
    net(
        "If",
        net.store(True, np.bool_),
        name="choice",
        then_branch=branch("then", [helper.make_node("Relu", ["first"], ["then"])]),
        else_branch=branch("else", [helper.make_node("Identity", ["first"], ["else"])]),
    )
    net("MatMul", "choice", net.weight(4, 2), name="y")
    assert list(net.layers("y")) == ["first"]


def test_bottleneck_with_projection_on_its_skip() -> None:
    net = Net(x=[1, 4, 8, 8])
    h = net("Relu", net.conv("x", 4, 4, "stem"), name="h")
    narrow = net("Relu", net("Conv", h, net.weight(2, 4, 1, 1)))
    narrow = net("Relu", net.conv(narrow, 2, 2))
    wide = net("Conv", narrow, net.weight(8, 2, 1, 1))
    skip = net("Conv", h, net.weight(8, 4, 1, 1))
    b = net("Relu", net("Add", wide, skip), name="bottleneck")
    layers = net.layers(net("Gemm", net("Flatten", net("GlobalAveragePool", b)), net.weight(8, 2)))
    assert list(layers) == ["stem", "bottleneck"]
    found = layers["bottleneck"]
    assert (found.kind, found.operators, found.action) == ("residual block", 8, "adapter")
    assert found.reason == "it changes the shape from 4x8x8 to 8x8x8"
    assert found.parameters == 8 + 36 + 16 + 32
    assert found.macs == 64 * found.parameters
    assert (found.added_parameters, found.added_macs) == ((4 + 1) * 8, 4 * 8 * 64)
    assert has_branches(layers.values())


def test_recurrent_layers() -> None:
    net = Net(x=[6, 1, 4])
    net("LSTM", "x", net.weight(1, 12, 4), net.weight(1, 12, 3), name="lstm", hidden_size=3)
    net("MatMul", net("Squeeze", "lstm", net.store([1], np.int64)), net.weight(3, 3), name="fc")
    layers = net.layers(net("MatMul", net("Relu", "fc"), net.weight(3, 2)))
    assert list(layers) == ["lstm", "fc"]
    assert layers["lstm"].kind == "LSTM"
    assert layers["lstm"].parameters == 12 * 7


def test_unknown_shapes_and_other_types_are_reasons() -> None:
    net = Net(x=[1, 4])
    h = net("MatMul", "x", net.weight(4, 4), name="h")
    net("Cast", net("MatMul", h, net.weight(4, 4), name="m"), name="half", to=TensorProto.FLOAT16)
    y = net("Cast", net("MatMul", "half", net("Cast", net.weight(4, 2), to=TensorProto.FLOAT16)), to=1)
    index, shapes = net.measured(y)
    reason = {layer.tensor: layer.reason for layer in find_layers(index, shapes)}["m"]
    assert reason == "it changes the type of its values"
    known = Shapes({name: size for name, size in shapes.sizes.items() if name != h}, shapes.dtypes)
    reason = {layer.tensor: layer.reason for layer in find_layers(index, known)}["m"]
    assert reason == "the shape of 'h' is unknown"


def test_every_activation_is_listed_once_with_its_owner() -> None:
    net = Net(x=[1, 4, 8, 8])
    h = net("Relu", net.conv("x", 4, 4, "stem"), name="h")
    inner = net.conv(net("Relu", net.conv(h, 4, 4, "c1"), name="r1"), 4, 4, "c2")
    net("Add", inner, h, name="block")
    net("Shape", "block", name="size")
    y = net("Gemm", net("Flatten", net("GlobalAveragePool", "block")), net.weight(4, 2), name="y")
    index, shapes = net.measured(y)
    series = find_layers(index, shapes)
    found = {layer.tensor: layer for layer in every_activation(index, shapes, series)}
    assert list(found)[:6] == ["stem", "h", "c1", "r1", "c2", "block"]
    assert "size" not in found
    assert [layer.index for layer in found.values()] == list(range(len(found)))
    assert found["block"].action == "bypass"
    assert found["c1"].reason == "it is a part of block"
    assert found["c1"].parameters == 4 * 4 * 9
    assert found["y"].reason == "it is no layer of its own"


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ((1, 4, 8, 8), (1, 8, 4, 4), True),
        ((1, 4, 8, 8), (1, 8, 4, 8), True),
        ((1, 4, 9, 9), (1, 8, 5, 5), True),
        ((1, 4, 4, 4), (1, 4, 8, 8), False),
        ((1, 16), (1, 8), True),
        ((1, 5, 16), (1, 5, 8), True),
        ((1, 5, 16), (1, 6, 16), False),
        ((2, 5, 16), (4, 5, 16), False),
        ((1, 4, 8, 8), (1, 256), False),
        ((1, 4, 8, 8, 8), (1, 8, 8, 8, 8), False),
    ],
)
def test_shapes_that_one_linear_operator_can_change(before: Shape, after: Shape, expected: bool) -> None:
    assert adaptable(before, after, channels_first=len(before) == 4) is expected


def test_signals_of_convolutions_change_their_channels() -> None:
    assert adaptable((1, 8, 12), (1, 16, 4), channels_first=True)
    assert adaptable((1, 8, 12), (1, 8, 5), channels_first=True)
    assert not adaptable((1, 8, 12), (1, 16, 4), channels_first=False)


def test_an_operator_with_two_outputs_is_one_layer() -> None:
    net = Net(x=[1, 4])
    h = net("Relu", net("MatMul", "x", net.weight(4, 4)))
    nodes = [
        helper.make_node("MatMul", [h, "w9"], ["product"]),
        helper.make_node("Relu", ["product"], ["positive"]),
    ]
    weight = numpy_helper.from_array(np.ones((4, 4), np.float32), "w9")
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("product", "positive")]
    one = helper.make_graph(nodes, "one", [], value, [weight])
    yes = net("Greater", net("ReduceMax", "x", keepdims=0), net.store(0))
    a, b = "a", "b"
    net.nodes.append(helper.make_node("If", [yes], [a, b], then_branch=one, else_branch=one))
    outputs = net("Identity", a), net("Identity", b)
    found = [layer for layer in net.layers(*outputs).values() if layer.kind == "If"]
    assert [layer.parameters for layer in found] == [32]
