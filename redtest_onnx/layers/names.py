"""Names for layers that a user recognises: the exporter's scopes, in the words of the user's own modules."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterable
from itertools import takewhile

import onnx

from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.layers.regions import Region, is_embedding

# Modules that are blocks of transformers, by their number.
_NUMBERED = re.compile(r"((?:.*\.)?(?:layers?|blocks?|h)\.)(\d+)")
_WORD = re.compile(r"[^\W_]+")
_COUNTED = re.compile(r"(?<!conv)\d")  # conv2d is a kind, not a number
_TORCH_SCOPES = "pkg.torch.onnx.name_scopes"


def layer_names(index: GraphIndex, regions: Iterable[Region]) -> list[str]:
    """One unique name per region: the innermost scope that holds all its nodes, else its tensor's name.

    Regions of one scope are told apart by the words that the scopes inside it have in common, such as
    `stage1_block2` of `stage1_block2_conv1` and `stage1_block2_conv2`; else, such as attention and
    feed-forward of a transformer block, by that which most of their operators with weights belong to.
    """
    regions = list(regions)
    # An embedding is called after its tables; what adds them up and normalises them may lie further out.
    scopes = [_scopes(index, region, weighted=is_embedding(index, region)) for region in regions]
    names = [_several(found) or _dotted(_common(found)) for found in scopes]
    weighted = [_scopes(index, region, weighted=True) for region in regions]
    together = [
        _shared_words(found, heavy) or name if names.count(name) > 1 else name
        for name, found, heavy in zip(names, scopes, weighted, strict=True)
    ]
    blocks = _around(together)
    finer = [
        _dotted(_main_child(found, heavy)) if together.count(name) > 1 or name in blocks else name
        for name, found, heavy in zip(together, scopes, weighted, strict=True)
    ]
    tensors = [_first_operation(region.tensor) for region in regions]
    unique = Counter([*finer, *tensors])
    return [
        next((known for known in (name, tensor) if known and unique[known] == 1), region.tensor)
        for name, tensor, region in zip(finer, tensors, regions, strict=True)
    ]


def _around(names: list[str]) -> set[str]:
    """The names of numbered modules that other regions lie in, such as `layers.3` around `layers.3.mlp`."""
    parts = [name.split(".") for name in names]
    outer = {".".join(path[:depth]) for path in parts for depth in range(1, len(path))}
    return {name for name in outer if _NUMBERED.fullmatch(name)}


def common_scope(index: GraphIndex, regions: Iterable[Region]) -> tuple[str, ...]:
    """The innermost scope that holds all regions; empty where the exporter kept none."""
    return _common([_common(_scopes(index, region)) for region in regions])


def _scopes(index: GraphIndex, region: Region, *, weighted: bool = False) -> list[tuple[str, ...]]:
    nodes = sorted(region.core & index.weighted if weighted else region.core)
    return [scope for node in nodes if (scope := node_scope(index.nodes[node]))]


def _common(scopes: list[tuple[str, ...]]) -> tuple[str, ...]:
    levels = takewhile(lambda level: len(set(level)) == 1, zip(*scopes, strict=False))
    return tuple(level[0] for level in levels)


def _several(scopes: list[tuple[str, ...]]) -> str | None:
    """The name of the numbered modules that a region spans, such as `layers.1-2`; None if not several."""
    outer = len(_common(scopes))
    found = [_NUMBERED.fullmatch(scope[outer]) for scope in scopes if len(scope) > outer]
    numbers = {int(match.group(2)) for match in found if match is not None}
    kinds = {match.group(1) for match in found if match is not None}
    if len(numbers) < 2 or len(kinds) != 1 or None in found or len(found) != len(scopes):
        return None
    path = _dotted((*_common(scopes), f"{kinds.pop()}{min(numbers)}"))
    return f"{path}-{max(numbers)}"


def _shared_words(scopes: list[tuple[str, ...]], weighted: list[tuple[str, ...]]) -> str | None:
    """The longest run of words, a number among them, in all scopes with weights inside the common one."""
    outer = _common(scopes)
    inside = sorted({scope[len(outer)] for scope in weighted if len(scope) > len(outer)})
    if len(inside) < 2:
        return None
    words = list(_WORD.finditer(inside[0]))
    runs = [
        inside[0][first.start() : last.end()]
        for k, first in enumerate(words)
        for last in words[k:]
        if _COUNTED.search(inside[0][first.start() : last.end()])
    ]
    found = [run for run in runs if all(_holds(name, run) for name in inside)]
    return _dotted((*outer, max(found, key=len))) if found else None


def _holds(name: str, run: str) -> bool:
    """Whether whole words of a name read like that."""
    return re.search(rf"(?<![^\W_]){re.escape(run)}(?![^\W_])", name) is not None


def _main_child(scopes: list[tuple[str, ...]], weighted: list[tuple[str, ...]]) -> tuple[str, ...]:
    """The scope inside the common one that most nodes with weights lie in, else most nodes."""
    depth = len(_common(scopes)) + 1
    children = Counter(scope[:depth] for scope in weighted if len(scope) >= depth)
    children = children or Counter(scope[:depth] for scope in scopes if len(scope) >= depth)
    return children.most_common(1)[0][0] if children else ()


def node_scope(node: onnx.NodeProto) -> tuple[str, ...]:
    """The modules a node was traced in, outermost first; empty where the exporter kept none."""
    for entry in node.metadata_props:
        if entry.key == _TORCH_SCOPES:
            return _torch_scopes(entry.value)
    parts = _first_operation(node.name).strip("/").split("/")
    return tuple(part for part in parts[:-1] if part)


def _first_operation(name: str) -> str:
    """TensorFlow Lite joins the names of the operations that it merged into one with semicolons."""
    return name.split(";", 1)[0]


def _torch_scopes(text: str) -> tuple[str, ...]:
    try:
        scopes = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return ()
    # The last entry is the operation itself.
    return tuple(s for s in scopes[:-1] if isinstance(s, str) and s) if isinstance(scopes, list) else ()


def _dotted(scopes: Iterable[str]) -> str:
    """The scope path without repetitions: TorchScript writes /layer1/layer1.0, others model/block/conv."""
    path = ""
    for scope in scopes:
        path = scope if scope == path or scope.startswith(f"{path}.") or not path else f"{path}.{scope}"
    return path
