"""Sliding windows over spatial axes: explicit padding, output sizes, and windows as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Windows:
    """Windows over the spatial axes of a tensor [N, C, spatial...].

    Attributes:
        sizes: extent of a window per axis, without dilation.
        strides: steps between windows.
        dilations: steps between the elements of a window.
        begins: padding in front, as the operator defines it.
        ends: padding behind, as the operator defines it.
        counts: number of windows per axis.
        overhang: elements behind `ends` that the last window reaches in ceil mode.
    """

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]
    counts: tuple[int, ...]
    overhang: tuple[int, ...]

    @property
    def symmetric(self) -> bool:
        """Whether torch can do the padding itself."""
        return self.begins == self.ends and not any(self.overhang)


def place_windows(
    spatial: Sequence[int],
    sizes: Sequence[int],
    *,
    strides: Sequence[int] = (),
    dilations: Sequence[int] = (),
    pads: Sequence[int] = (),
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
) -> Windows:
    """Resolve ONNX's window attributes for an input of the given spatial sizes."""
    rank = len(spatial)
    strides = tuple(strides) or (1,) * rank
    dilations = tuple(dilations) or (1,) * rank
    spans = [dilation * (size - 1) + 1 for size, dilation in zip(sizes, dilations, strict=True)]
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        totals = [
            max(0, (-(-n // stride) - 1) * stride + span - n)
            for n, stride, span in zip(spatial, strides, spans, strict=True)
        ]
        small = tuple(total // 2 for total in totals)
        large = tuple(total - total // 2 for total in totals)
        begins, ends = (small, large) if auto_pad == "SAME_UPPER" else (large, small)
    else:
        pads = () if auto_pad == "VALID" else tuple(pads)
        begins, ends = tuple(pads[:rank]) or (0,) * rank, tuple(pads[rank:]) or (0,) * rank
    counts, overhang = [], []
    for n, span, stride, begin, end in zip(spatial, spans, strides, begins, ends, strict=True):
        room = n + begin + end - span
        count = room // stride + 1
        if ceil_mode and room % stride and count * stride < n + begin:
            count += 1  # a window that starts in the padding behind is not used
        counts.append(count)
        overhang.append(max(0, (count - 1) * stride - room))
    return Windows(tuple(sizes), strides, dilations, begins, ends, tuple(counts), tuple(overhang))


def pad_spatial(x: Tensor, begins: Sequence[int], ends: Sequence[int], value: float = 0.0) -> Tensor:
    """Pad (or crop, where negative) the spatial axes with a value."""
    flat = [n for pair in zip(reversed(begins), reversed(ends), strict=True) for n in pair]
    return functional.pad(x, flat, value=value) if any(flat) else x


def pad_for(x: Tensor, windows: Windows, value: float = 0.0) -> Tensor:
    """Pad a tensor so that all windows lie inside it."""
    ends = [end + extra for end, extra in zip(windows.ends, windows.overhang, strict=True)]
    return pad_spatial(x, windows.begins, ends, value)


def unfold(x: Tensor, windows: Windows) -> Tensor:
    """View the padded [N, C, spatial...] as windows: [N, C, counts..., sizes...]."""
    for axis, (size, stride, dilation) in enumerate(
        zip(windows.sizes, windows.strides, windows.dilations, strict=True), start=2
    ):
        x = x.unfold(axis, dilation * (size - 1) + 1, stride)[..., ::dilation]
    return x
