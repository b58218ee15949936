"""Which layer counts a node, where the parts of several layers overlap."""

from __future__ import annotations

from collections.abc import Sequence

from redtest_onnx.layers.regions import Region


def claimed(
    regions: Sequence[Region], parts: Sequence[frozenset[int]], goes: Sequence[bool]
) -> list[frozenset[int]]:
    """The nodes that each layer counts, none of them twice, so that costs of layers sum up.

    Layers overlap where they join, such as two embeddings that are added, or share a beginning, such as the
    hidden and the cell state of one LSTM. A layer that can go keeps all that goes with it; next, a node is
    its layer's that alone has it in its core; what is left is the first one's.

    Args:
        regions: the series.
        parts: what goes with each layer, or belongs to it where it can't go.
        goes: which of them can go.
    """
    cores = [region.core & part for region, part in zip(regions, parts, strict=True)]
    taken: set[int] = set()
    for part, can_go in zip(parts, goes, strict=True):
        if can_go:
            taken |= part
    found = []
    for k, (part, can_go) in enumerate(zip(parts, goes, strict=True)):
        if can_go:
            found.append(part)
            continue
        others = frozenset().union(*cores[:k], *cores[k + 1 :]) - cores[k]
        found.append(part - taken - others)
        taken |= found[-1]
    return found
