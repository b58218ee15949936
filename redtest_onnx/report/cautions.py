"""What a measurement says, and what to mind about it, in words."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan

from redtest_onnx.graph.probe.exposure import UnexposedTensor
from redtest_onnx.similarity.analyze import Analysis, Redundancy

_NAMED = 3


def cautions(analysis: Analysis) -> list[str]:
    """A sentence for everything that makes the result less than it seems."""
    found = []
    if analysis.dominated:
        found.append(
            f"Careful: in {_some(analysis.dominated)} a few samples are so large that they decide the "
            "similarity; look at them, or measure on other samples."
        )
    if others := analysis.without_largest:
        share = f"{others.samples} of {analysis.samples * analysis.batches}"
        found.append(
            f"They are so large that rounding hides the others ({share}): measure without them."
            if isnan(others.msrs)
            else f"Without them ({share} samples) MSRS is {others.msrs:.1f}."
        )
    if analysis.undefined:
        names = _some([layer.name for layer in analysis.undefined])
        found.append(
            "Similarity is undefined for layers that do not vary over these samples, or by no more than the "
            f"rounding of their common level: {names}."
        )
    return [*found, *unmeasured_words(analysis.unmeasured)]


def unmeasured_words(tensors: Sequence[UnexposedTensor]) -> list[str]:
    """A sentence per reason for which tensors have no similarity."""
    names: dict[str, list[str]] = {}
    for item in tensors:
        names.setdefault(item.reason, []).append(item.name)
    return [f"Not measured, {reason}: {_some(found, 'tensors')}." for reason, found in names.items()]


def redundancy_words(redundancy: Redundancy, spread: str = "") -> str:
    """The redundancy score and what it says; `spread` tells how far to trust it."""
    if isnan(redundancy.value):
        return "MSRS is undefined: no pair of layers has a similarity"
    return (
        f"MSRS {redundancy.value:,.1f}{spread}: about {redundancy.value:,.0f} of {redundancy.pairs:,} layer "
        f"pairs are near-duplicates (similarity above {redundancy.threshold:g})"
    )


def _some(names: Sequence[str], what: str = "layers") -> str:
    """The first names, and how many more there are."""
    more = len(names) - _NAMED
    shown = names if more <= 1 else names[:_NAMED]
    return ", ".join(shown) + (f" and {more} more {what}" if more > 1 else "")
