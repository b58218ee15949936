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
_TORCH_SCOPES = "pkg.torch.onnx.name_scopes"


def layer_names(index: GraphIndex, regions: Iterable[Region]) -> list[str]:
    """One unique name per region: the innermost scope that holds all its nodes, else its tensor's name.

    Regions of one scope, such as attention and feed-forward of a transformer block, are told apart by the
    scope inside it that most of their operators with weights belong to.
    """
    regions = list(regions)
    # An embedding is called after its tables; what adds them up and normalises them may lie further out.
    scopes = [_scopes(index, region, weighted=is_embedding(index, region)) for region in regions]
    names = [_several(found) or _dotted(_common(found)) for found in scopes]
    blocks = _around(names)
    finer = [
        _dotted(_main_child(found, _scopes(index, region, weighted=True)))
        if names.count(name) > 1 or name in blocks
        else name
        for name, found, region in zip(names, scopes, regions, strict=True)
    ]
    return [
        name if name and finer.count(name) == 1 else region.tensor
        for name, region in zip(finer, regions, strict=True)
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
    parts = node.name.strip("/").split("/")
    return tuple(part for part in parts[:-1] if part)


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
