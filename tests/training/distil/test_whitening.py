"""Whitened coordinates: what they stand for, and that they are white."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="distillation needs PyTorch")

from nets import Net  # noqa: E402

from redtest_onnx.bridge import to_torch  # noqa: E402
from redtest_onnx.graph.linear_operators import linear_operators  # noqa: E402
from redtest_onnx.training.distil.whitening import Moments, WhitenedOperator, _rows  # noqa: E402


def convolution(groups: int, *, stride: int = 1, dilation: int = 1, pads: tuple[int, ...] = (1, 1, 1, 1)):
    net = Net(x=["n", 4, 7, 6])
    weight, bias = net.weight(6, 4 // groups, 3, 3), net.weight(6)
    out = net(
        "Conv",
        "x",
        weight,
        bias,
        group=groups,
        pads=list(pads),
        strides=[stride, stride],
        dilations=[dilation, dilation],
    )
    return net.model(net("Neg", out)), out


@pytest.mark.parametrize(
    ("groups", "options"),
    [
        (1, {}),
        (2, {"stride": 2}),
        (1, {"dilation": 2, "pads": (2, 2, 2, 2)}),
        (1, {"stride": 2, "pads": (0, 0, 1, 1)}),
        (2, {"pads": (0, 1, 2, 0)}),
    ],
)
def test_rows_are_what_each_output_is_made_from(groups: int, options: dict) -> None:
    model, out = convolution(groups, **options)
    (operator,) = linear_operators(model)
    module = to_torch(model)
    x = torch.randn(3, 4, 7, 6)
    with torch.no_grad():
        made = module.tensors([out], x=x)[out]
    rows = _rows(operator, x, made)  # [G, n * positions, p]
    weight = torch.from_numpy(np.array(model.value(operator.weight_of(model)))).reshape(
        groups, 6 // groups, -1
    )
    bias = torch.from_numpy(np.array(model.value(operator.bias_of(model))))
    expected = made.permute(0, 2, 3, 1).reshape(-1, 6)
    found = torch.cat([rows[g] @ weight[g].T for g in range(groups)], 1) + bias
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [5, 40])
def test_coordinates_are_white(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from redtest_onnx.training.distil import whitening

    monkeypatch.setattr(whitening, "_LARGEST_ROOT", 20)  # both kinds of factor
    net = Net(x=["n", size])
    model = net.model(net("Gemm", "x", net.weight(size, 3), net.weight(3)))
    (operator,) = linear_operators(model)
    # Correlated, and well above the ridge in every direction: an unlucky draw of a square matrix is not.
    mixing = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64))[0] * torch.linspace(0.5, 3, size)
    x = torch.randn(4000, size, dtype=torch.float64) @ mixing @ mixing.T + 2
    moments = Moments(operator, 4000, 4000, 0)
    moments.add(x.float(), torch.zeros(4000, 3))
    whitener = moments.whitener(1e-6)[0].double()
    rows = torch.cat([x, torch.ones(4000, 1, dtype=torch.float64)], 1) @ whitener.T
    covariance = rows.T @ rows / len(rows)
    torch.testing.assert_close(covariance, torch.eye(size + 1, dtype=torch.float64), rtol=0, atol=0.01)


def test_a_step_moves_the_target_by_what_the_coordinates_say() -> None:
    """Behind a batch normalisation the weights take its factor out."""
    net = Net(x=["n", 4, 5, 5])
    out = net("Conv", "x", net.weight(3, 4, 3, 3), pads=[1, 1, 1, 1])
    scale, shift = net.store([2.0, -0.5, 1.5]), net.store([0.1, 0.2, 0.3])
    normal = net(
        "BatchNormalization", out, scale, shift, net.store([0.0, 1.0, 2.0]), net.store([1.0, 4.0, 9.0])
    )
    model = net.model(net("Relu", normal))
    (operator,) = linear_operators(model)
    assert operator.target == normal
    module = to_torch(model, batch_norm="frozen")
    x = torch.randn(2, 4, 5, 5)
    with torch.no_grad():
        values = module.tensors([out, normal], x=x)
        moments = Moments(operator, 2, 10_000, 0)
        moments.add(x, values[out])
        stored = dict(module.trained())
        weight = stored[operator.weight_of(model).name]
        bias = stored[operator.bias_of(model).name]
        whitened = WhitenedOperator(operator, weight, bias, moments.whitener(1e-3))
        whitened.coordinates.normal_()
        change = whitened.coordinates[0] @ whitened.whitener[0]  # [M, p + 1]
        rows = _rows(operator, x, values[out])[0]
        expected = torch.cat([rows, torch.ones(len(rows), 1)], 1) @ change.T
        new_weight, new_bias = whitened()
        weight.copy_(new_weight)
        bias.copy_(new_bias)
        moved = module.tensors([normal], x=x)[normal] - values[normal]
    torch.testing.assert_close(moved.permute(0, 2, 3, 1).reshape(-1, 3), expected, rtol=1e-3, atol=1e-3)
