"""Names for layers that a user recognises: the exporter's scopes, in the words of the user's own modules."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from itertools import takewhile

import onnx

from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.graph.regions import Region

_TORCH_SCOPES = "pkg.torch.onnx.name_scopes"


def layer_names(index: GraphIndex, regions: Iterable[Region]) -> list[str]:
    """One unique name per region: the innermost scope that holds all its nodes, else its tensor's name."""
    regions = list(regions)
    names = [_common_scope(index, region) for region in regions]
    return [
        name if name and names.count(name) == 1 else region.tensor
        for name, region in zip(names, regions, strict=True)
    ]


def _common_scope(index: GraphIndex, region: Region) -> str:
    scopes = [scope for node in sorted(region.core) if (scope := node_scope(index.nodes[node]))]
    if not scopes:
        return ""
    common = takewhile(lambda level: len(set(level)) == 1, zip(*scopes, strict=False))
    return _innermost(level[0] for level in common)


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


def _innermost(scopes: Iterable[str]) -> str:
    """The scope path without repetitions: TorchScript writes /layer1/layer1.0, others model/block/conv."""
    path = ""
    for scope in scopes:
        path = scope if scope == path or scope.startswith(f"{path}.") or not path else f"{path}.{scope}"
    return path
