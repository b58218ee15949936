"""Local functions as they should be: none calls itself, is called like an operator of ONNX, or grows huge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set

import onnx

from redtest_onnx.errors import InputError
from redtest_onnx.graph.model import Model, subgraphs

_Key = tuple[str, str, str]
_MOST_NODES, _COUNTED = 1 << 17, 10**15


def check_functions(model: Model) -> None:
    """Check the local functions of a model.

    Raises:
        InputError: one calls itself, perhaps through others, is there twice, unfolds to more than 131,072
            nodes, or is called like an operator of the operator sets that the model imports. Which of the two
            is meant then is up to each runtime.
    """
    functions = model.proto.functions
    if not functions:
        return
    twice = [key for key, times in Counter(map(_key, functions)).items() if times > 1]
    if twice:
        raise _error(model, twice[0], "is there twice", "give each function a name of its own")
    import networkx as nx  # few models have functions, and its import takes longer than a check

    keys = {*map(_key, functions)}
    calls: nx.DiGraph[_Key] = nx.DiGraph()
    calls.add_nodes_from(map(_key, functions))
    calls.add_edges_from(
        (_key(one), called) for one in functions for called in _calls(one.node) if called in keys
    )
    # Looking for a cycle itself takes time without bound where paths are many.
    together = nx.strongly_connected_components(calls)
    rings = {key for part in together for key in part if len(part) > 1 or calls.has_edge(key, key)}
    if rings:
        first = next(key for key in map(_key, functions) if key in rings)
        raise _error(model, first, "calls itself, which ONNX does not allow", "export the model again")
    _check_size(model, list(nx.topological_sort(calls)))
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


def with_models_versions(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with functions that import other operator set versions than it does brought to its own.

    They can be inlined then. Done where each operator of a function is the same in both versions; the model
    itself where there is no such function.
    """
    versions = {opset.domain: opset.version for opset in proto.opset_import}
    names = {_key(function) for function in proto.functions}
    moved = {
        k: changed
        for k, function in enumerate(proto.functions)
        if (changed := _moved(function, versions, names)) is not None
    }
    if not moved:
        return proto
    copied = onnx.ModelProto()
    copied.CopyFrom(proto)
    for k, changed in moved.items():
        del copied.functions[k].opset_import[:]
        copied.functions[k].opset_import.extend(changed)
    return copied


def _moved(
    function: onnx.FunctionProto, versions: Mapping[str, int], names: Set[_Key]
) -> list[onnx.OperatorSetIdProto] | None:
    """What a function imports once it has the model's versions; None where it has, or can't."""
    own = {opset.domain: opset.version for opset in function.opset_import}
    other = {domain for domain, version in own.items() if versions.get(domain, version) != version}
    if not other:
        return None
    called = [key for key in _calls(function.node) if key not in names and key[0] in other]
    if not all(_same_operator(name, domain, own[domain], versions[domain]) for domain, name, _ in called):
        return None
    moved = {domain: versions.get(domain, version) for domain, version in own.items()}
    return [onnx.helper.make_opsetid(domain, version) for domain, version in moved.items()]


def _same_operator(name: str, domain: str, one: int, other: int) -> bool:
    """Whether an operator is the same in two versions of its set."""
    if not all(_is_operator(domain, name, version) for version in (one, other)):
        return False
    schemas = [onnx.defs.get_schema(name, version, domain) for version in (one, other)]
    return bool(schemas[0].since_version == schemas[1].since_version)


def _check_size(model: Model, order: Sequence[_Key]) -> None:
    """Refuse functions that call one another so often that a few of them unfold to more than any memory.

    Args:
        model: the model.
        order: the functions, each before those it calls.
    """
    functions = {_key(function): function for function in model.proto.functions}
    nodes: dict[_Key, int] = {}
    for key in reversed(order):
        nodes[key] = min(_COUNTED, sum(nodes.get(called, 1) for called in _calls(functions[key].node)))
    count = min(_COUNTED, sum(nodes.get(called, 1) for called in _calls(model.graph.node)))
    if count > _MOST_NODES:
        largest = max(nodes, key=lambda key: nodes[key])
        raise _error(
            model,
            largest,
            f"unfolds to {nodes[largest]:,} nodes, the model to {count:,}; {_MOST_NODES:,} are the most",
            "export the model without local functions, or with fewer calls",
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
