"""Convolutions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from redtest_onnx.bridge.ops.windows import pad_spatial, place_windows
from redtest_onnx.bridge.registry import operator

_CONV = {3: functional.conv1d, 4: functional.conv2d, 5: functional.conv3d}
_TRANSPOSED = {3: functional.conv_transpose1d, 4: functional.conv_transpose2d, 5: functional.conv_transpose3d}


@operator("Conv", weights=(1, 2))
def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    auto_pad: str,
    dilations: Sequence[int] = (),
    group: int,
    kernel_shape: Sequence[int] = (),
    pads: Sequence[int] = (),
    strides: Sequence[int] = (),
) -> Tensor:
    """Convolution of [N, C, spatial...] with a filter [M, C / group, kernel...]."""
    run = _CONV[weight.dim()]
    rank = weight.dim() - 2
    stride, dilation = tuple(strides) or 1, tuple(dilations) or 1
    if auto_pad == "NOTSET" and pads[:rank] == pads[rank:]:
        return run(x, weight, bias, stride, tuple(pads[:rank]) or 0, dilation, group)
    windows = place_windows(
        x.shape[2:], weight.shape[2:], strides=strides, dilations=dilations, pads=pads, auto_pad=auto_pad
    )
    return run(pad_spatial(x, windows.begins, windows.ends), weight, bias, stride, 0, dilation, group)


@operator("ConvTranspose", weights=(1, 2))
def conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    auto_pad: str,
    dilations: Sequence[int] = (),
    group: int,
    kernel_shape: Sequence[int] = (),
    output_padding: Sequence[int] = (),
    output_shape: Sequence[int] = (),
    pads: Sequence[int] = (),
    strides: Sequence[int] = (),
) -> Tensor:
    """Transposed convolution of [N, C, spatial...] with a filter [C, M / group, kernel...]."""
    run = _TRANSPOSED[weight.dim()]
    rank = weight.dim() - 2
    strides, dilations = tuple(strides) or (1,) * rank, tuple(dilations) or (1,) * rank
    extra = tuple(output_padding) or (0,) * rank
    if auto_pad == "NOTSET" and not output_shape and pads[:rank] == pads[rank:]:
        limit = [max(s, d) for s, d in zip(strides, dilations, strict=True)]
        if all(e < most for e, most in zip(extra, limit, strict=True)):
            return run(x, weight, bias, strides, tuple(pads[:rank]) or 0, extra, group, dilations)
    full = run(x, weight, None, strides, 0, 0, group, dilations)
    begins, ends = _crops(x, full, strides, extra, auto_pad, output_shape, pads)
    cropped = pad_spatial(full, [-n for n in begins], [e - n for e, n in zip(extra, ends, strict=True)])
    return cropped if bias is None else cropped + bias.reshape(-1, *[1] * rank)


def _crops(
    x: Tensor,
    full: Tensor,
    strides: Sequence[int],
    extra: Sequence[int],
    auto_pad: str,
    output_shape: Sequence[int],
    pads: Sequence[int],
) -> tuple[Sequence[int], Sequence[int]]:
    """What to cut off the full result in front and behind."""
    rank = x.dim() - 2
    if not output_shape and auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        output_shape = [n * stride for n, stride in zip(x.shape[2:], strides, strict=True)]
    if not output_shape:
        return tuple(pads[:rank]) or (0,) * rank, tuple(pads[rank:]) or (0,) * rank
    wanted = output_shape[-rank:]
    totals = [n + e - size for n, e, size in zip(full.shape[2:], extra, wanted, strict=True)]
    small, large = [n // 2 for n in totals], [n - n // 2 for n in totals]
    return (small, large) if auto_pad == "SAME_UPPER" else (large, small)


@operator("DeformConv", since=19, weights=(1, 3))
def deform_conv(
    x: Tensor,
    weight: Tensor,
    offset: Tensor,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    dilations: Sequence[int] = (),
    group: int,
    kernel_shape: Sequence[int] = (),
    offset_group: int,
    pads: Sequence[int] = (),
    strides: Sequence[int] = (),
) -> Tensor:
    """Deformable convolution in two dimensions (Dai et al. 2017; Zhu et al. 2019 with a mask).

    Args:
        x: [N, C, H, W].
        weight: [M, C / group, kH, kW].
        offset: [N, offset_group 2 kH kW, oH, oW], y before x.
        bias: [M].
        mask: [N, offset_group kH kW, oH, oW].
    """
    n, channels, height, width = x.shape
    outputs, _, rows, columns = weight.shape
    taps, (out_h, out_w) = rows * columns, offset.shape[2:]
    windows = place_windows((height, width), (rows, columns), strides=strides, dilations=dilations, pads=pads)
    grid = _grid(windows.begins, windows.strides, windows.dilations, (rows, columns), (out_h, out_w), offset)
    moved = grid + offset.reshape(n * offset_group, taps, 2, out_h, out_w)
    size = torch.tensor([height, width], dtype=x.dtype, device=x.device).reshape(1, 1, 2, 1, 1)
    normal = ((2 * moved + 1) / size - 1).permute(0, 1, 3, 4, 2).flip(-1)
    sampled = functional.grid_sample(
        x.reshape(n * offset_group, -1, height, width),
        normal.reshape(n * offset_group, taps * out_h, out_w, 2),
        align_corners=False,
    ).reshape(n, offset_group, -1, taps, out_h, out_w)
    if mask is not None:
        sampled = sampled * mask.reshape(n, offset_group, 1, taps, out_h, out_w)
    patches = sampled.reshape(n, group, channels // group * taps, out_h * out_w)
    filters = weight.reshape(group, outputs // group, -1)
    result = (filters @ patches).reshape(n, outputs, out_h, out_w)
    return result if bias is None else result + bias.reshape(-1, 1, 1)


def _grid(
    begins: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    kernel: tuple[int, int],
    out: tuple[int, int],
    like: Tensor,
) -> Tensor:
    """Undisturbed positions of all taps, [1, taps, 2, oH, oW]."""
    axes = []
    for begin, stride, dilation, taps, count in zip(begins, strides, dilations, kernel, out, strict=True):
        starts = torch.arange(count, dtype=like.dtype, device=like.device) * stride - begin
        steps = torch.arange(taps, dtype=like.dtype, device=like.device) * dilation
        axes.append(steps[:, None] + starts)
    y = axes[0][:, None, :, None].expand(*kernel, *out)
    x = axes[1][None, :, None, :].expand(*kernel, *out)
    return torch.stack([y, x], 2).reshape(1, -1, 2, *out)
