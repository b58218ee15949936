"""Surgery on the embedded models, held against an independent rewrite of the proto."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import Net, branch
from onnx import TensorProto, helper, numpy_helper

import redtest_onnx as rt
from redtest_onnx.graph.surgery import AdapterOperator, Removal, remove_regions
from redtest_onnx.graph.validity import full_check
from redtest_onnx.layers.layer import Layer
from redtest_onnx.runtime.session import Session
from redtest_onnx.runtime.workbench import Workbench

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "models"
CPU = rt.RunOptions("cpu", 1)
NAMES = [
    *(str(ROOT / "models" / f"{name}_digits.onnx") for name in ("resnet", "vgg", "vit")),
    *(str(SHARED / name) for name in ("resnet20_cifar10.onnx", "resnet20_cifar10_dynamo.onnx")),
    *(str(SHARED / "wild" / name) for name in ("face_slim_320.onnx", "yunet_n_dynamic.onnx")),
]


@cache
def case(path: str) -> tuple[rt.Model, dict[str, np.ndarray], tuple[Layer, ...]]:
    if not Path(path).exists():
        pytest.skip(f"{Path(path).name} is not here")
    model = rt.load(path)
    data = rt.open_data(None, model)
    layers = Workbench(model, data, CPU).layers()
    return model, data.inputs([0, 1] if "face" not in path else [0]), layers


def by_hand(model: rt.Model, removed: list[Layer]) -> rt.Model:
    """The original with the readers of each exit renamed; all dead nodes stay in."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    names: dict[str, str] = {}
    for layer in removed:
        assert layer.input is not None
        names[layer.exit] = names.get(layer.input, layer.input)
    for node in proto.graph.node:
        for k, name in enumerate(node.input):
            node.input[k] = names.get(name, name)
    return rt.Model(proto)


def check(path: str, removed: list[Layer]) -> None:
    model, feeds, _ = case(path)
    found = remove_regions(model, [Removal(layer.input or "", layer.exit) for layer in removed])
    full_check(found)
    assert found.inputs == model.inputs
    assert found.outputs == model.outputs
    assert found.opsets == model.opsets
    assert list(found.proto.metadata_props) == list(model.proto.metadata_props)
    nodes = {node.output[0]: node for node in model.graph.node}
    for node in found.graph.node:
        assert node.metadata_props == nodes[node.output[0]].metadata_props
    used = {name for node in found.graph.node for name in node.input}
    assert {tensor.name for tensor in found.graph.initializer} <= used
    used |= {output.name for output in found.graph.output}
    assert all(used.intersection(node.output) for node in found.graph.node)
    made = {name for node in found.graph.node for name in node.output} | used
    assert list(found.graph.value_info) == [v for v in model.graph.value_info if v.name in made]
    expected = Session(by_hand(model, removed), CPU, level="none").run(feeds)
    outputs = Session(found, CPU, level="none").run(feeds)
    for name, value in expected.items():
        np.testing.assert_array_equal(outputs[name], value)


def bypassed(path: str) -> list[Layer]:
    return [layer for layer in case(path)[2] if layer.action == "bypass"]


@pytest.mark.parametrize("path", NAMES, ids=lambda p: Path(p).stem)
def test_removing_any_single_layer(path: str) -> None:
    layers = bypassed(path)
    assert layers
    for layer in layers[:: max(1, len(layers) // 8)]:
        check(path, [layer])


@pytest.mark.parametrize("path", NAMES, ids=lambda p: Path(p).stem)
@settings(max_examples=5, deadline=None)
@given(choice=st.data())
def test_removing_sets_of_layers(path: str, choice: st.DataObject) -> None:
    layers = bypassed(path)
    picked = choice.draw(st.sets(st.integers(0, len(layers) - 1), min_size=1))
    check(path, [layers[k] for k in sorted(picked)])


@pytest.mark.parametrize("path", NAMES, ids=lambda p: Path(p).stem)
def test_removing_nothing_changes_nothing(path: str) -> None:
    model, _, _ = case(path)
    assert remove_regions(model, []).proto == model.proto


def relu_chain(extra: list[onnx.NodeProto] | None = None) -> rt.Model:
    """x -> A -> B -> C, with 4-bit weights and annotations that must survive."""
    nodes = [helper.make_node("Relu", [a], [b], name=f"to_{b}") for a, b in ("xa", "ab", "bc")]
    four_bits = helper.make_tensor("w4", TensorProto.INT4, [4], bytes([0x12, 0x34]), raw=True)
    nodes.append(helper.make_node("DequantizeLinear", ["w4", "scale"], ["w"], name="dq"))
    nodes.append(helper.make_node("Add", ["c", "w"], ["y"], name="last"))
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [*nodes, *(extra or [])],
        "chain",
        [value("x", TensorProto.FLOAT, ["n", 4]), value("scale", TensorProto.FLOAT, [])],
        [value("y", TensorProto.FLOAT, ["n", 4])],
        [four_bits, numpy_helper.from_array(np.float32(0.5), "scale")],
        value_info=[value("b", TensorProto.FLOAT, ["n", 4]), value("c", TensorProto.FLOAT, ["n", 4])],
    )
    note = graph.quantization_annotation.add(tensor_name="c")
    note.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="scale")
    graph.node[2].doc_string = "kept"
    graph.node[2].metadata_props.add(key="module", value="net.third")
    graph.metadata_props.add(key="graph", value="kept")
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    model.doc_string = "documentation"
    return rt.Model(model)


def test_what_an_export_would_drop_stays() -> None:
    model = relu_chain()
    found = remove_regions(model, [Removal("a", "b")]).proto
    expected = onnx.ModelProto()
    expected.CopyFrom(model.proto)
    del expected.graph.node[1]
    expected.graph.node[1].input[0] = "a"
    del expected.graph.value_info[0]
    assert found == expected


def test_annotations_keep_what_they_name_and_go_with_their_tensor() -> None:
    model = relu_chain()
    for tensor in ("a", "b"):
        model.graph.initializer.append(numpy_helper.from_array(np.float32(1), f"{tensor}_scale"))
        note = model.graph.quantization_annotation.add(tensor_name=tensor)
        note.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value=f"{tensor}_scale")
    found = remove_regions(model, [Removal("a", "b")]).graph
    assert [note.tensor_name for note in found.quantization_annotation] == ["c", "a"]
    assert [tensor.name for tensor in found.initializer] == ["w4", "scale", "a_scale"]


def test_an_output_keeps_its_name() -> None:
    model = relu_chain()
    found = remove_regions(model, [Removal("b", "y")])
    full_check(found)
    assert [node.op_type for node in found.graph.node] == ["Relu", "Relu", "Identity"]
    x = np.array([[-1, 2, -3, 4]], np.float32)
    np.testing.assert_array_equal(Session(found, CPU).run({"x": x})["y"], np.maximum(x, 0))


def test_adapter_takes_the_place() -> None:
    model = relu_chain()
    weight = np.diag([1, 2, 3, 4]).astype(np.float32)
    found = remove_regions(model, [Removal("a", "c", (AdapterOperator("MatMul", (weight,)),))])
    full_check(found)
    x = np.array([[-1, 2, -3, 4]], np.float32)
    expected = np.maximum(x, 0) @ weight + np.array([2, 1, 4, 3], np.float32) * 0.5
    np.testing.assert_allclose(Session(found, CPU).run({"x": x})["y"], expected)


def test_branches_read_the_new_tensor() -> None:
    value = helper.make_tensor_value_info
    branches = [
        helper.make_graph(
            [helper.make_node(op, ["c"], [op], name=op)], op, [], [value(op, TensorProto.FLOAT, None)]
        )
        for op in ("Abs", "Neg")
    ]
    choice = helper.make_node(
        "If", ["yes"], ["z"], name="choice", then_branch=branches[0], else_branch=branches[1]
    )
    model = relu_chain([choice])
    model.graph.initializer.append(numpy_helper.from_array(np.array(False), "yes"))
    model.graph.output.append(value("z", TensorProto.FLOAT, ["n", 4]))
    found = remove_regions(rt.Model(model.proto), [Removal("a", "c")])
    full_check(found)
    x = np.array([[-1, 2, -3, 4]], np.float32)
    np.testing.assert_array_equal(Session(found, CPU).run({"x": x})["z"], -np.maximum(x, 0))


def test_unknown_tensors_are_named() -> None:
    with pytest.raises(rt.InputError, match="no tensor 'nowhere'"):
        remove_regions(relu_chain(), [Removal("a", "nowhere")])


def test_convolution_with_stride_as_adapter() -> None:
    net = Net(x=[2, 4, 8, 8])
    net("Relu", "x", name="a")
    net.conv(net("Relu", net.conv("a", 4, 6, stride=2)), 6, 6, name="b")
    net("Relu", "b", name="y")
    kernel = np.random.default_rng(0).normal(size=(6, 4, 2, 2)).astype(np.float32)
    bias = np.arange(6, dtype=np.float32)
    found = remove_regions(
        net.model("y"), [Removal("a", "b", (AdapterOperator("Conv", (kernel, bias), {"strides": [2, 2]}),))]
    )
    full_check(found)
    assert [node.op_type for node in found.graph.node] == ["Relu", "Conv", "Relu"]
    assert len(found.graph.initializer) == 2
    x = np.random.default_rng(1).normal(size=(2, 4, 8, 8)).astype(np.float32)
    patches = np.maximum(x, 0).reshape(2, 4, 4, 2, 4, 2)
    expected = np.einsum("nchiwj,ocij->nohw", patches, kernel) + bias[:, None, None]
    outputs = Session(found, CPU).run({"x": x})
    np.testing.assert_allclose(outputs["y"], np.maximum(expected, 0), rtol=1e-5, atol=1e-5)


def test_consecutive_regions_with_adapters_share_a_boundary() -> None:
    double, triple = ((AdapterOperator("Mul", (np.float32([k]),)),) for k in (2, 3))
    removals = [Removal("x", "a", double), Removal("a", "b"), Removal("b", "c", triple)]
    found = remove_regions(relu_chain(), removals)
    full_check(found)
    assert [node.op_type for node in found.graph.node] == ["Mul", "Mul", "DequantizeLinear", "Add"]
    x = np.array([[-1, 2, -3, 4]], np.float32)
    expected = x * 6 + np.array([2, 1, 4, 3], np.float32) * 0.5
    np.testing.assert_allclose(Session(found, CPU).run({"x": x})["y"], expected)


def test_operators_of_one_adapter_follow_each_other() -> None:
    weight = np.diag([1, 2, 3, 4]).astype(np.float32)
    steps = (
        AdapterOperator("MatMul", (weight,)),
        AdapterOperator("Add", (np.ones(4, np.float32),)),
        AdapterOperator("Neg"),
    )
    found = remove_regions(relu_chain(), [Removal("a", "c", steps)])
    full_check(found)
    x = np.array([[-1, 2, -3, 4]], np.float32)
    expected = -(np.maximum(x, 0) @ weight + 1) + np.array([2, 1, 4, 3], np.float32) * 0.5
    np.testing.assert_allclose(Session(found, CPU).run({"x": x})["y"], expected)


def test_weights_listed_as_inputs_go_with_their_readers() -> None:
    net = Net(x=[1, 4])
    net("Mul", "x", net.store(np.full(4, 2)), name="a")
    net("Mul", "a", net.store(np.full(4, 3)), name="b")
    net("Mul", "b", net.store(np.full(4, 5)), name="y")
    for k in range(3):
        net.add_input(f"w{k}", TensorProto.FLOAT, [4])
    found = remove_regions(net.model("y"), [Removal("a", "b")])
    full_check(found)
    assert [v.name for v in found.graph.input] == ["x", "w0", "w2"]
    assert [t.name for t in found.graph.initializer] == ["w0", "w2"]
    x = np.ones((1, 4), np.float32)
    np.testing.assert_array_equal(Session(found, CPU).run({"x": x})["y"], 10 * x)


def test_inputs_that_nothing_reads_any_more_stay_in_the_signature() -> None:
    net = Net(x=[1, 4], mask=[1, 4])
    net("Relu", "x", name="a")
    net("Mul", "a", "mask", name="b")
    net("Neg", "b", name="y")
    model = net.model("y")
    assert remove_regions(model, [Removal("a", "b")]).inputs == model.inputs


@pytest.mark.parametrize("dtype", ["FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "UINT4", "BFLOAT16"])
def test_narrow_weights_survive_byte_for_byte(dtype: str) -> None:
    model = relu_chain()
    size = 2 if dtype == "UINT4" else 8 if dtype == "BFLOAT16" else 4
    data = bytes(range(0x31, 0x31 + size))
    narrow = helper.make_tensor("narrow", getattr(TensorProto, dtype), [4], data, raw=True)
    model.graph.initializer.append(narrow)
    model.graph.node.append(helper.make_node("Identity", ["narrow"], ["z"]))
    model.graph.output.append(helper.make_tensor_value_info("z", narrow.data_type, [4]))
    found = remove_regions(rt.Model(model.proto), [Removal("a", "b")])
    assert next(t for t in found.graph.initializer if t.name == "narrow") == narrow


def test_an_operator_that_makes_more_than_the_exit_stays() -> None:
    net = Net(x=[2, 8])
    first = net("Split", net("Relu", "x", name="h"), outputs=2, axis=1)
    second = first.removesuffix("0") + "1"
    net("Concat", second, net("Neg", first, name="n"), name="y", axis=1)
    net("Neg", first, name="z")
    found = remove_regions(net.model("y", "z"), [Removal(second, "n")])
    full_check(found)
    x = np.arange(16, dtype=np.float32).reshape(2, 8)
    outputs = Session(found, CPU).run({"x": x})
    np.testing.assert_array_equal(outputs["y"], np.concatenate([x[:, 4:]] * 2, axis=1))
    np.testing.assert_array_equal(outputs["z"], -x[:, :4])


def test_one_result_of_several_is_an_output_that_stays() -> None:
    net = Net(x=[2, 8])
    net("Relu", "x", name="h")
    half = net("Relu", "h", name="half")
    first = net("Split", half, outputs=2, axis=1)
    second = first.removesuffix("0") + "1"
    net("Neg", second, name="y")
    source = net("Slice", "h", *(net.store([k], np.int64) for k in (4, 8, 1)), name="source")
    found = remove_regions(net.model("y", first, source), [Removal(source, first)])
    full_check(found)
    x = np.arange(16, dtype=np.float32).reshape(2, 8)
    outputs = Session(found, CPU).run({"x": x})
    assert list(outputs) == ["y", first, source]
    np.testing.assert_array_equal(outputs["y"], -x[:, 4:])
    np.testing.assert_array_equal(outputs[first], x[:, 4:])


def test_branches_inside_branches_and_their_idle_nodes_are_kept() -> None:
    net = Net(x=[2, 4])
    net("Neg", net("Relu", "x", name="a"), name="b")
    yes = net.store(True, np.bool_)
    keep = branch("keep", [helper.make_node("Identity", ["b"], ["kept"])])
    idle = helper.make_node("Exp", ["b"], ["idle"])
    deep = branch("deep", [idle, helper.make_node("Neg", ["b"], ["deepest"])])
    inner = helper.make_node("If", [yes], ["chosen"], then_branch=deep, else_branch=keep)
    other = branch("other", [helper.make_node("Abs", ["b"], ["other"])])
    net("If", yes, name="y", then_branch=branch("then", [inner]), else_branch=other)
    found = remove_regions(net.model("y"), [Removal("a", "b")])
    full_check(found)
    x = np.arange(-4, 4, dtype=np.float32).reshape(2, 4)
    np.testing.assert_array_equal(Session(found, CPU).run({"x": x})["y"], -np.maximum(x, 0))


def test_an_edit_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    net = Net(x=["N", 8])
    x = net("Relu", net("MatMul", net("Relu", net("MatMul", "x", net.weight(8, 8))), net.weight(8, 8)))
    net("SequenceConstruct", x, name="y")
    proto = net.model("y").proto
    proto.graph.output[0].CopyFrom(onnx.helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None))
    remove_regions(rt.Model(proto), [Removal("Relu1", x)])
    assert capfd.readouterr() == ("", "")
