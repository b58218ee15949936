"""The PQ Index of models: sanity values, degenerate groups, scopes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from nets import Net

import redtest_onnx as rt
from redtest_onnx.errors import InputError
from redtest_onnx.metrics.pqi import power_sums, pq_index
from redtest_onnx.weight_sparsity import measure
from redtest_onnx.weight_sparsity.measure import measure_sparsity


def product(values: object) -> rt.Model:
    net = Net(x=[1, len(np.asarray(values))])
    return net.model(net("MatMul", "x", net.store(values)))


def test_eleven_million_gaussian_weights() -> None:
    values = np.random.default_rng(0).standard_normal((2200, 5000), np.float32)
    found = measure_sparsity(product(values))
    half, one = found.overall
    assert half.index == pytest.approx(0.1528, abs=5e-4)
    assert one.index == pytest.approx(0.2021, abs=5e-4)
    assert half.retained / found.elements == pytest.approx(0.847, abs=5e-4)
    assert one.retained / found.elements == pytest.approx(0.6366, abs=5e-4)


def test_every_scope_is_the_index_of_its_groups() -> None:
    rng = np.random.default_rng(1)
    net = Net(x=[1, 30])
    weights = [rng.laplace(size=(30, 20)), rng.normal(size=(20, 10)) ** 3]
    hidden = net("MatMul", "x", net.store(weights[0]))
    found = measure_sparsity(net.model(net("MatMul", hidden, net.store(weights[1]))), [(0.5, 1.0)])
    weights = [value.astype(np.float32) for value in weights]
    for tensor, values in zip(found.tensors, weights, strict=True):
        assert tensor.groups[0].index == pytest.approx(pq_index(values, 0.5, 1.0), rel=1e-12)
        columns = power_sums(values, 0.5, 1.0, axis=0)
        assert tensor.neurons[0].quantiles[2] == pytest.approx(np.median(columns.index), rel=1e-12)
        assert tensor.neurons[0].retained == columns.retained().sum()
    together = np.concatenate([value.ravel() for value in weights])
    assert found.overall[0].index == pytest.approx(pq_index(together, 0.5, 1.0), rel=1e-12)
    neurons = sum(tensor.neurons[0].retained for tensor in found.tensors)
    assert found.retained(0)["neuron"] == neurons / found.elements


def test_small_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = product(np.random.default_rng(0).normal(size=(40, 30)))
    whole = measure_sparsity(model)
    monkeypatch.setattr(measure, "_CHUNK", 50)
    assert measure_sparsity(model).overall[0].index == pytest.approx(whole.overall[0].index, rel=1e-12)
    assert measure_sparsity(model).histogram == whole.histogram


def test_powers_down_to_a_twentieth_do_not_overflow() -> None:
    values = np.geomspace(1e-38, 1e38, 2000).reshape(50, 40)
    found = measure_sparsity(product(values), [(0.05, 1.0), (0.1, 2.0)])
    assert all(0 < group.index <= 1 for group in found.overall)


def test_zero_groups_are_undefined_and_need_nothing() -> None:
    values = np.ones((4, 3))
    values[:, 1] = 0
    net = Net(x=[1, 4])
    hidden = net("MatMul", "x", net.store(values))
    found = measure_sparsity(net.model(net("MatMul", hidden, net.store(np.zeros((3, 2))))), [(1.0, 2.0)])
    mixed, empty = found.tensors
    assert (mixed.neurons[0].undefined, mixed.neurons[0].count) == (1, 3)
    assert mixed.neurons[0].retained == mixed.groups[0].retained == 8
    assert math.isnan(empty.groups[0].index)
    assert empty.groups[0].retained == 0
    assert math.isnan(empty.neurons[0].quantiles[0])
    assert found.overall[0].retained == 8
    assert found.zeros == 10


def test_one_weight_has_index_zero() -> None:
    found = measure_sparsity(product([[3.0]]))
    assert found.overall[0].index == 0
    assert found.overall[0].retained == 1


def test_weights_that_are_not_finite_are_listed() -> None:
    net = Net(x=[1, 2])
    hidden = net("MatMul", "x", net.store([[1, np.nan], [1, 1]]))
    found = measure_sparsity(net.model(net("MatMul", hidden, net.store(np.ones((2, 2))))))
    assert len(found.tensors) == 1
    assert "NaN" in found.skipped[0].reason


def test_empty_tensors_are_listed() -> None:
    net = Net(x=[1, 0])
    hidden = net("MatMul", "x", net.store(np.ones((0, 2))))
    found = measure_sparsity(net.model(net("MatMul", hidden, net.store(np.ones((2, 2))))))
    assert "no values" in found.skipped[0].reason


def test_the_histogram_counts_every_weight_once() -> None:
    found = measure_sparsity(product([[0.0, 1e-30, 0.11], [-0.11, 1e9, 0.5]]))
    histogram = found.histogram
    assert sum(histogram.counts) + histogram.zeros == found.elements
    assert histogram.counts[0] == histogram.counts[-1] == 1
    tenth = np.searchsorted(histogram.edges, np.log10(0.11)) - 1
    assert histogram.counts[tenth] == 2


@pytest.mark.parametrize("pair", [(1.0, 1.0), (2.0, 1.0), (0.0, 1.0)])
def test_exponents_must_be_ordered(pair: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="0 < p < q"):
        measure_sparsity(product(np.ones((2, 2))), [pair])


def test_a_model_without_weights_is_refused() -> None:
    net = Net(x=[1, 4])
    with pytest.raises(InputError, match="no weights"):
        measure_sparsity(net.model(net("Relu", "x")))


def test_weights_in_external_files_are_read(tmp_path: Path) -> None:
    model = product(np.random.default_rng(0).normal(size=(40, 30)))
    path = tmp_path / "large.onnx"
    expected = measure_sparsity(model)
    onnx.save(model.proto, path, save_as_external_data=True, size_threshold=0)
    loaded = rt.load(path)
    assert loaded.external_files
    assert measure_sparsity(loaded) == expected
