"""Which weights go: counts per group, the smallest first, never one that is gone already."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redtest_onnx.errors import InputError
from redtest_onnx.metrics.pqi import power_sums
from redtest_onnx.weight_sparsity.masks import (
    SCOPES,
    Amount,
    Bound,
    Mask,
    PruningRule,
    Rows,
    Scope,
    prune_smallest,
)

properties = settings(deadline=None, max_examples=40)
scopes = st.sampled_from(SCOPES)
rules = st.sampled_from([Amount(0.3), Amount(1.0), Bound(), Bound(1, 2), Bound(gamma=3), Bound(eta=0.2)])
seeds = st.integers(0, 10_000)


def network(seed: int) -> tuple[list[Rows], list[Mask]]:
    rng = np.random.default_rng(seed)
    shapes = [(rng.integers(1, 5), rng.integers(1, 9)) for _ in range(3)]
    # Few values, so that there are ties.
    tensors = [rng.integers(-4, 5, size=shape).astype(np.float32) / 4 for shape in shapes]
    return tensors, [rng.random(shape) < 0.8 for shape in shapes]


def groups(values: list[np.ndarray], scope: Scope) -> list[np.ndarray]:
    if scope == "neuron":
        return [row for tensor in values for row in tensor]
    if scope == "layer":
        return [tensor.ravel() for tensor in values]
    return [np.concatenate([tensor.ravel() for tensor in values])]


def pruned(tensors: list[Rows], masks: list[Mask], scope: Scope, rule: PruningRule) -> list[Mask]:
    return prune_smallest(tensors.__getitem__, masks, scope, rule)


@properties
@given(seeds, scopes, rules)
def test_each_group_loses_as_many_as_the_rule_says_and_the_smallest(
    seed: int, scope: Scope, rule: PruningRule
) -> None:
    tensors, masks = network(seed)
    after = pruned(tensors, masks, scope, rule)
    for values, before, now in zip(*(groups(part, scope) for part in (tensors, masks, after)), strict=True):
        assert not (now & ~before).any()
        count = int(rule.counts(power_sums(values, *rule.exponents, mask=before)))
        gone = before & ~now
        assert gone.sum() == count
        if gone.any() and now.any():
            assert np.abs(values[gone]).max() <= np.abs(values[now]).min()


@properties
@given(seeds, scopes, rules)
def test_nothing_given_is_changed(seed: int, scope: Scope, rule: PruningRule) -> None:
    tensors, masks = network(seed)
    copies = [mask.copy() for mask in masks]
    pruned(tensors, masks, scope, rule)
    for mask, copy in zip(masks, copies, strict=True):
        np.testing.assert_array_equal(mask, copy)


@properties
@given(seeds, scopes, st.sampled_from([1e-3, -2.0, 1024.0]))
def test_scale_changes_no_mask(seed: int, scope: Scope, scale: float) -> None:
    tensors, masks = network(seed)
    expected = pruned(tensors, masks, scope, Bound())
    found = pruned([tensor * np.float32(scale) for tensor in tensors], masks, scope, Bound())
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_array_equal(a, b)


@properties
@given(seeds)
def test_the_order_of_neurons_changes_no_neuron(seed: int) -> None:
    tensors, masks = network(seed)
    order = [np.random.default_rng(seed).permutation(len(tensor)) for tensor in tensors]
    straight = pruned(tensors, masks, "neuron", Bound())
    turned = pruned(
        [t[o] for t, o in zip(tensors, order, strict=True)],
        [m[o] for m, o in zip(masks, order, strict=True)],
        "neuron",
        Bound(),
    )
    for a, b, o in zip(straight, turned, order, strict=True):
        np.testing.assert_array_equal(a[o], b)


def test_sap_prunes_what_the_formula_says() -> None:
    values = np.random.default_rng(0).standard_normal((1, 1000)).astype(np.float32)
    sums = power_sums(values, 0.5, 1.0)
    r = math.ceil(1000 * (1 - float(sums.index)) ** 1.0)
    expected = {1.0: math.floor(1000 * (1 - r / 1000) + 1e-6), 2.0: 2 * (1000 - r), 100.0: 900}
    for gamma, count in expected.items():
        (mask,) = pruned([values], [np.ones_like(values, bool)], "layer", Bound(gamma=gamma))
        assert (~mask).sum() == count


@pytest.mark.parametrize("scope", SCOPES)
def test_groups_without_an_index_spare_nothing(scope: Scope) -> None:
    values = np.zeros((2, 5), np.float32)
    (mask,) = pruned([values], [np.ones_like(values, bool)], scope, Bound())
    assert mask.all()
    nothing = np.zeros_like(values, bool)
    assert not pruned([values], [nothing], scope, Bound())[0].any()


@pytest.mark.parametrize("scope", SCOPES)
def test_empty_tensors_and_single_weights(scope: Scope) -> None:
    tensors = [np.zeros((0, 3), np.float32), np.ones((1, 1), np.float32)]
    masks = [np.ones_like(tensor, bool) for tensor in tensors]
    after = pruned(tensors, masks, scope, Bound())
    assert after[0].shape == (0, 3)
    assert after[1].all()


def test_half_precision_keeps_its_order() -> None:
    values = np.array([[1.0, 1.001, 0.5, 2.0]], np.float16)
    (mask,) = pruned([values], [np.ones((1, 4), bool)], "global", Amount(0.5))
    assert mask.tolist() == [[False, True, False, True]]


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan])
def test_amounts_are_shares(share: float) -> None:
    with pytest.raises(InputError, match="amount"):
        Amount(share)


@pytest.mark.parametrize("wrong", [{"p": 1.0, "q": 1.0}, {"beta": 2.0}, {"gamma": -1.0}, {"eta": -1.0}])
def test_bounds_are_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError):
        Bound(**wrong)
