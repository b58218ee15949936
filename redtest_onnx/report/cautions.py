"""What to mind about a measurement, in words."""

from __future__ import annotations

import math
from collections.abc import Sequence

from redtest_onnx.similarity.analyze import Analysis

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
            if math.isnan(others.msrs)
            else f"Without them ({share} samples) MSRS is {others.msrs:.1f}."
        )
    if analysis.undefined:
        names = _some([layer.name for layer in analysis.undefined])
        found.append(
            "Similarity is undefined for layers that do not vary over these samples, or by no more than the "
            f"rounding of their common level: {names}."
        )
    return found


def _some(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - _NAMED
    shown = names if more <= 1 else names[:_NAMED]
    return ", ".join(shown) + (f" and {more} more layers" if more > 1 else "")
