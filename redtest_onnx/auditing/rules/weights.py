"""What the file stores: waste, and values that will not survive."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import onnx

from redtest_onnx.auditing.findings import Problem
from redtest_onnx.auditing.registry import rule
from redtest_onnx.auditing.subject import Subject
from redtest_onnx.graph.model import is_external, tensor_bytes

_LARGEST_HALF = float(np.finfo(np.float16).max)
_SMALLEST_DUPLICATE = 1024  # bytes; smaller ones are constants that happen to be equal
_MOSTLY = 0.5
_POOR_DECIBELS, _GAIN_DECIBELS = 20.0, 6.0


@rule(
    "RT040",
    "external-data",
    "note",
    explanation="Weights lie in files beside the model. They must be shipped with it, under the same names.",
    fix="Ship all files together; models below 2 GB can be saved as one: onnx.save(model, path).",
)
def external_data(subject: Subject) -> Iterator[Problem]:
    """Files the model refers to."""
    files = subject.model.external_files
    if files:
        yield Problem(f"weights are in {', '.join(file.name for file in files)}", "external")


@rule(
    "RT041",
    "unused-initializer",
    "warning",
    explanation="Stored values that nothing reads: dead weight in the file and in memory.",
    fix="Remove them; any ONNX optimiser does, and so does exporting with constant folding.",
)
def unused_initializer(subject: Subject) -> Iterator[Problem]:
    """Initializers without a reader."""
    index = subject.index
    unused = [name for name in index.initializers if name not in index.readers and name not in index.outputs]
    if unused:
        size = sum(tensor_bytes(index.initializers[name]) for name in unused)
        yield Problem(
            f"{len(unused)} stored tensors are read by nothing ({size:,} bytes)", "unused", (), tuple(unused)
        )


@rule(
    "RT042",
    "duplicate-initializer",
    "warning",
    explanation="The same values are stored more than once.",
    fix="Let the nodes share one tensor; ONNX optimisers do that.",
)
def duplicate_initializer(subject: Subject) -> Iterator[Problem]:
    """Initializers with equal bytes."""
    groups: dict[bytes, list[onnx.TensorProto]] = {}
    for tensor in subject.index.initializers.values():
        if tensor_bytes(tensor) >= _SMALLEST_DUPLICATE and not is_external(tensor):
            groups.setdefault(_digest(tensor), []).append(tensor)
    same = [group for group in groups.values() if len(group) > 1]
    if same:
        wasted = sum(tensor_bytes(group[0]) * (len(group) - 1) for group in same)
        names = tuple(tensor.name for group in same for tensor in group)
        yield Problem(
            f"{len(same)} tensors are stored more than once ({wasted:,} bytes wasted)", "equal", (), names
        )


@rule(
    "RT043",
    "broken-weight",
    "error",
    explanation="A stored weight is NaN or infinite: whatever reads it computes nonsense.",
    fix="Train again from a checkpoint before the loss diverged.",
)
def broken_weight(subject: Subject) -> Iterator[Problem]:
    """Weights that are no numbers."""
    bad = tuple(name for name, value in subject.weights() if _broken(value))
    if bad:
        yield Problem(f"{len(bad)} stored tensors hold NaN or infinity", "nan", tensors=bad)


@rule(
    "RT044",
    "weight-beyond-float16",
    "warning",
    explanation="float16 ends at 65,504: converted, these weights become infinite or are cut off silently.",
    fix="Keep these tensors in float32 when converting, or rescale the layer.",
)
def weight_beyond_float16(subject: Subject) -> Iterator[Problem]:
    """Weights that a conversion to half precision would break."""
    found = [
        (name, float(np.abs(value).max()))
        for name, value in subject.weights()
        if value.size and value.dtype != np.float16 and _exceeds(value)
    ]
    if found:
        largest = max(value for _, value in found)
        names = tuple(name for name, _ in found)
        yield Problem(
            f"{len(found)} tensors exceed float16, the largest value is {largest:.4g}", "half", (), names
        )


@rule(
    "RT045",
    "int8-needs-channels",
    "note",
    explanation="With one int8 scale per tensor these weights keep less than 20 dB of signal, because some "
    "channels are far larger than others; with one scale per channel they keep much more.",
    fix="Quantise with per_channel=True, or equalise the channels first.",
)
def int8_needs_channels(subject: Subject) -> Iterator[Problem]:
    """Symmetric int8 rounding of each weight, per tensor and per channel."""
    found = []
    for name, value in subject.weights():
        if value.ndim < 2 or not np.isfinite(value).all():
            continue
        whole, channels = (int8_decibels(value, per_channel=flag) for flag in (False, True))
        if whole < _POOR_DECIBELS and channels > whole + _GAIN_DECIBELS:
            found.append((name, whole, channels))
    if found:
        name, whole, channels = min(found, key=lambda item: item[1])
        yield Problem(
            f"{len(found)} tensors need scales per channel; {name} keeps {whole:.1f} dB per tensor, "
            f"{channels:.1f} dB per channel",
            "int8",
            tensors=tuple(item[0] for item in found),
        )


@rule(
    "RT046",
    "mostly-zeros",
    "note",
    explanation="More than half of these weights are exactly zero. Zeros in no particular place make the "
    "file compress better, but ONNX Runtime multiplies by them all the same: the model is not faster.",
    fix="Remove whole rows, channels or layers that are zero, or ship the file compressed.",
)
def mostly_zeros(subject: Subject) -> Iterator[Problem]:
    """Share of exact zeros per tensor."""
    found = {}
    for name, value in subject.weights():
        zeros = float(np.mean(value == 0)) if value.ndim > 1 else 0.0
        if zeros > _MOSTLY:
            found[name] = zeros
    if found:
        worst = max(found, key=lambda name: found[name])
        message = f"{len(found)} tensors are mostly zeros; {worst}: {found[worst]:.0%}"
        yield Problem(message, "zeros", tensors=tuple(found))


def int8_decibels(weight: npt.NDArray[np.generic], *, per_channel: bool) -> float:
    """Signal-to-noise ratio that symmetric int8 rounding leaves, in decibels.

    Args:
        weight: [channels, ...] values.
        per_channel: one scale per index of the first axis, or one for all.
    """
    x: npt.NDArray[np.float64] = weight.astype(np.float64)
    x = x.reshape(len(x), -1) if per_channel else x.reshape(1, -1)
    scale = np.abs(x).max(axis=1, keepdims=True) / 127
    rounded = np.round(x / np.where(scale > 0, scale, 1)) * scale
    noise = float(np.square(x - rounded).sum())
    signal = float(np.square(x).sum())
    return float("inf") if noise == 0 or signal == 0 else 10 * float(np.log10(signal / noise))


def _broken(value: npt.NDArray[np.generic]) -> bool:
    """NaN anywhere, or infinity among weights; single infinities are masks."""
    return bool(np.isnan(value).any()) or (value.size > 1 and not np.isfinite(value).all())


def _exceeds(value: npt.NDArray[np.generic]) -> bool:
    finite = value[np.isfinite(value)]
    return bool(finite.size and np.abs(finite).max() > _LARGEST_HALF)


def _digest(tensor: onnx.TensorProto) -> bytes:
    copy = onnx.TensorProto()
    copy.CopyFrom(tensor)
    copy.ClearField("name")
    copy.ClearField("doc_string")
    return hashlib.sha256(copy.SerializeToString(deterministic=True)).digest()
