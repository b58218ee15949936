from __future__ import annotations

import sys

import numpy as np
import pytest
from onnx import TensorProto, helper

import redtest_onnx as rt
from redtest_onnx.errors import RuntimeUnavailableError
from redtest_onnx.runtime.batching import runs
from redtest_onnx.runtime.latency import measure_latency
from redtest_onnx.runtime.session import Session


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


def test_a_run_that_fails_names_the_inputs() -> None:
    with pytest.raises(rt.InputError, match="the run failed") as error:
        Session(model(), rt.RunOptions("cpu")).run({"x": np.zeros((1, 3), np.float32)})
    assert "float32[1, 3]" in str(error.value)


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


def test_latency_percentiles_are_ordered() -> None:
    one, two = measure_latency(
        [model(), model("Sigmoid")], rt.open_data(None, model()), rt.RunOptions("cpu"), seconds=0
    )
    for latency in (one, two):
        assert 0 < latency.p50 <= latency.p90 <= latency.p99
        assert latency.runs >= 15


def test_runs_of_a_fixed_size_are_filled_up() -> None:
    found = [(list(chosen), count) for chosen, count in runs(np.arange(5), 3, fixed=True)]
    assert found == [([0, 1, 2], 3), ([3, 4, 3], 2)]
    found = [(list(chosen), count) for chosen, count in runs(np.arange(5), 3, fixed=False)]
    assert found == [([0, 1, 2], 3), ([3, 4], 2)]
