"""Rules about stored weights: duplicates and unused ones, and values that conversions would not keep."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import onnx

from redtest_onnx.auditing.constants import StoredConstant, attribute_numbers, floating_values, stored_tensors
from redtest_onnx.auditing.findings import Problem
from redtest_onnx.auditing.registry import rule
from redtest_onnx.auditing.subject import Subject
from redtest_onnx.auditing.support import count_of
from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.model import Model, is_external, tensor_bytes

_LARGEST_HALF = float(np.finfo(np.float16).max)
_SMALLEST_NORMAL_HALF = float(np.finfo(np.float16).tiny)
_TINIEST = 1e-30  # what is smaller is zero in float32 arithmetic, too
_SMALLEST_DUPLICATE = 1024  # bytes; smaller ones are constants that happen to be equal
_MOSTLY = 0.5
_LOST = 0.05  # share of channels
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
    """Initializers and Constant nodes without a reader."""
    unused = [one for one in stored_tensors(subject.model.graph) if not one.readers and not one.output]
    if unused:
        size = sum(tensor_bytes(one.tensor) for one in unused)
        what = count_of(len(unused), "stored tensor is", "stored tensors are")
        names = tuple(one.name for one in unused)
        yield Problem(f"{what} read by nothing ({size:,} bytes)", "unused", (), names)


@rule(
    "RT042",
    "duplicate-initializer",
    "warning",
    explanation="The same values are stored more than once.",
    fix="Let the nodes share one tensor; ONNX optimisers do that.",
)
def duplicate_initializer(subject: Subject) -> Iterator[Problem]:
    """Stored tensors with equal bytes."""
    groups: dict[bytes, list[StoredConstant]] = {}
    for one in stored_tensors(subject.model.graph):
        elsewhere = is_external(one.tensor) and subject.model.weights_in is None
        if tensor_bytes(one.tensor) >= _SMALLEST_DUPLICATE and not elsewhere:
            groups.setdefault(_digest(subject.model, one.tensor), []).append(one)
    same = [group for group in groups.values() if len(group) > 1]
    if same:
        wasted = sum(tensor_bytes(group[0].tensor) * (len(group) - 1) for group in same)
        names = tuple(one.name for group in same for one in group)
        what = count_of(len(same), "tensor is", "tensors are")
        yield Problem(f"{what} stored more than once ({wasted:,} bytes wasted)", "equal", (), names)


@rule(
    "RT043",
    "broken-weight",
    "error",
    explanation="A stored weight is NaN or infinite: whatever reads it computes nonsense.",
    fix="Train again from a checkpoint before the loss diverged.",
)
def broken_weight(subject: Subject) -> Iterator[Problem]:
    """Weights that are no numbers."""
    bad = tuple(
        one.name
        for one, value in floating_values(subject.model)
        if _broken(value) and not (_masks(value) and not _multiplied(subject, one.name))
    )
    if bad:
        what = count_of(len(bad), "stored tensor holds", "stored tensors hold")
        yield Problem(f"{what} NaN or infinity", "nan", tensors=bad)


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
        (one.name, _largest(value))
        for one, value in floating_values(subject.model)
        if value.dtype != np.float16 and _largest(value) > _LARGEST_HALF
    ]
    attributes = [
        (node, f"{name} of {node}", _largest(value))
        for node, name, value in attribute_numbers(subject.model.graph)
        if value.dtype in (np.float32, np.float64) and _largest(value) > _LARGEST_HALF
    ]
    if found or attributes:
        largest = max([value for _, value in found] + [value for *_, value in attributes])
        what = count_of(len(found) + len(attributes), "constant exceeds", "constants exceed")
        yield Problem(
            f"{what} float16, the largest magnitude is {largest:.4g}",
            "half",
            tuple(node for node, *_ in attributes),
            (*(name for name, _ in found), *(name for _, name, _ in attributes)),
        )


@rule(
    "RT047",
    "float16-underflow",
    "warning",
    explanation="float16 knows nothing below 6e-8 and little below 6e-5: converted, these constants become "
    "zero or lose their digits, and an epsilon that is zero no longer keeps a division from infinity.",
    fix="Keep the operators that read them in float32 when converting, or use an epsilon of 1e-4 or more.",
)
def float16_underflow(subject: Subject) -> Iterator[Problem]:
    """Epsilons and weights that a conversion to half precision would set to zero."""
    zero: list[tuple[str, str]] = []  # node, constant
    for one, value in floating_values(subject.model):
        if value.dtype != np.float16 and one.readers and _underflows(value):
            zero.append(("", one.name))
    for node, name, value in attribute_numbers(subject.model.graph):
        if value.dtype in (np.float32, np.float64) and _underflows(value):
            zero.append((node, f"{name} of {node}"))
    if zero:
        what = count_of(len(zero), "constant becomes", "constants become")
        yield Problem(
            f"{what} zero or nearly so in float16",
            "underflow",
            tuple(node for node, _ in zero if node),
            tuple(name for _, name in zero),
        )


@rule(
    "RT045",
    "int8-needs-channels",
    "note",
    explanation="With one int8 scale per tensor whole channels of these weights become zero, or all keep "
    "less than 20 dB of signal, because some channels are far larger than others; with one scale per channel "
    "they keep much more.",
    fix="Quantise with per_channel=True, or equalise the channels first.",
)
def int8_needs_channels(subject: Subject) -> Iterator[Problem]:
    """Symmetric int8 rounding of each weight, per tensor and per channel."""
    found = []
    for one, value in floating_values(subject.model):
        if value.ndim < 2 or not value.size or not one.readers or not np.isfinite(value).all():
            continue
        weight = np.moveaxis(value, one.channel_axis, 0)
        whole, lost = int8_decibels(weight, per_channel=False), channels_lost(weight)
        many = lost > _LOST * len(weight)
        if not many and whole >= _POOR_DECIBELS:
            continue
        channels = int8_decibels(weight, per_channel=True)
        if many or channels > whole + _GAIN_DECIBELS:
            found.append((one.name, whole, channels, lost, len(weight)))
    if found:
        name, whole, channels, lost, count = max(found, key=lambda item: (item[3] / item[4], -item[1]))
        gone = f"{lost} of {count} channels of {name} become all zero; it" if lost else name
        what = count_of(len(found), "tensor needs", "tensors need")
        yield Problem(
            f"{what} scales per channel; {gone} keeps {whole:.1f} dB per tensor, {channels:.1f} dB per "
            "channel",
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
    for one, value in floating_values(subject.model):
        zeros = float(np.mean(value == 0)) if value.ndim > 1 and value.size else 0.0
        if zeros > _MOSTLY:
            found[one.name] = zeros
    if found:
        worst = max(found, key=lambda name: found[name])
        what = count_of(len(found), "tensor is", "tensors are")
        message = f"{what} mostly zeros; {worst}: {found[worst]:.0%}"
        yield Problem(message, "zeros", tensors=tuple(found))


def int8_decibels(weight: npt.NDArray[np.generic], *, per_channel: bool) -> float:
    """Signal-to-noise ratio that symmetric int8 rounding leaves, in decibels.

    Args:
        weight: [channels, ...] values, at least one.
        per_channel: one scale per index of the first axis, or one for all.
    """
    x: npt.NDArray[np.float64] = weight.astype(np.float64)
    x = x.reshape(len(x), -1) if per_channel else x.reshape(1, -1)
    scale = np.abs(x).max(axis=1, keepdims=True) / 127
    rounded = np.round(x / np.where(scale > 0, scale, 1)) * scale
    noise = float(np.square(x - rounded).sum())
    signal = float(np.square(x).sum())
    return float("inf") if noise == 0 or signal == 0 else 10 * float(np.log10(signal / noise))


def channels_lost(weight: npt.NDArray[np.generic]) -> int:
    """How many channels that are not zero become all zero by symmetric int8 rounding per tensor.

    Args:
        weight: [channels, ...] values.
    """
    magnitudes = np.abs(weight.reshape(len(weight), -1)).max(axis=1, initial=0).astype(np.float64)
    scale = magnitudes.max(initial=0) / 127
    return int(np.sum((magnitudes > 0) & (magnitudes < scale / 2)))


def _underflows(value: npt.NDArray[np.generic]) -> bool:
    """Whether rounding to half precision destroys small values: less than 20 dB of signal are left."""
    x: npt.NDArray[np.float64] = value.astype(np.float64).reshape(-1)
    x = x[np.isfinite(x)]
    largest = float(np.abs(x).max(initial=0))
    if not _TINIEST < largest < _SMALLEST_NORMAL_HALF:
        return False
    noise = float(np.square(x - x.astype(np.float16).astype(np.float64)).sum())
    return noise > float(np.square(x).sum()) / 10 ** (_POOR_DECIBELS / 10)


def _broken(value: npt.NDArray[np.generic]) -> bool:
    """NaN anywhere, or infinity among weights; single infinities are masks."""
    return bool(np.isnan(value).any()) or (value.size > 1 and not np.isfinite(value).all())


def _masks(value: npt.NDArray[np.generic]) -> bool:
    """Whether all that is no number is minus infinity, which leaves positions out of a softmax."""
    finite = np.isfinite(value)
    return bool(finite.any() and (finite | (value == -np.inf)).all())


def _multiplied(subject: Subject, name: str) -> bool:
    """Whether a tensor, or its name where a branch holds it, is not merely added or looked up."""
    index = subject.index
    readers = index.readers.get(name, ())
    applied = {ops.qualified(index.nodes[reader]) for reader in readers if reader in index.weighted}
    return not readers or not ops.TABLES.issuperset(applied)


def _largest(value: npt.NDArray[np.generic]) -> float:
    """Largest finite magnitude; 0 without values."""
    finite = np.abs(value[np.isfinite(value)])
    return float(finite.max(initial=0))


def _digest(model: Model, tensor: onnx.TensorProto) -> bytes:
    copy = onnx.TensorProto()
    copy.CopyFrom(model.held(tensor) if is_external(tensor) else tensor)
    copy.ClearField("name")
    copy.ClearField("doc_string")
    return hashlib.sha256(copy.SerializeToString(deterministic=True)).digest()
