"""The whole measuring path as on CUDA: a strict stand-in for CuPy, ONNX Runtime on the CPU."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from strict_cupy import strict_cupy as strict_cupy

import redtest_onnx as rt
from redtest_onnx.cli.main import run
from redtest_onnx.metrics import grams, packed
from redtest_onnx.metrics.pqi import PowerSums, power_sums
from redtest_onnx.runtime.device_arrays import device_errors
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analyze import AnalysisSettings, analyze
from redtest_onnx.similarity.compare import compare

MODELS = Path(__file__).parents[2] / "models"
RESNET, VIT, DATA = MODELS / "resnet_digits.onnx", MODELS / "vit_digits.onnx", MODELS / "digits.npz"
CPU, CUDA = rt.RunOptions("cpu", 1), rt.RunOptions("cuda", 1)

WAYS = [
    (pooling, kernel, estimator)
    for pooling, kernel, estimator in product(
        ("mean", "none", "cls", "token"), ("linear", "rbf"), ("minibatch", "paper", "biased", "exact")
    )
    if (kernel, estimator) != ("rbf", "exact")
]


def settings(pooling: Any, kernel: Any, estimator: Any) -> AnalysisSettings:
    return AnalysisSettings(pooling=pooling, kernel=kernel, estimator=estimator, samples=24, batches=2)


@pytest.mark.parametrize(("pooling", "kernel", "estimator"), WAYS)
def test_similarities_are_those_of_the_cpu(
    pooling: str, kernel: str, estimator: str, strict_cupy: ModuleType
) -> None:
    source = RESNET if pooling in ("mean", "none") else VIT
    network = rt.load(source)
    data = rt.open_data(DATA, network)
    asked = settings(pooling, kernel, estimator)
    found = analyze(Workbench(network, data, CUDA), asked)
    assert strict_cupy.counts.values >= len(found.layers) * found.batches
    expected = analyze(Workbench(network, data, CPU), asked)
    # Grams of whole activations and rounding within blocks of them differ as float32 does.
    np.testing.assert_allclose(found.similarity, expected.similarity, atol=1e-5)
    assert found.redundancy.value == pytest.approx(expected.redundancy.value, abs=1e-2)
    assert found.null95 == pytest.approx(expected.null95, abs=1e-5)


@pytest.mark.parametrize("estimator", ["minibatch", "paper", "exact"])
def test_two_models_are_compared(estimator: Any, strict_cupy: ModuleType) -> None:
    asked = settings("mean", "linear", estimator)
    models = [rt.load(path) for path in (RESNET, VIT)]
    cuda, cpu = (
        compare(*(Workbench(m, rt.open_data(DATA, m), options) for m in models), asked).similarity
        for options in (CUDA, CPU)
    )
    assert strict_cupy.counts.values
    np.testing.assert_allclose(cuda, cpu, atol=1e-5)


def test_samples_that_dominate_are_left_out(strict_cupy: ModuleType, tmp_path: Path) -> None:
    network = rt.load(RESNET)
    calibration = rt.open_data(DATA, network)
    values = calibration.inputs(range(24))["input"].copy()
    values[3] *= 1e4
    np.savez(tmp_path / "loud.npz", input=values)
    data = rt.open_data(tmp_path / "loud.npz", network)
    for asked in (settings("mean", "linear", "minibatch"), settings("none", "linear", "minibatch")):
        cuda, cpu = (analyze(Workbench(network, data, options), asked) for options in (CUDA, CPU))
        assert cuda.without_largest is not None
        assert cpu.without_largest is not None
        assert cuda.dominated == cpu.dominated
        np.testing.assert_allclose(cuda.without_largest.adjacent, cpu.without_largest.adjacent, atol=1e-4)


def test_values_without_dlpack_are_read_by_their_address(
    strict_cupy: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    network = rt.load(RESNET)
    data = rt.open_data(DATA, network)
    asked = settings("none", "linear", "minibatch")
    expected = analyze(Workbench(network, data, CPU), asked)
    monkeypatch.delattr(onnxruntime.OrtValue, "__dlpack__", raising=False)  # as before 1.26
    found = analyze(Workbench(network, data, CUDA), asked)
    assert strict_cupy.counts.values >= len(found.layers)
    np.testing.assert_allclose(found.similarity, expected.similarity, atol=1e-5)
    again = analyze(Workbench(network, data, CPU), asked)
    np.testing.assert_array_equal(again.similarity, expected.similarity)


def test_commands_run_through(strict_cupy: ModuleType, tmp_path: Path, capsys: Any) -> None:
    few = ("--data", DATA, "--device", "cuda", "--samples", 16, "--threads", 1)
    small = tmp_path / "small.onnx"
    for command in (
        ("analyze", VIT, *few, "--json", "-"),
        ("compare", RESNET, VIT, *few, "--json", "-"),
        ("rank", RESNET, VIT, *few, "--json", "-"),
        ("audit", RESNET, "--data", DATA, "--device", "cuda", "--json", "-"),
        ("prune", RESNET, *few, "--remove", 2, "-o", small, "--json", "-"),
    ):
        strict_cupy.counts.values = 0
        code = run([str(part) for part in command])
        written = capsys.readouterr()
        assert code in (0, 1) if command[0] == "audit" else code == 0, written.err
        json.loads(written.out)
        assert strict_cupy.counts.values or command[0] == "audit"
    assert small.exists()


def test_pq_index_of_device_arrays(strict_cupy: ModuleType) -> None:
    values = np.random.default_rng(0).standard_normal((6, 40))
    mask = values > -0.5
    device = power_sums(strict_cupy.asarray(values), 0.5, 1.0, 1, strict_cupy.asarray(mask))
    host = power_sums(values, 0.5, 1.0, 1, mask)
    for found, expected in (
        (device.index, host.index),
        (device.merged(device).index, host.merged(host).index),
        (device.pooled().index, host.pooled().index),
        (PowerSums.stacked([device, device]).index, PowerSums.stacked([host, host]).index),
    ):
        np.testing.assert_allclose(strict_cupy.asnumpy(found), expected, rtol=1e-12)


def test_a_numpy_function_that_slips_in_is_noticed(
    strict_cupy: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slipped(gram: Any) -> Any:
        return np.diagonal(gram) - 2 * gram.mean(axis=0)

    network = rt.load(RESNET)
    data = rt.open_data(DATA, network)
    asked = settings("mean", "linear", "minibatch")
    monkeypatch.setattr("redtest_onnx.similarity.measure.centred_norms", slipped)
    analyze(Workbench(network, data, CPU), asked)  # nothing shows on the CPU
    with pytest.raises(TypeError, match=r"numpy\.diagonal|array of the device"):
        analyze(Workbench(network, data, CUDA), asked)


@pytest.mark.parametrize(
    "slip",
    [
        lambda device, host: np.sqrt(device),
        lambda device, host: np.concatenate([device, device]),
        lambda device, host: device + host,
        lambda device, host: host * device,
        lambda device, host: device.__setitem__(0, host[0]),
        lambda device, host: np.asarray(device),
        lambda device, host: np.float64(2) * np.asarray(device),
    ],
)
def test_the_stand_in_refuses_what_cupy_refuses(slip: Any, strict_cupy: ModuleType) -> None:
    host = np.ones((2, 3))
    with pytest.raises(TypeError):
        slip(strict_cupy.asarray(host), host)


def test_reductions_are_arrays_of_the_device(strict_cupy: ModuleType) -> None:
    device = strict_cupy.asarray(np.ones((2, 3)))
    for value in (device.sum(), device.mean(), device[0, 0], strict_cupy.vdot(device, device)):
        assert isinstance(value, strict_cupy.ndarray)
        assert value.shape == ()
    assert packed.namespace(device) is strict_cupy
    assert grams.namespace(device) is strict_cupy


def test_memory_of_the_gpu_that_is_used_up_is_bad_input() -> None:
    class OutOfMemoryError(Exception):
        __module__ = "cupy.cuda.memory"

    class CompileError(Exception):
        __module__ = "cupy.cuda.compiler"

    with pytest.raises(rt.InputError, match="out of memory on the GPU"), device_errors("digits"):
        raise OutOfMemoryError("Out of memory allocating 9 bytes")
    with pytest.raises(rt.RedtestError, match="CuPy failed: no NVRTC") as failure, device_errors("digits"):
        raise CompileError("no NVRTC")
    assert failure.value.exit_code == 2
    with pytest.raises(ZeroDivisionError), device_errors("digits"):
        raise ZeroDivisionError
