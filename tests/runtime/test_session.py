from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import redtest_onnx as rt
from redtest_onnx.data.batching import batches
from redtest_onnx.errors import RuntimeUnavailableError
from redtest_onnx.runtime.devices import cuda_available, resolve_device
from redtest_onnx.runtime.latency import measure_latency
from redtest_onnx.runtime.session import Session, Use
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analyze import AnalysisSettings
from tests.nets import Net

CPU = rt.RunOptions("cpu")


def model(op: str = "Relu", opset: int = 17) -> rt.Model:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in "xy")
    graph = helper.make_graph([helper.make_node(op, ["x"], ["y"])], "g", [x], [y])
    return rt.Model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8))


def test_a_missing_runtime_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(RuntimeUnavailableError, match="not installed") as error:
        Session(model())
    assert "redtest-onnx[cpu]" in str(error.value)


def test_a_model_the_runtime_refuses() -> None:
    with pytest.raises(rt.InputError, match="refuses the model"):
        Session(model("NoSuchOperator"))
    with pytest.raises(rt.InputError, match="refuses the model"):
        Session(model(opset=99))


def test_strings_are_taken_by_all_that_runs_models(tmp_path: Path) -> None:
    net = Net(x=["n", 3])
    kind = net.add_input("kind", TensorProto.STRING, ["n", 1])
    keys = {"keys_strings": ["a", "b", "c"], "values_floats": [0.0, 1.0, 2.0]}
    code = net("LabelEncoder", kind, domain="ai.onnx.ml", **keys)
    row = net("Concat", code, "x", axis=1)
    for _ in range(3):
        row = net("Add", row, net("Relu", net("Gemm", row, net.weight(4, 4), net.weight(4))))
    proto = net.model(net("Gemm", row, net.weight(4, 2), net.weight(2))).proto
    proto.opset_import[1].version = 2
    strings = rt.Model(proto)
    random = np.random.default_rng(0)
    kinds, x = random.choice(["a", "b", "c"], (40, 1)), random.normal(size=(40, 3)).astype(np.float32)
    np.savez(tmp_path / "data.npz", kind=kinds, x=x)
    data = rt.open_data(tmp_path / "data.npz", strings)
    assert data.inputs(np.arange(2))["kind"].tolist() == kinds[:2].tolist()
    analysis = rt.analyze(strings, data, options=CPU)
    assert np.isfinite(analysis.similarity).all()
    assert len(rt.analyze(strings, options=CPU).layers) == len(analysis.layers)


def test_a_run_that_fails_names_the_inputs() -> None:
    with pytest.raises(rt.InputError, match="the run failed") as error:
        Session(model(), rt.RunOptions("cpu")).run({"x": np.zeros((1, 3), np.float32)})
    assert "float32[1, 3]" in str(error.value)
    assert "fixed inside" not in str(error.value)  # the file says which sizes it takes


def test_a_run_that_fails_tells_of_sizes_that_are_only_declared_open() -> None:
    """As in files that were traced with one example."""
    net = Net(x=("n", "t", 4))
    traced = net.model(net("Add", "x", net.weight(1, 6, 4), name="y"))
    session = Session(traced, rt.RunOptions("cpu"))
    with pytest.raises(rt.InputError, match="fixed inside"):
        session.run({"x": np.zeros((1, 5, 4), np.float32)})
    session.run({"x": np.zeros((2, 6, 4), np.float32)})


@pytest.mark.parametrize(
    ("use", "borrowed"), [("often", False), ("often", True), ("once", False), ("beside", False)]
)
def test_outputs_do_not_hold_the_memory_of_their_session(use: Use, borrowed: bool) -> None:
    """They would keep its weights and the largest run's activations alive."""
    values = np.ones((1 << 20, 2), np.float32)
    session = Session(model(), CPU, use=use)
    held = [session.run({"x": values[:2]}, borrowed=borrowed)["y"]]
    session.run({"x": values})
    np.testing.assert_array_equal(held[0], values[:2])
    assert held[0].flags.owndata is (use == "often" and not borrowed)


def test_cuda_is_not_replaced_silently() -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    with pytest.raises(RuntimeUnavailableError, match="no CUDA support"):
        Session(model(), rt.RunOptions("cuda"))
    assert Session(model(), rt.RunOptions("auto")).device == "cpu"


@pytest.mark.gpu
def test_cuda_gives_what_the_cpu_gives() -> None:
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("needs a CUDA device and onnxruntime-gpu")
    feeds = {"x": np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)}
    cuda, cpu = (
        Session(model("Sigmoid"), rt.RunOptions(device)).run(feeds)["y"] for device in ("cuda", "cpu")
    )
    np.testing.assert_allclose(cuda, cpu, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.parametrize("pooling", ["mean", "none"])
def test_similarities_agree_and_no_activation_leaves_the_gpu(pooling: Any) -> None:
    import onnxruntime

    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("needs a CUDA device and onnxruntime-gpu")
    source = Path(__file__).parents[2] / "models" / "resnet_digits.onnx"
    network = rt.load(source)
    data = rt.open_data(source.with_name("digits.npz"), network)
    settings = AnalysisSettings(samples=64, batches=2, pooling=pooling)
    cuda, cpu = (
        rt.analyze(network, data, settings, rt.RunOptions(device)).similarity for device in ("cuda", "cpu")
    )
    np.testing.assert_allclose(cuda, cpu, atol=1e-4)
    feeds = data.inputs(range(4))
    for value in Session(network, rt.RunOptions("cuda")).run_in_place(feeds).values():
        assert isinstance(value, cupy.ndarray)


def test_latency_percentiles_are_ordered() -> None:
    bench = Workbench(model(), rt.open_data(None, model()), rt.RunOptions("cpu"))
    one, two = measure_latency([bench, bench.successor(model("Sigmoid"))], seconds=0)
    for latency in (one, two):
        assert 0 < latency.p50 <= latency.p90 <= latency.p99
        assert latency.runs >= 15


def test_runs_of_a_fixed_size_are_filled_up() -> None:
    found = [(list(chosen), count) for chosen, count in batches(np.arange(5), 3, fixed=True)]
    assert found == [([0, 1, 2], 3), ([3, 4, 3], 2)]
    found = [(list(chosen), count) for chosen, count in batches(np.arange(5), 3, fixed=False)]
    assert found == [([0, 1, 2], 3), ([3, 4], 2)]


def test_a_probe_finds_weights_in_external_files(tmp_path: Path) -> None:
    source = Path(__file__).parents[2] / "models" / "resnet_digits.onnx"
    whole = rt.load(source)
    path = tmp_path / "model.onnx"
    onnx.save(onnx.load(source), path, save_as_external_data=True, location="w.data", size_threshold=256)
    outside = rt.load(path)
    assert outside.external_files
    data = rt.open_data(source.with_name("digits.npz"), whole)
    settings = AnalysisSettings(samples=8, batches=1, pooling="none")
    matrices = [rt.analyze(m, data, settings, CPU).similarity for m in (whole, outside)]
    np.testing.assert_allclose(*matrices, atol=1e-6)


def test_outputs_stay_where_they_were_made() -> None:
    feeds = {"x": np.ones((3, 2), np.float32)}
    session = Session(model("Sigmoid"), CPU)
    (placed,) = session.run_in_place(feeds).values()
    np.testing.assert_array_equal(placed, session.run(feeds)["y"])
    assert not placed.flags.owndata  # ONNX Runtime's memory, not a copy of it


def test_without_cuda_auto_runs_on_the_cpu_and_says_why(caplog: pytest.LogCaptureFixture) -> None:
    if cuda_available():
        pytest.skip("this ONNX Runtime was built for CUDA")
    with caplog.at_level(logging.INFO):
        assert resolve_device("auto") == "cpu"
    assert [record.message for record in caplog.records] == [
        "running on the CPU: this ONNX Runtime has no CUDA support"
    ]
