"""Layers of small graphs written by hand, and of real ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nets import Net
from onnx import TensorProto, helper, numpy_helper

import redtest_onnx as rt
from redtest_onnx.graph.cost import count_macs, count_parameters
from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.graph.memory_plan import peak_activation_bytes
from redtest_onnx.graph.shapes import Shapes, infer_shapes
from redtest_onnx.layers.layer import find_layers
from redtest_onnx.runtime.workbench import Workbench

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "models"


def test_residual_net() -> None:
    net = Net(x=[1, 3, 8, 8])
    h = net("Relu", net.conv("x", 3, 4, "stem"), name="h")
    b = net.conv(net("Relu", net.conv(h, 4, 4)), 4, 4)
    s = net("Relu", net("Add", b, h), name="block")
    p = net.conv(net("Relu", net.conv(s, 4, 8, stride=2)), 8, 8)
    short = net("Conv", s, net.weight(8, 4, 1, 1), strides=[2, 2])
    t = net("Relu", net("Add", p, short), name="down")
    logits = net("Gemm", net("Flatten", net("GlobalAveragePool", t)), net.weight(8, 10), name="logits")
    layers = net.layers(logits)
    assert list(layers) == ["stem", "block", "down"]
    assert layers["stem"].reason is not None
    assert "model's input" in layers["stem"].reason
    assert (layers["stem"].exit, layers["block"].input, layers["block"].action) == ("h", "h", "bypass")
    assert layers["block"].kind == "residual block"
    assert layers["block"].parameters == 2 * 4 * 4 * 9
    assert layers["block"].macs == 2 * 4 * 4 * 9 * 64
    assert layers["down"].action == "adapter"
    assert layers["down"].added_parameters == (4 * 4 + 1) * 8


def test_plain_chain_takes_activation_and_normalisation_along() -> None:
    net = Net(x=[1, 3, 8, 8])
    h = net("Relu", net.conv("x", 3, 4))
    c = net.conv(h, 4, 4, "second")
    stats = [net.weight(4) for _ in range(4)]
    n = net("Relu", net("BatchNormalization", c, *stats), name="end")
    logits = net(
        "Gemm",
        net("Flatten", net("GlobalAveragePool", net("MaxPool", n, kernel_shape=[2, 2]))),
        net.weight(4, 2),
    )
    layer = net.layers(logits)["second"]
    assert (layer.input, layer.tensor, layer.exit) == (h, "second", "end")


def transformer(net: Net, x: str, *, post_norm: bool) -> tuple[str, str]:
    def norm(v: str, name: str | None = None) -> str:
        centred = net("Sub", v, net("ReduceMean", v, axes=[-1]))
        variance = net("ReduceMean", net("Mul", centred, centred), axes=[-1])
        return net("Div", centred, net("Sqrt", variance), name=name)

    a = x if post_norm else norm(x)
    q, k, v = (net("MatMul", a, net.weight(8, 8)) for _ in range(3))
    scores = net("Softmax", net("Add", net("MatMul", q, net("Transpose", k, perm=[0, 2, 1])), "mask"))
    attention = net(
        "Add", net("MatMul", net("MatMul", scores, v), net.weight(8, 8)), x, name=f"attention_{x}"
    )
    middle = norm(attention, f"attention_norm_{x}") if post_norm else attention
    f = middle if post_norm else norm(middle)
    wide = net("MatMul", f, net.weight(8, 16))
    gelu = net("Mul", wide, net("Sigmoid", wide))
    out = net("Add", net("MatMul", gelu, net.weight(16, 8)), middle, name=f"mlp_{x}")
    return middle, norm(out, f"mlp_norm_{x}") if post_norm else out


@pytest.mark.parametrize("post_norm", [False, True])
def test_transformer_has_two_sub_layers_a_block(post_norm: bool) -> None:
    net = Net(x=[1, 5, 3], mask=[1, 5, 5])
    h = net("MatMul", "x", net.weight(3, 8), name="embed")
    if post_norm:
        centred = net("Sub", h, net("ReduceMean", h, axes=[-1]))
        h = net("Div", centred, net("Sqrt", net("ReduceMean", net("Mul", centred, centred), axes=[-1])))
    a, b = transformer(net, h, post_norm=post_norm)
    c, d = transformer(net, b, post_norm=post_norm)
    pooled = net("ReduceMean", d, axes=[1], keepdims=0)
    layers = net.layers(net("MatMul", pooled, net.weight(8, 2), name="logits"))
    assert list(layers) == ["embed", a, b, c, d]
    assert [layer.kind for layer in layers.values()][1:] == ["attention", "feed-forward"] * 2
    assert all(layers[name].action == "bypass" for name in (a, b, c, d))


def test_recurrent_layers_end_where_they_are_sequences_again() -> None:
    net = Net(x=[5, 1, 4])
    h = "x"
    for _ in range(3):
        weights = net.weight(1, 16, 4), net.weight(1, 16, 4)
        y = net("LSTM", h, *weights, hidden_size=4)
        h = net("Reshape", net("Transpose", y, perm=[0, 2, 1, 3]), "sizes")
    net.weights.append(numpy_helper.from_array(np.array([0, 0, -1]), "sizes"))
    layers = list(
        net.layers(net("Gemm", net("ReduceMean", h, axes=[0], keepdims=0), net.weight(4, 2))).values()
    )
    assert [layer.kind for layer in layers] == ["LSTM"] * 3
    assert [layer.action for layer in layers] == [None, "bypass", "bypass"]


def test_a_network_inside_a_skip_has_layers_of_its_own() -> None:
    net = Net(x=[1, 4, 16, 16])
    h = net("Relu", net.conv("x", 4, 4, "first"))
    v, names = h, []
    for k in range(8):
        names.append(f"deep{k}")
        v = net("Relu", net.conv(v, 4, 4, names[-1]))
    merged = net("Concat", v, h, axis=1)
    end = net("Relu", net.conv(merged, 8, 4, "end"))
    assert list(net.layers(net.conv(end, 4, 2, "prediction"))) == ["first", *names, "end"]


def test_inner_tensor_read_elsewhere_is_the_reason() -> None:
    net = Net(x=[1, 4, 8, 8])
    h = net("Relu", net.conv("x", 4, 4))
    inner = net("Relu", net.conv(h, 4, 4), name="inner")
    s = net("Add", net.conv(inner, 4, 4), h, name="block")
    main = net.conv(net("Relu", net.conv(s, 4, 4, "behind")), 4, 2, "main")
    side = net.conv(inner, 4, 2, "side")
    layers = net.layers(main, side)
    assert layers["block"].action is None
    assert layers["block"].reason == "its inner tensor 'inner' is also read by node_side"
    assert layers["behind"].action == "bypass"


def test_inner_tensor_that_is_an_output_is_the_reason() -> None:
    net = Net(x=[1, 4, 8, 8])
    h = net("Relu", net.conv("x", 4, 4))
    inner = net("Relu", net.conv(h, 4, 4), name="inner")
    s = net("Add", net.conv(inner, 4, 4), h, name="block")
    logits = net("Gemm", net("Flatten", net("GlobalAveragePool", s)), net.weight(4, 2))
    layer = net.layers(logits, "inner")["block"]
    assert layer.action is None
    assert layer.reason == "its inner tensor 'inner' is also an output of the model"


def test_fully_connected_classifier_is_no_layer() -> None:
    net = Net(x=[1, 3, 8, 8])
    h = net("Relu", net.conv(net("Relu", net.conv("x", 3, 4, "c1")), 4, 4, "c2"))
    flat = net("Flatten", h)
    f = net("Relu", net("Gemm", flat, net.weight(256, 16)))
    assert list(
        net.layers(net("Gemm", net("Relu", net("Gemm", f, net.weight(16, 16))), net.weight(16, 10)))
    ) == ["c1", "c2"]


def test_multilayer_perceptron_keeps_all_but_the_last() -> None:
    net = Net(x=[1, 6])
    h = net("Relu", net("Gemm", "x", net.weight(6, 8), name="f1"))
    h = net("Relu", net("Gemm", h, net.weight(8, 8), name="f2"))
    layers = net.layers(net("Gemm", h, net.weight(8, 2)))
    assert list(layers) == ["f1", "f2"]
    assert layers["f2"].action == "bypass"


def test_positions_and_masks_are_no_activations() -> None:
    net = Net(x=[1, 4, 3], mask=[1, 4, 4])
    scaled = net("Mul", "mask", "mask")
    h = net("MatMul", "x", net.weight(3, 4), name="h")
    net("MatMul", scaled, h, name="y")
    index = GraphIndex(net.model("y").graph)
    assert scaled not in index.activations
    assert {"h", "y"} <= index.activations


@pytest.mark.parametrize(("name", "count"), [("resnet", 28), ("vgg", 12), ("vit", 17)])
def test_embedded_models(name: str, count: int) -> None:
    model = rt.load(ROOT / "models" / f"{name}_digits.onnx")
    index = GraphIndex(model.graph)
    shapes = Workbench(model, rt.open_data(None, model), rt.RunOptions("cpu")).shapes
    layers = find_layers(index, shapes)
    assert len(layers) == count
    assert sum(layer.removable for layer in layers) == count - 1
    assert len({layer.name for layer in layers}) == count


@pytest.mark.parametrize(
    ("file", "count"),
    [
        ("resnet56_cifar10_bn.onnx", 28),
        ("resnet20_cifar10.onnx", 10),
        ("resnet20_cifar10_dynamo.onnx", 10),
        ("wild/silero_vad.onnx", 1),
        ("wild/magika_standard_v3_3.onnx", 2),
    ],
)
def test_shared_models(file: str, count: int) -> None:
    if not (SHARED / file).exists():
        pytest.skip(f"{file} is not beside the checkout")
    model = rt.load(SHARED / file)
    index = GraphIndex(model.graph)
    shapes = Workbench(model, rt.open_data(None, model), rt.RunOptions("cpu")).shapes
    layers = find_layers(index, shapes)
    assert len(layers) == count
    assert all(layer.removable or layer.reason for layer in layers)
    if "56" in file:
        assert count_parameters(index) == 853_018
        assert count_macs(index, shapes) == 125_485_696


def test_costs_by_hand() -> None:
    sizes = {
        "x": (1, 4, 6, 6),
        "wc": (8, 2, 3, 3),
        "c": (1, 8, 6, 6),
        "wt": (8, 3, 2, 2),
        "t": (1, 3, 12, 12),
        "a": (2, 5, 7),
        "wm": (7, 3),
        "m": (2, 5, 3),
        "g": (7, 5),
        "wg": (7, 4),
        "o": (5, 4),
        "seq": (6, 1, 4),
        "wi": (1, 12, 4),
        "wr": (1, 12, 3),
        "l": (6, 1, 1, 3),
    }
    nodes = [
        helper.make_node("Conv", ["x", "wc"], ["c"], group=2),
        helper.make_node("ConvTranspose", ["c", "wt"], ["t"]),
        helper.make_node("MatMul", ["a", "wm"], ["m"]),
        helper.make_node("Gemm", ["g", "wg"], ["o"], transA=1),
        helper.make_node("LSTM", ["seq", "wi", "wr"], ["l"]),
        helper.make_node("Einsum", ["a", "wm"], ["m2"], equation="bij,jk->bik"),
    ]
    expected = [
        8 * 36 * 2 * 9,
        8 * 36 * 3 * 4,
        30 * 7,
        20 * 7,
        6 * (12 * 4 + 12 * 3),
        2 * 5 * 7 * 3,
    ]
    graph = helper.make_graph(nodes, "g", [], [])
    shapes = Shapes({**sizes, "m2": (2, 5, 3)})
    assert [count_macs(GraphIndex(graph), shapes, [i]) for i in range(6)] == expected
    assert count_macs(GraphIndex(graph), Shapes({})) is None


def test_peak_of_activations_by_hand() -> None:
    net = Net(x=[1, 4, 4, 4])
    c = net.conv("x", 4, 8)
    r = net("Relu", c)
    net.conv(r, 8, 2, "y")
    model = net.model("y")
    shapes = infer_shapes(model, {"x": (1, 4, 4, 4)})
    # The last convolution holds its input and its output beside the model's input; Relu works in place.
    assert peak_activation_bytes(GraphIndex(model.graph), shapes) == (4 + 8 + 2) * 16 * 4


def attend(net: Net, x: str, other: str, name: str) -> str:
    q, k, v = (net("MatMul", s, net.weight(8, 8)) for s in (x, other, other))
    scores = net("Softmax", net("MatMul", q, net("Transpose", k, perm=[0, 2, 1])))
    return net("Add", net("MatMul", net("MatMul", scores, v), net.weight(8, 8)), x, name=name)


def perceptron(net: Net, x: str, name: str) -> str:
    return net(
        "Add",
        net("MatMul", net("Relu", net("MatMul", x, net.weight(8, 16))), net.weight(16, 8)),
        x,
        name=name,
    )


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("encoded", [False, True])
def test_a_decoder_beside_its_encoder(encoded: bool, cached: bool) -> None:
    """The encoder's output, made in the graph or fed, joins every block of the decoder from the side."""
    net = Net(x=[1, 4, 8], memory=[1, 5, 8])
    memory, expected, keys = "memory", [], []
    if encoded:
        memory = net("MatMul", "memory", net.weight(8, 8), name="encode")
        expected.append(memory)
        for k in range(4):
            memory = perceptron(net, attend(net, memory, memory, f"e{k}a"), f"e{k}m")
            expected += [f"e{k}a", f"e{k}m"]
    h = net("MatMul", "x", net.weight(8, 8), name="embed")
    expected.append(h)
    for k in range(3):
        keys.append(f"MatMul{len(net.nodes) + 1}")
        h = perceptron(net, attend(net, attend(net, h, h, f"d{k}a"), memory, f"d{k}c"), f"d{k}m")
        expected += [f"d{k}a", f"d{k}c", f"d{k}m"]
    layers = net.layers(net("MatMul", h, net.weight(8, 3), name="y"), *(keys if cached else ()))
    assert list(layers) == expected
    removable = [name for name, layer in layers.items() if layer.action == "bypass"]
    kept = {"embed", "encode", *(f"d{k}a" for k in range(3) if cached)}
    assert removable == [name for name in expected if name not in kept]
    # The keys and values of the encoder's output go with the layer that reads them.
    assert layers["d1c"].parameters == 4 * 64
    assert layers["d1c"].input == "d1a"


def test_two_towers() -> None:
    net = Net(a=[1, 8], b=[1, 8])
    towers = []
    for side in "ab":
        h = net("Relu", net("MatMul", side, net.weight(8, 8), name=f"{side}0"))
        for k in range(1, 3):
            h = net("Relu", net("MatMul", h, net.weight(8, 8), name=f"{side}{k}"))
        towers.append(h)
    both = net("Relu", net("MatMul", net("Concat", *towers, axis=1), net.weight(16, 8), name="joint"))
    layers = net.layers(net("MatMul", both, net.weight(8, 2), name="y"))
    assert list(layers) == ["a0", "a1", "a2", "b0", "b1", "b2", "joint"]
    assert [name for name, layer in layers.items() if layer.action == "bypass"] == ["a1", "a2", "b1", "b2"]


def test_embeddings_that_are_added_up_are_one_layer() -> None:
    net = Net()
    ids, kinds = (net.add_input(name, TensorProto.INT64, [1, 6]) for name in ("ids", "token_types"))
    tokens, types = net("Gather", net.weight(30, 8), ids), net("Gather", net.weight(2, 8), kinds)
    h = net("Add", net("Add", tokens, types), net.weight(1, 6, 8), name="embedded")
    for k in range(2):
        h = perceptron(net, attend(net, h, h, f"a{k}"), f"m{k}")
    layers = net.layers(net("MatMul", h, net.weight(8, 2), name="y"))
    assert list(layers)[1:] == ["a0", "m0", "a1", "m1"]


def test_lists_of_tensors_behind_the_layers() -> None:
    net = Net(x=["n", 8])
    h = net("Relu", net("MatMul", "x", net.weight(8, 8), name="a"))
    h = net("Relu", net("MatMul", h, net.weight(8, 8), name="b"))
    h = net("MatMul", h, net.weight(8, 3), name="head")
    listed = net("SequenceConstruct", h, h)
    value = helper.make_tensor_sequence_value_info(listed, TensorProto.FLOAT, None)
    model = net.model("x")
    model.graph.output[0].CopyFrom(value)
    index = GraphIndex(model.graph)
    shapes = Workbench(model, rt.open_data(None, model), rt.RunOptions("cpu")).shapes
    assert [layer.tensor for layer in find_layers(index, shapes)] == ["a", "b"]
