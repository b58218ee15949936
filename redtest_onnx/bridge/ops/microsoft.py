"""Fused operators that ONNX Runtime's own optimiser writes into files."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from redtest_onnx.bridge.ops.activation import hard_sigmoid
from redtest_onnx.bridge.ops.conv import conv
from redtest_onnx.bridge.ops.normalisation import layer_norm, rms_norm
from redtest_onnx.bridge.registry import MICROSOFT, operator


@operator("Gelu", domain=MICROSOFT)
def gelu(x: Tensor) -> Tensor:
    """Exact Gelu."""
    return functional.gelu(x)


@operator("BiasGelu", domain=MICROSOFT, weights=(1,))
def bias_gelu(x: Tensor, bias: Tensor) -> Tensor:
    """Exact Gelu of a sum."""
    return functional.gelu(x + bias)


@operator("FastGelu", domain=MICROSOFT, weights=(1,))
def fast_gelu(x: Tensor, bias: Tensor | None = None) -> Tensor:
    """Gelu by tanh, of a sum if there is a bias."""
    return functional.gelu(x if bias is None else x + bias, approximate="tanh")


@operator("QuickGelu", domain=MICROSOFT)
def quick_gelu(x: Tensor, *, alpha: float = 1.702) -> Tensor:
    """x sigmoid(alpha x)."""
    return x * torch.sigmoid(alpha * x)


@operator("BiasAdd", domain=MICROSOFT, weights=(1,))
def bias_add(x: Tensor, bias: Tensor, skip: Tensor) -> Tensor:
    """Sum of three."""
    return x + bias + skip


@operator("FusedMatMul", domain=MICROSOFT, weights=(0, 1))
def fused_matmul(
    a: Tensor,
    b: Tensor,
    *,
    alpha: float = 1.0,
    transA: int = 0,  # noqa: N803  (the attribute's name)
    transB: int = 0,  # noqa: N803
) -> Tensor:
    """alpha A B, with either transposed in its last two axes."""
    product = (a.mT if transA else a) @ (b.mT if transB else b)
    return product if alpha == 1 else alpha * product


_ACTIVATIONS = {"Relu": torch.relu, "Tanh": torch.tanh, "Sigmoid": torch.sigmoid}


def _activated(x: Tensor, activation: str, parameters: Sequence[float]) -> Tensor:
    match activation:
        case "LeakyRelu":
            return functional.leaky_relu(x, parameters[0])
        case "Clip":
            return x.clamp(*parameters)
        case "HardSigmoid":
            alpha, beta = parameters
            return hard_sigmoid(x, alpha=alpha, beta=beta)
    return _ACTIVATIONS[activation](x)


@operator("FusedConv", domain=MICROSOFT, weights=(1, 2))
def fused_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    skip: Tensor | None = None,
    *,
    activation: str,
    activation_params: Sequence[float] = (),
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] = (),
    group: int = 1,
    kernel_shape: Sequence[int] = (),
    pads: Sequence[int] = (),
    strides: Sequence[int] = (),
) -> Tensor:
    """Convolution, an added tensor if there is one, and an activation."""
    y = conv(x, weight, bias, auto_pad=auto_pad, dilations=dilations, group=group, pads=pads, strides=strides)
    return _activated(y if skip is None else y + skip, activation, activation_params)


@operator("FusedGemm", domain=MICROSOFT, weights=(0, 1, 2))
def fused_gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    *,
    activation: str,
    activation_alpha: float | None = None,
    activation_beta: float | None = None,
    activation_gamma: float | None = None,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,  # noqa: N803
    transB: int = 0,  # noqa: N803
) -> Tensor:
    """Gemm and an activation."""
    product = alpha * fused_matmul(a, b, transA=transA, transB=transB)
    parameters = [p for p in (activation_alpha, activation_beta, activation_gamma) if p is not None]
    return _activated(product if c is None else product + beta * c, activation, parameters)


operator("SimplifiedLayerNormalization", weights=(1,))(rms_norm)


@operator("SkipLayerNormalization", domain=MICROSOFT, weights=(2, 3, 4))
def skip_layer_norm(
    x: Tensor,
    skip: Tensor,
    scale: Tensor,
    shift: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    epsilon: float = 1e-12,
) -> tuple[Tensor, None, None, Tensor]:
    """Layer normalisation of a sum; the last output is the sum."""
    total = x + skip if bias is None else x + skip + bias
    y = layer_norm(total, scale, shift, epsilon=epsilon, outputs=1)
    assert isinstance(y, Tensor)
    return y, None, None, total


@operator("SkipSimplifiedLayerNormalization", domain=MICROSOFT, weights=(2, 3))
def skip_rms_norm(
    x: Tensor, skip: Tensor, scale: Tensor, bias: Tensor | None = None, *, epsilon: float = 1e-12
) -> tuple[Tensor, None, None, Tensor]:
    """Root mean square normalisation of a sum; the last output is the sum."""
    total = x + skip if bias is None else x + skip + bias
    return rms_norm(total, scale, epsilon=epsilon), None, None, total
