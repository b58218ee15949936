"""The metrics on the GPU against the same code on the CPU."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from references import packed

from redtest_onnx.metrics.arrays import Array, namespace, to_numpy
from redtest_onnx.metrics.cka import cka, combine
from redtest_onnx.metrics.exact import full_hsic
from redtest_onnx.metrics.grams import linear_gram, rbf_gram
from redtest_onnx.metrics.msrs import msrs, pair_scores
from redtest_onnx.metrics.pqi import pq_index
from redtest_onnx.metrics.statistics import shuffled_null, standard_errors

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def cupy() -> ModuleType:
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    try:
        cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        pytest.skip(f"no CUDA device: {error}")
    return cupy  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def layers() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    common = rng.standard_normal((64, 8))
    layers = [common @ rng.standard_normal((8, p)) + 10 for p in (5, 100, 3000)]
    return [*(x.astype(np.float32) for x in layers), np.full((64, 9), 0.3, np.float32)]


def hsic_of(layers: list[Array]) -> Array:
    return packed(namespace(layers[0]).stack([linear_gram(x) for x in layers])).hsic()


def test_similarity_stays_on_the_device_and_agrees(cupy: ModuleType, layers: list[np.ndarray]) -> None:
    matrix = cka(hsic_of([cupy.asarray(x) for x in layers]))
    assert isinstance(matrix, cupy.ndarray)
    np.testing.assert_allclose(to_numpy(matrix), cka(hsic_of(layers)), atol=1e-5)
    np.testing.assert_array_equal(to_numpy(matrix), to_numpy(matrix.T))
    assert msrs(matrix).pairs == 3


def test_other_kernels_and_estimators_agree(cupy: ModuleType, layers: list[np.ndarray]) -> None:
    x, y = (cupy.asarray(layer) for layer in layers[:2])
    np.testing.assert_allclose(to_numpy(rbf_gram(x)), rbf_gram(layers[0]), atol=1e-9)
    grams = cupy.stack([linear_gram(x), linear_gram(y)])
    host = to_numpy(grams)
    biased = packed(grams, unbiased=False).hsic()
    np.testing.assert_allclose(to_numpy(biased), packed(host, unbiased=False).hsic(), rtol=1e-9)
    np.testing.assert_allclose(to_numpy(full_hsic([x, y])), full_hsic(layers[:2]), rtol=1e-5)
    scores = pair_scores(cupy.asarray([0.5, 0.8, 0.9]))
    np.testing.assert_allclose(to_numpy(scores), pair_scores(np.array([0.5, 0.8, 0.9])))


def test_statistics_agree(cupy: ModuleType, layers: list[np.ndarray]) -> None:
    host = np.stack([linear_gram(x) for x in layers])
    device = cupy.asarray(host)
    left_out = np.array([3, 40])
    without = packed(device).hsic_without(left_out)
    assert isinstance(without, cupy.ndarray)
    np.testing.assert_allclose(to_numpy(without), packed(host).hsic_without(left_out), rtol=1e-9)
    null = shuffled_null(packed(device), np.random.default_rng(0))
    expected = shuffled_null(packed(host), np.random.default_rng(0))
    assert null.quantile95 == pytest.approx(expected.quantile95, abs=1e-9)
    hsic = np.stack([hsic_of([x[i : i + 16] for x in layers]) for i in range(0, 64, 16)])
    for estimator in ("minibatch", "paper"):
        errors = standard_errors(cupy.asarray(hsic), estimator)  # type: ignore[arg-type]
        np.testing.assert_allclose(errors.cka, standard_errors(hsic, estimator).cka, atol=1e-9)  # type: ignore[arg-type]
        combined = combine(cupy.asarray(hsic), estimator)  # type: ignore[arg-type]
        np.testing.assert_allclose(to_numpy(combined), combine(hsic, estimator), atol=1e-9)  # type: ignore[arg-type]


def test_pq_index_agrees(cupy: ModuleType) -> None:
    values = np.random.default_rng(0).standard_normal((6, 40))
    mask = values > -0.5
    device = pq_index(cupy.asarray(values), 0.5, 1.0, axis=1, mask=cupy.asarray(mask))
    np.testing.assert_allclose(to_numpy(device), pq_index(values, 0.5, 1.0, axis=1, mask=mask), rtol=1e-12)
    assert pq_index(cupy.asarray(values), 0.5, 1.0) == pytest.approx(pq_index(values, 0.5, 1.0), rel=1e-12)
