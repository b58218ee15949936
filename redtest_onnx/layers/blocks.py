"""Blocks of a transformer: whether a network has them, and which are gone, as configurations count."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from redtest_onnx.graph.caches import find_caches
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.model_folder import RemovedBlocks
from redtest_onnx.layers.layer import Layer

_BLOCK = re.compile(r"(?:^|[._/])(?:layers?|blocks?|h|resblocks|encoder|decoder)[._/](\d+)(?=[._/]|$)")


def block_number(name: str) -> int | None:
    """The number of the block in a layer's name: 3 for `model.layers.3.mlp`; None if there is none."""
    match = _BLOCK.search(name)
    return int(match.group(1)) if match else None


def is_transformer(series: Sequence[Layer], blocks: Sequence[Layer]) -> bool:
    """Whether most of what can go are sub-layers of blocks that can go as a whole.

    Args:
        series: the default series.
        blocks: the same with attention and feed-forward joined.
    """
    joined = sum(len(layer.parts) for layer in blocks if layer.removable)
    return joined > 0 and 2 * joined >= sum(layer.removable for layer in series)


def removed_blocks(
    original: Model, pruned: Model, layers: Iterable[Layer], removed: Iterable[str], part: str = ""
) -> RemovedBlocks:
    """Which blocks a pruned model has lost.

    A decoder's blocks are counted by their caches, since that is what runtimes do: a block without its
    attention counts no more. Others are gone when all their layers are.

    Args:
        original: the model before.
        pruned: the model after; its `renamed` tells which caches are left.
        layers: of the original, of any granularity.
        removed: names of those that are gone.
        part: as in `RemovedBlocks`.
    """
    numbered = {
        c.label: c.number for c in find_caches(original) if c.number is not None and not _cross(c.label)
    }
    if numbered:
        left = {pruned.origin_of(spec.name) for spec in (*pruned.inputs, *pruned.outputs)}
        numbers = sorted(set(numbered.values()))
        gone = tuple(k for k in numbers if all(name not in left for name, n in numbered.items() if n == k))
        if numbers == list(range(len(numbers))):
            return RemovedBlocks(len(numbers), gone, part)
    gone_names = set(removed)
    blocks: dict[int, list[bool]] = {}
    for layer in layers:
        number = block_number(layer.name)
        if number is not None:
            blocks.setdefault(number, []).append(layer.name in gone_names)
    count = max(blocks, default=-1) + 1
    return RemovedBlocks(count, tuple(sorted(k for k, states in blocks.items() if all(states))), part)


def _cross(name: str) -> bool:
    """Whether a cache holds the cross-attention's keys, which alone make no block."""
    return ".encoder." in name or "cross" in name
