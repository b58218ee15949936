"""Scopes of exporters as names of layers."""

from __future__ import annotations

import pytest
from nets import Net
from onnx import helper

from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.layers.names import _shared_words, layer_names, node_scope
from redtest_onnx.layers.regions import Region

SCOPES = "pkg.torch.onnx.name_scopes"


def names(*groups: list[str]) -> list[str]:
    """Layer names of regions whose nodes have the given names."""
    net = Net(x=[1, 4])
    regions, x = [], "x"
    for k, group in enumerate(groups):
        first, entry = len(net.nodes), x
        for name in group:
            x = net("Relu", x, name=f"t{k}" if name == group[-1] else None)
            net.nodes[-1].name = name
        nodes = frozenset(range(first, len(net.nodes)))
        regions.append(Region(entry, x, x, nodes, frozenset()))
    return layer_names(GraphIndex(net.model(x).graph), regions)


def test_the_innermost_common_scope_names_a_block() -> None:
    block = ["/layer1/layer1.0/conv1/Conv", "/layer1/layer1.0/relu/Relu", "/layer1/layer1.0/Add"]
    assert names(["/conv1/Conv"], block) == ["conv1", "layer1.0"]


def test_scopes_without_repetition_are_joined() -> None:
    assert names(["model/block/conv/Conv2D"]) == ["model.block.conv"]


def test_sub_layers_of_one_scope_are_told_apart() -> None:
    attention = ["/block/attn/q/MatMul", "/block/attn/k/MatMul", "/block/norm/Div", "/block/Add"]
    mlp = ["/block/mlp/fc1/MatMul", "/block/mlp/fc2/MatMul", "/block/Add_1"]
    assert names(attention, mlp) == ["block.attn", "block.mlp"]


def test_blocks_of_flat_names_are_called_by_the_words_they_share() -> None:
    net = Net(x=[1, 4])
    regions, x = [], "x"
    for block in ("stage1_block1", "stage1_block2"):
        start, entry = len(net.nodes), x
        for part in ("conv_{}_branch2a/Conv2D", "conv_{}_branch2b/Conv2D", "add_{}/add"):
            x = net("MatMul", x, net.store([[1.0] * 4] * 4)) if "conv" in part else net("Add", x, entry)
            net.nodes[-1].name = part.format(block)
        nodes = frozenset(range(start, len(net.nodes)))
        regions.append(Region(entry, x, x, nodes, frozenset()))
    assert layer_names(GraphIndex(net.model(x).graph), regions) == [
        "conv_stage1_block1",
        "conv_stage1_block2",
    ]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["res2a_branch2a", "res2a_branch2b"], "res2a"),
        (["conv3_block4_1_conv", "conv3_block4_2_bn"], "conv3_block4"),
        (["bn_stage0_block1_a", "conv_stage0_block1_a"], "stage0_block1_a"),
        (["conv2d_1", "conv2d_2"], None),
        (["block1_a", "block12_a"], None),
        (["attn", "mlp"], None),
        (["conv1"], None),
    ],
)
def test_words_that_scopes_share_hold_a_number(names: list[str], expected: str | None) -> None:
    scopes = [(name,) for name in names]
    assert _shared_words([*scopes, ("other",)], scopes) == expected


def test_layers_that_no_scope_tells_apart_are_called_by_tensor() -> None:
    assert names(["/block/a", "/block/b"], ["/block/c", "/block/d"], ["plain"]) == ["t0", "t1", "t2"]
    twins = [[f"/block/mlp/fc{k}/MatMul", f"/block/mlp/relu{k}/Relu", f"/block/Add_{k}"] for k in (1, 2)]
    assert names(*twins) == ["t0", "t1"]


def test_operations_that_tensorflow_lite_merged_are_called_after_the_first_one() -> None:
    merged = ["model/re_lu/Relu;model/bn/Norm;model/conv/Conv2D", "model/out/BiasAdd;model/out/Conv2D"]
    assert names(*([name] for name in merged)) == ["model.re_lu", "model.out"]
    alike = [["a/x;a/y"], ["a/z;a/y"]]
    assert names(*alike) == ["t0", "t1"]


def test_tensors_with_merged_names_are_shortened_where_they_stay_unique() -> None:
    net = Net(x=[1, 4])
    regions, x = [], "x"
    for k, tensor in enumerate(("a;b", "c;b", "c;d")):
        y = net("Relu", x, name=tensor)
        regions.append(Region(x, y, y, frozenset({k}), frozenset()))
        x = y
    for node in net.nodes:
        node.name = "plain"
    assert layer_names(GraphIndex(net.model(x).graph), regions) == ["a", "c;b", "c;d"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("['', 'layer1', 'layer1.0', 'conv2d']", ("layer1", "layer1.0")),
        ("[]", ()),
        ("'text'", ()),
        ("[1, 2, 3]", ()),
        ("not python (", ()),
    ],
)
def test_scopes_of_the_second_torch_exporter(text: str, expected: tuple[str, ...]) -> None:
    node = helper.make_node("Relu", ["x"], ["y"], name="/ignored/name")
    node.metadata_props.add(key="other", value="x")
    node.metadata_props.add(key=SCOPES, value=text)
    assert node_scope(node) == expected
