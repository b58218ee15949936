"""Sizes of synthetic inputs: guesses are tried until the model runs, and are said beside numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import redtest_onnx as rt
from redtest_onnx.cli.main import run
from redtest_onnx.graph.files import save
from redtest_onnx.runtime.guesses import sizes_note
from redtest_onnx.runtime.session import RunOptions
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analyze import AnalysisSettings, analyze
from tests.graph.test_axes import graph_network
from tests.nets import Net
from tests.references import slow_cka

ONE = RunOptions(threads=1)


def valid_convolutions(count: int) -> rt.Model:
    """[time, bands] through convolutions without padding that take 4 off each axis."""
    net = Net(x=["time", "bands"])
    x = net("Unsqueeze", "x", net.store([0, 1], np.int64))
    for k in range(count):
        x = net("Relu", net("Conv", x, net.weight(4, 4 if k else 1, 5, 5)))
    return net.model(x)


@pytest.mark.parametrize("count", [2, 20])
def test_sizes_grow_until_the_model_runs(count: int) -> None:
    bench = Workbench(valid_convolutions(count), rt.open_data(None, valid_convolutions(count)), ONE)
    side = 64 if count == 2 else 128
    assert bench.sample["x"].shape == (side, side)
    assert bench.cost.macs is not None
    assert bench.cost.macs > 0
    assert all(size > 0 for shape in bench.shapes.sizes.values() for size in shape)
    assert bench.cost.at == f"at x {side}x{side}"


def test_what_is_told_is_no_guess() -> None:
    model = valid_convolutions(2)
    told = rt.open_data(None, model, shapes={"x": (40, 50)})
    assert sizes_note(told) is None
    assert Workbench(model, told, ONE).cost.at is None
    assert Workbench(model, told, ONE).sample["x"].shape == (40, 50)


def test_inspect_lists_layers_where_nothing_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = Net(x=["N", 3, "H", "W"])
    flat = net("Flatten", net("Relu", net.conv("x", 3, 4)))  # only 10x10 fits the weights behind it
    hidden = net("Relu", net("MatMul", flat, net.weight(400, 8)))
    net("MatMul", net("Relu", net("MatMul", hidden, net.weight(8, 8))), net.weight(8, 3), name="y")
    path = tmp_path / "m.onnx"
    save(net.model("y"), path)
    assert run(["inspect", str(path), "--threads", "1"]) == 0
    shown = capsys.readouterr()
    assert "--input-shape x:1,3,64,64" in shown.err
    assert "Conv" in shown.out
    assert "layers" in shown.out
    assert run(["inspect", str(path), "--threads", "1", "--input-shape", "x:1,3,10,10"]) == 0
    shown = capsys.readouterr()
    assert "guess" not in shown.out + shown.err
    assert "?" not in shown.out.split("removable")[0].partition("y:")[2]


def deep_graph_network() -> rt.Model:
    net = graph_network()
    x = "y"
    for _ in range(3):
        x = net("Relu", net("MatMul", x, net.weight(8, 8)))
    net("MatMul", x, net.weight(8, 2), name="z")
    return net.model("z")


def test_a_graph_network_is_measured_sample_by_sample(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for k in range(12):
        nodes, edges = int(rng.integers(3, 9)), int(rng.integers(4, 20))
        np.savez(
            tmp_path / f"{k:02}.npz",
            x=rng.normal(size=(nodes, 8)).astype(np.float32),
            edges=rng.integers(0, nodes, (2, edges)),
            weight=rng.normal(size=(edges, 1)).astype(np.float32),
        )
    model = deep_graph_network()
    data = rt.open_data(tmp_path, model)
    settings = AnalysisSettings(samples=12, batches=1, layers="all")
    analysis = analyze(Workbench(model, data, ONE), settings)
    # What is pooled over the edges of each graph, by hand.
    names = [layer.tensor for layer in analysis.layers]
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model.proto)
    del exposed.graph.output[:]
    exposed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = onnxruntime.InferenceSession(exposed.SerializeToString(), providers=["CPUExecutionProvider"])
    pooled = [[v.mean(0) for v in session.run(None, data.inputs([k]))] for k in range(12)]
    features = [np.stack([row[i] for row in pooled]).astype(np.float64) for i in range(len(names))]
    assert np.allclose(analysis.similarity, slow_cka(features), atol=1e-4)


def bfloat16(model: rt.Model) -> rt.Model:
    import ml_dtypes

    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    for tensor in proto.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor).astype(ml_dtypes.bfloat16)
        tensor.CopyFrom(
            onnx.helper.make_tensor(
                tensor.name, onnx.TensorProto.BFLOAT16, values.shape, values.tobytes(), raw=True
            )
        )
    for info in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        info.type.tensor_type.elem_type = onnx.TensorProto.BFLOAT16
    return rt.Model(proto)


def test_bfloat16_takes_float32_data_and_runs_in_float32(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    net = Net(x=["N", 8])
    x = "x"
    for _ in range(3):
        x = net("Tanh", net("MatMul", x, net.weight(8, 8)))
    model = bfloat16(net.model(x))
    np.savez(tmp_path / "d.npz", x=np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32))
    analysis = analyze(
        Workbench(model, rt.open_data(tmp_path / "d.npz", model), ONE),
        AnalysisSettings(samples=40, batches=1),
    )
    assert np.isfinite(analysis.similarity).all()
    assert "float32" in caplog.text
