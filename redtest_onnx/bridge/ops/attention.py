"""Scaled dot-product attention and rotary position embeddings."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from redtest_onnx.bridge.dtypes import torch_dtype
from redtest_onnx.bridge.registry import operator


@operator("Attention", since=23, fixed=(4, 5, 6))
def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    valid: Tensor | None = None,
    *,
    is_causal: int,
    kv_num_heads: int = 0,
    left_window_size: int = -1,
    q_num_heads: int = 0,
    qk_matmul_output_mode: int = 0,
    right_window_size: int = -1,
    scale: float | None = None,
    softcap: float = 0.0,
    softmax_precision: int = 0,
    outputs: int,
) -> tuple[Tensor, ...]:
    """Attention of queries over keys, several queries heads per key head allowed.

    Args:
        query: [batch, heads, queries, size], or [batch, queries, heads size].
        key: [batch, kv heads, keys, size], or flat like the query.
        value: like the key, its head size may differ.
        mask: bool (True takes part) or float (added to the scores), broadcast to
            [batch, heads, queries, keys].
        past_key: earlier keys, put in front of the new ones.
        past_value: earlier values.
        valid: number of keys of each sample that are no padding, [batch].

    Returns:
        The result in the form of the query, keys and values with the past ones, and the scores at the stage
        `qk_matmul_output_mode` names.
    """
    flat = query.dim() == 3
    if flat:
        query, key, value = (
            _heads(query, q_num_heads),
            _heads(key, kv_num_heads),
            _heads(value, kv_num_heads),
        )
    past = 0 if past_key is None else past_key.shape[2]
    if past_key is not None and past_value is not None:
        key, value = torch.cat([past_key, key], 2), torch.cat([past_value, value], 2)
    present = key, value
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    allowed = _allowed(query, key, past, valid, is_causal, (left_window_size, right_window_size))
    bias = _bias(mask, allowed, key.shape[2], query.dtype)
    if outputs < 4 and not softcap:
        y, scores = functional.scaled_dot_product_attention(query, key, value, bias, scale=scale), query
    else:
        y, scores = _explicit(
            query, key, value, bias, scale, softcap, qk_matmul_output_mode, softmax_precision
        )
    return (_flat(y) if flat else y, *present, scores)


def _explicit(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    scale: float | None,
    softcap: float,
    mode: int,
    precision: int,
) -> tuple[Tensor, Tensor]:
    """Attention step by step, and its scores: 0 raw, 1 capped, 2 with bias, 3 after the softmax."""
    root = math.sqrt(1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    stages = [(query * root) @ (key * root).mT]
    stages.append(torch.tanh(stages[0] / softcap) * softcap if softcap else stages[0])
    stages.append(stages[1] if bias is None else stages[1] + bias)
    wide = stages[2].to(torch_dtype(precision)) if precision else stages[2]
    weights = torch.softmax(wide, -1).to(query.dtype)
    if bias is not None:
        # A query that may look at nothing gets zeros instead of 0 / 0.
        weights = weights.masked_fill(bias.amax(-1, keepdim=True) == -math.inf, 0)
    stages.append(weights)
    return weights @ value, stages[mode]


def _heads(x: Tensor, count: int) -> Tensor:
    """[batch, steps, heads size] as [batch, heads, steps, size]."""
    return x.reshape(*x.shape[:2], count, -1).transpose(1, 2)


def _flat(x: Tensor) -> Tensor:
    """[batch, heads, steps, size] as [batch, steps, heads size]."""
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], -1)


def _allowed(
    query: Tensor, key: Tensor, past: int, valid: Tensor | None, causal: int, window: tuple[int, int]
) -> Tensor | None:
    """Which keys each query may look at, [queries, keys] or [batch, 1, queries, keys]; None for all."""
    places = torch.arange(key.shape[2], device=query.device)
    steps = torch.arange(query.shape[2], device=query.device)[:, None]
    ends = None if valid is None else valid.reshape(-1, 1, 1, 1)
    now = steps + (past if ends is None else ends - query.shape[2])
    left, right = window
    rules = [places < ends] if ends is not None else []
    if causal:
        rules.append(places <= now)
    if left >= 0:
        rules.append(now - places <= left)
    if right >= 0:
        rules.append(places - now <= right)
    allowed = None
    for rule in rules:
        allowed = rule if allowed is None else allowed & rule
    return allowed


def _bias(mask: Tensor | None, allowed: Tensor | None, keys: int, dtype: torch.dtype) -> Tensor | None:
    """What is added to the scores: the float mask, and minus infinity where a key is not allowed."""
    bias: Tensor | None = None
    if mask is not None:
        missing = keys - mask.shape[-1]
        if mask.dtype is torch.bool:
            mask = functional.pad(mask, (0, missing))
            allowed = mask if allowed is None else allowed & mask
        else:
            bias = functional.pad(mask, (0, missing), value=-math.inf)
    if allowed is None:
        return bias
    hidden = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill(~allowed, -math.inf)
    return hidden if bias is None else bias + hidden


@operator("RotaryEmbedding", since=23, fixed=(1, 2, 3))
def rotary_embedding(
    x: Tensor,
    cos: Tensor,
    sin: Tensor,
    positions: Tensor | None = None,
    *,
    interleaved: int,
    num_heads: int = 0,
    rotary_embedding_dim: int,
) -> Tensor:
    """Rotate pairs of features by angles that grow with the position (Su et al. 2021).

    Args:
        x: [batch, heads, steps, size] or [batch, steps, heads size].
        cos: cosines, [positions, size / 2], or [batch, steps, size / 2] without `positions`.
        sin: sines, likewise.
        positions: position of each step, [batch, steps].
    """
    flat = x.dim() == 3
    heads = _heads(x, num_heads) if flat else x
    size = rotary_embedding_dim or heads.shape[-1]
    turned, rest = heads[..., :size], heads[..., size:]
    if positions is not None:
        cos, sin = cos[positions], sin[positions]
    cos, sin = cos[:, None], sin[:, None]
    if interleaved:
        first, second = turned[..., 0::2], turned[..., 1::2]
    else:
        first, second = turned.chunk(2, -1)
    real, imaginary = cos * first - sin * second, sin * first + cos * second
    if interleaved:
        turned = torch.stack([real, imaginary], -1).flatten(-2)
    else:
        turned = torch.cat([real, imaginary], -1)
    y = torch.cat([turned, rest], -1)
    return _flat(y) if flat else y
