"""Local functions as they should be: none calls itself, and none is called like an operator of ONNX."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import networkx as nx
import onnx

from redtest_onnx.errors import InputError
from redtest_onnx.graph.model import Model, subgraphs

_Key = tuple[str, str, str]


def check_functions(model: Model) -> None:
    """Check the local functions of a model.

    Raises:
        InputError: one calls itself, perhaps through others, is there twice, or is called like an operator of
            the operator sets that the model imports. Which of the two is meant then is up to each runtime.
    """
    functions = model.proto.functions
    if not functions:
        return
    twice = [key for key, times in Counter(map(_key, functions)).items() if times > 1]
    if twice:
        raise _error(model, twice[0], "is there twice", "give each function a name of its own")
    calls = nx.DiGraph((_key(function), called) for function in functions for called in _calls(function.node))
    try:
        cycle = nx.find_cycle(calls.subgraph([*map(_key, functions)]))
    except nx.NetworkXNoCycle:
        cycle = []
    if cycle:
        raise _error(model, cycle[0][0], "calls itself, which ONNX does not allow", "export the model again")
    for domain, name, overload in map(_key, functions):
        version = model.opsets.get(domain or "ai.onnx")
        if version is not None and _is_operator(domain, name, version):
            raise _error(
                model,
                (domain, name, overload),
                f"is called like an operator of {domain or 'ai.onnx'} {version}, and runtimes differ in "
                "which they take",
                "rename the function and the nodes that call it, or drop it",
            )


def _error(model: Model, key: _Key, what: str, hint: str) -> InputError:
    name = "::".join(part for part in key[:2] if part)
    return InputError(f"local function {name!r} {what}", where=model.label, hint=hint)


def _key(function: onnx.FunctionProto | onnx.NodeProto) -> _Key:
    domain = "" if function.domain == "ai.onnx" else function.domain
    name = function.op_type if isinstance(function, onnx.NodeProto) else function.name
    return domain, name, function.overload


def _calls(nodes: Iterable[onnx.NodeProto]) -> Iterator[_Key]:
    for node in nodes:
        yield _key(node)
        for child in subgraphs([node]):
            yield from _calls(child.node)


def _is_operator(domain: str, name: str, version: int) -> bool:
    if not 0 < version < 1 << 31:
        return False
    return bool(onnx.defs.has(name, version, domain))
