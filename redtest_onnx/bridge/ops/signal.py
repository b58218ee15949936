"""Windows and Fourier transforms of signals."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from redtest_onnx.bridge.ops.numbers import single
from redtest_onnx.bridge.registry import ConversionContext, operator


def _cosine_window(
    size: int, periodic: int, dtype: torch.dtype | None, context: ConversionContext, *factors: float
) -> Tensor:
    """Sum of cosines of multiples of the phase."""
    steps = torch.arange(size, dtype=torch.float64, device=context.device)
    phase = steps * (2 * math.pi / (size if periodic else size - 1))
    total = torch.stack([factor * torch.cos(k * phase) for k, factor in enumerate(factors)]).sum(0)
    return total.to(dtype or torch.float32)


@operator("HannWindow", since=17, numbers=(0,), differentiable=False)
def hann_window(
    size: int | list[int], *, output_datatype: torch.dtype, periodic: int, context: ConversionContext
) -> Tensor:
    """Hann window."""
    return _cosine_window(single(size), periodic, output_datatype, context, 0.5, -0.5)


@operator("HammingWindow", since=17, numbers=(0,), differentiable=False)
def hamming_window(
    size: int | list[int], *, output_datatype: torch.dtype, periodic: int, context: ConversionContext
) -> Tensor:
    """Hamming window with ONNX's exact coefficients 25/46 and 21/46."""
    return _cosine_window(single(size), periodic, output_datatype, context, 25 / 46, -21 / 46)


@operator("BlackmanWindow", since=17, numbers=(0,), differentiable=False)
def blackman_window(
    size: int | list[int], *, output_datatype: torch.dtype, periodic: int, context: ConversionContext
) -> Tensor:
    """Blackman window."""
    return _cosine_window(single(size), periodic, output_datatype, context, 0.42, -0.5, 0.08)


@operator("DFT", since=20, numbers=(1, 2))
def dft(
    x: Tensor,
    length: int | list[int] | None = None,
    axis: int | list[int] | None = None,
    *,
    inverse: int,
    onesided: int,
) -> Tensor:
    """Discrete Fourier transform; the last axis holds real, or real and imaginary parts."""
    along = single(-2 if axis is None else axis) % x.dim()
    size = None if length is None else single(length)
    values = torch.view_as_complex(x.contiguous()) if x.shape[-1] == 2 else x.squeeze(-1)
    if inverse and onesided:
        signal: Tensor = torch.fft.irfft(values, size, along)
        return signal.unsqueeze(-1)
    transform = torch.fft.ifft if inverse else torch.fft.rfft if onesided else torch.fft.fft
    return torch.view_as_real(transform(values, size, along))


@operator("DFT", since=17, numbers=(1,))
def dft_17(
    x: Tensor, length: int | list[int] | None = None, *, axis: int, inverse: int, onesided: int
) -> Tensor:
    """DFT with the axis as attribute."""
    return dft(x, length, axis, inverse=inverse, onesided=onesided)


@operator("STFT", since=17, numbers=(1, 3))
def stft(
    signal: Tensor,
    step: int | list[int],
    window: Tensor | None = None,
    length: int | list[int] | None = None,
    *,
    onesided: int,
) -> Tensor:
    """Short-time Fourier transform: [batch, samples, 1 or 2] to [batch, frames, frequencies, 2]."""
    size = single(length) if length is not None else 0 if window is None else window.shape[0]
    frames = signal.unfold(1, size, single(step)).transpose(2, 3)
    if window is not None:
        frames = frames * window[:, None]
    return dft(frames, axis=2, inverse=0, onesided=onesided)
