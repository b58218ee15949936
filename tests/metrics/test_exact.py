"""HSIC of a whole data set from features, against Grams of everything."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from references import hsic_matrix, packed

from redtest_onnx.errors import InputError
from redtest_onnx.metrics import exact
from redtest_onnx.metrics.cka import cka
from redtest_onnx.metrics.exact import full_hsic
from redtest_onnx.metrics.grams import linear_gram


def layers(n: int, *widths: int, shift: float = 3.0) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    common = rng.standard_normal((n, 5))
    return [common @ rng.standard_normal((5, p)) + rng.standard_normal((n, p)) + shift for p in widths]


def expected(xs: list[np.ndarray], ys: list[np.ndarray]) -> np.ndarray:
    grams = []
    for side in (xs, ys):
        centred = [x.astype(np.float64) - x.astype(np.float64).mean(axis=0) for x in side]
        grams.append(np.stack([x @ x.T for x in centred]))
    return hsic_matrix(*grams)


@pytest.mark.parametrize("elements", [1 << 25, 300], ids=["whole", "blocks"])
@pytest.mark.parametrize("widths", [(3, 7), (200, 90, 400)], ids=["narrow", "wide"])
def test_both_forms_agree_with_grams(
    widths: tuple[int, ...], elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exact, "_BLOCK_ELEMENTS", elements)
    xs = layers(61, *widths)
    np.testing.assert_allclose(full_hsic(xs), expected(xs, xs), rtol=1e-9)
    ys = layers(61, 11, 2)
    np.testing.assert_allclose(full_hsic(xs, ys), expected(xs, ys), rtol=1e-9)


def test_feature_space_is_taken_where_it_is_cheaper(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError

    with monkeypatch.context() as patch:
        patch.setattr(exact, "_in_blocks", refuse)
        full_hsic(layers(500, 4, 6))
    monkeypatch.setattr(exact, "_in_feature_space", refuse)
    full_hsic(layers(20, 400, 600))


@pytest.mark.parametrize("widths", [(3, 7), (200, 90)], ids=["narrow", "wide"])
def test_float32_and_a_shared_mean(widths: tuple[int, ...]) -> None:
    xs = [x.astype(np.float32) for x in layers(61, *widths, shift=100)]
    np.testing.assert_allclose(full_hsic(xs), expected(xs, xs), rtol=1e-5)


@pytest.mark.parametrize("width", [4, 300])
def test_layers_that_do_not_vary_are_undefined(width: int) -> None:
    xs = [*layers(40, width), np.full((40, width), 0.1, np.float32)]
    found = full_hsic(xs)
    assert np.isfinite(found[0, 0])
    assert np.isnan(found[1]).all()
    assert np.isnan(found[:, 1]).all()


@pytest.mark.parametrize("forms", ["features", "blocks"])
def test_rounding_noise_beside_real_features_counts_for_nothing(
    forms: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(scale=0.05, size=(64, 5)).astype(np.float32)
    noise = 1e6 + 0.0625 * rng.integers(-3, 4, (64, 30))
    x = np.concatenate([y, noise.astype(np.float32)], axis=1)
    monkeypatch.setattr(exact, "_feature_space_is_cheaper", lambda *_: forms == "features")
    assert cka(full_hsic([x, y]))[0, 1] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("forms", ["features", "blocks"])
@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.float16])
def test_narrow_types_are_as_their_values(dtype: type, forms: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    layers = [rng.integers(0, 127, (40, 6)).astype(dtype), rng.integers(0, 90, (40, 6)).astype(dtype)]
    monkeypatch.setattr(exact, "_feature_space_is_cheaper", lambda *_: forms == "features")
    expected = full_hsic([layer.astype(np.float64) for layer in layers])
    np.testing.assert_allclose(full_hsic(layers), expected, rtol=1e-5)


def test_memory_mapped_features(tmp_path: Path) -> None:
    x = layers(50, 30)[0].astype(np.float32)
    mapped = np.memmap(tmp_path / "x", np.float32, "w+", shape=x.shape)
    mapped[...] = x
    np.testing.assert_allclose(full_hsic([mapped]), full_hsic([x]), rtol=1e-12)


def test_samples_must_match_and_suffice() -> None:
    with pytest.raises(InputError, match="same samples"):
        full_hsic([np.ones((9, 2)), np.ones((8, 2))])
    with pytest.raises(InputError, match="at least four"):
        full_hsic([np.ones((3, 2))])


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1.0, 1e12, 1e30])
@pytest.mark.parametrize("width", [3, 400])
def test_values_of_any_size_have_the_similarity_of_their_direction(scale: float, width: int) -> None:
    x = np.random.default_rng(0).normal(size=(40, width)).astype(np.float32)
    y = x[:, ::-1] + np.random.default_rng(1).normal(size=(40, width)).astype(np.float32)
    plain, scaled = (cka(full_hsic([a, b])) for a, b in ((x, y), (x * np.float32(scale), y)))
    np.testing.assert_allclose(scaled, plain, rtol=1e-4)
    grams = np.stack([linear_gram(x * np.float32(scale)), linear_gram(y)])
    np.testing.assert_allclose(cka(packed(grams).hsic()), plain, rtol=1e-4)


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e4, 1e5, 1e6, 1e8])
def test_a_common_offset_leaves_what_is_right_or_nothing(offset: float) -> None:
    """Every estimator says the same, and where it says something that is what float64 says without it."""
    x = np.random.default_rng(0).normal(size=(64, 12))
    y = x + 0.5 * np.random.default_rng(1).normal(size=(64, 12))
    right = cka(full_hsic([x, y]))[0, 1]
    a, b = ((values + offset).astype(np.float32) for values in (x, y))
    grams = np.stack([linear_gram(a), linear_gram(b)])
    found = [cka(full_hsic([a, b]))[0, 1], cka(packed(grams).hsic())[0, 1]]
    assert np.isnan(found).all() or np.abs(np.array(found) - right).max() < 0.01
    assert np.isnan(found).all() == (offset >= 1e8)
