"""Exposed tensors: declared outputs of a valid model, with the values that the original computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from nets import Net, branch
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator
from rich.console import Console

import redtest_onnx as rt
from redtest_onnx.data.batching import leading_indices
from redtest_onnx.graph.signature import fixed_batch
from redtest_onnx.graph.validity import full_check
from redtest_onnx.report.exposures import exposure_document, exposure_table
from redtest_onnx.runtime.activations import expose_tensors, iterate_activations
from redtest_onnx.runtime.session import Session
from redtest_onnx.runtime.workbench import Workbench

ROOT = Path(__file__).parents[2]
FILES = [*sorted((ROOT / "models").glob("*.onnx")), *sorted((ROOT / "tests" / "fixtures").rglob("*.onnx"))]
CPU = rt.RunOptions("cpu", 1)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_all_tensors_of_a_model(path: Path, tmp_path: Path) -> None:
    model = rt.load(path)
    data = rt.open_data(None, model, count=4)
    exposed = expose_tensors(Workbench(model, data, CPU), ["all"])
    saved = rt.load(rt.save(exposed.model, tmp_path / "exposed.onnx").path or "")
    full_check(saved)
    assert [spec.name for spec in saved.outputs[: len(model.outputs)]] == [s.name for s in model.outputs]
    assert all(spec.dtype for spec in saved.outputs)

    feeds = data.inputs(leading_indices(fixed_batch(model) or 2, 2))
    original = Session(model, CPU, level="none").run(feeds)
    unoptimised = Session(saved, CPU, level="none").run(feeds)
    for name, values in original.items():
        np.testing.assert_array_equal(unoptimised[name], values)

    indices = leading_indices(fixed_batch(model) or 2, 2)
    (batch,) = iterate_activations(Workbench(model, data, CPU), exposed, indices)
    for tensor in exposed.tensors:
        values, expected = batch.values[tensor.output], unoptimised[tensor.output]
        if tensor.sample_axis is not None:
            expected = np.moveaxis(expected, tensor.sample_axis, 0).reshape(values.shape)
        if expected.dtype.kind == "f":
            level = max(float(np.abs(expected).max(initial=0)), 1.0)
            np.testing.assert_allclose(values, expected, atol=1e-5 * level, rtol=1e-5)
        else:
            np.testing.assert_array_equal(values, expected)


def test_values_are_those_of_the_reference() -> None:
    net = Net(x=["n", 3, 8, 8])
    first = net("Relu", net.conv("x", 3, 4))
    out = net("GlobalAveragePool", net.conv(first, 4, 5))
    model = net.model(out)
    data = rt.open_data(None, model, count=3)
    exposed = expose_tensors(Workbench(model, data, CPU), ["all"])
    feeds = data.inputs(np.arange(3))
    expected = ReferenceEvaluator(exposed.model.proto).run(None, feeds)
    (batch,) = iterate_activations(Workbench(model, data, CPU), exposed, np.arange(3))
    assert len(batch.values) == 3
    names = [spec.name for spec in exposed.model.outputs]
    for name, values in zip(names, expected, strict=True):
        if name in batch.values:
            np.testing.assert_allclose(batch.values[name], values, rtol=1e-5, atol=1e-6)


def test_shape_arithmetic_and_constants_are_listed() -> None:
    net = Net(x=["n", 4])
    size = net("Shape", "x")
    constant = net("Relu", net.store([[1.0, -1.0, 2.0, 3.0]]))
    out = net("Add", net("Reshape", net("Relu", "x"), size), constant)
    model = net.model(net("Neg", out))
    exposed = expose_tensors(Workbench(model, rt.open_data(None, model), CPU), ["all"])
    reasons = {item.name: item.reason for item in exposed.others}
    assert "shape arithmetic" in reasons[size]
    assert "constant" in reasons[constant]
    named = expose_tensors(Workbench(model, rt.open_data(None, model), CPU), [size])
    assert [(t.name, t.dtype) for t in named.tensors] == [(size, TensorProto.INT64)]
    with pytest.raises(rt.InputError, match="nothing_like_this"):
        expose_tensors(Workbench(model, rt.open_data(None, model), CPU), ["nothing_like_this*"])


def test_quantised_tensors_can_be_dequantised() -> None:
    net = Net(x=["n", 4])
    scale, zero = net.store(0.5), net.store(3, np.uint8)
    quantised = net("QuantizeLinear", "x", scale, zero)
    out = net("DequantizeLinear", net("Reshape", quantised, net.store([-1, 2, 2], np.int64)), scale, zero)
    model = net.model(out)
    data = rt.open_data(None, model, count=5)
    plain = expose_tensors(Workbench(model, data, CPU), [quantised])
    assert plain.tensors[0].dtype == TensorProto.UINT8
    exposed = expose_tensors(Workbench(model, data, CPU), [quantised], dequantize=True)
    full_check(exposed.model)
    (integers,), (reals,) = (
        list(iterate_activations(Workbench(model, data, CPU), e, np.arange(5))) for e in (plain, exposed)
    )
    expected = 0.5 * (integers.values[quantised].astype(np.float32) - 3)
    np.testing.assert_array_equal(reals.values[quantised + "_dequantized"], expected)


def test_tensors_of_the_branch_that_is_taken() -> None:
    net = Net(x=["n", 4])
    net.add_input("flag", TensorProto.BOOL, [])
    taken, other = Net(), Net()
    taken("Relu", "x", name="inside")
    taken("Neg", "inside", name="result")
    other("Neg", "x", name="outside")
    other("Relu", "outside", name="other_result")
    branches = {"then_branch": branch("then", taken.nodes), "else_branch": branch("else", other.nodes)}
    chosen = net("If", "flag", name="chosen", **branches)
    model = net.model(net("MatMul", chosen, net.weight(4, 2)))
    data = rt.open_data(None, model, count=2)
    exposed = expose_tensors(Workbench(model, data, CPU), ["all"])
    assert exposed.branches
    assert len({"inside", "outside"} & {tensor.name for tensor in exposed.tensors}) == 1


def test_types_without_arrays_are_read_as_float32() -> None:
    net = Net(x=["n", 4])
    low = net("Cast", "x", to=TensorProto.BFLOAT16)
    model = net.model(net("Cast", low, to=TensorProto.FLOAT))
    data = rt.open_data(None, model, count=2)
    exposed = expose_tensors(Workbench(model, data, CPU), [low])
    assert exposed.model.outputs[-1].dtype == TensorProto.BFLOAT16
    (batch,) = iterate_activations(Workbench(model, data, CPU), exposed, np.arange(2))
    np.testing.assert_allclose(batch.values[low], data.inputs(np.arange(2))["x"], rtol=1e-2)


def test_few_samples_are_in_memory_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    from redtest_onnx.runtime import activations

    net = Net(x=["n", 1000])
    relu = net("Relu", "x")
    model = net.model(net("Neg", relu))
    data = rt.open_data(None, model, count=20)
    monkeypatch.setattr(activations, "_MOST_BYTES", 3 * 4000)
    exposed = expose_tensors(Workbench(model, data, CPU), [relu])
    sizes = [
        len(batch.indices)
        for batch in iterate_activations(Workbench(model, data, CPU), exposed, np.arange(20))
    ]
    assert sizes == [3] * 6 + [2]


def test_external_data_stays_outside(tmp_path: Path) -> None:
    net = Net(x=["n", 64])
    model = net.model(net("Relu", net("MatMul", "x", net.weight(64, 64))))
    source = tmp_path / "source" / "model.onnx"
    source.parent.mkdir()
    onnx.save(model.proto, source, save_as_external_data=True, location="w.bin", size_threshold=0)
    loaded = rt.load(source)
    exposed = expose_tensors(Workbench(loaded, rt.open_data(None, loaded), CPU), ["all"])
    saved = rt.load(rt.save(exposed.model, tmp_path / "exposed.onnx").path or "")
    assert (tmp_path / "exposed.onnx").stat().st_size < 4096
    assert len(saved.outputs) == 2


def test_a_graph_network_says_that_all_is_one_samples() -> None:
    net = Net(x=["nodes", 8])
    net.add_input("edges", TensorProto.INT64, [2, "links"])
    first = net("Gather", "edges", net.store(0, np.int64), axis=0)
    net(
        "MatMul",
        net("Gather", net("Relu", net("MatMul", "x", net.weight(8, 8))), first),
        net.weight(8, 3),
        name="y",
    )
    model = net.model("y")
    exposed = expose_tensors(Workbench(model, rt.open_data(None, model), CPU), ["Relu*"])
    document = exposure_document(model, exposed, None, None, 0)
    assert [tensor["sample_axis"] for tensor in document["tensors"]] == [None]
    console = Console(width=120)
    with console.capture() as shown:
        console.print(exposure_table(exposed))
    assert "all is one sample's" in shown.get()
    assert "-1" not in shown.get()
