"""Matrix products."""

from __future__ import annotations

import torch
from torch import Tensor

from redtest_onnx.bridge.registry import operator

operator("MatMul", weights=(0, 1))(torch.matmul)
operator("Det", since=11)(torch.linalg.det)


@operator("Gemm", since=7, weights=(0, 1, 2))
def gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    *,
    alpha: float,
    beta: float,
    transA: int,  # noqa: N803  (the attribute's name)
    transB: int,  # noqa: N803
) -> Tensor:
    """alpha A B + beta C."""
    a, b = (a.T if transA else a), (b.T if transB else b)
    if c is None:
        product = a @ b
        return product if alpha == 1 else alpha * product
    return torch.addmm(c, a, b, alpha=_whole(alpha, a), beta=_whole(beta, a))


def _whole(factor: float, like: Tensor) -> float:
    """The factor as torch wants it for matrices of this type."""
    return factor if like.is_floating_point() else int(factor)


@operator("Einsum", since=12, weights=(0, 1, 2))
def einsum(*operands: Tensor, equation: str) -> Tensor:
    """Sum of products in Einstein's notation."""
    return torch.einsum(equation, *operands)
