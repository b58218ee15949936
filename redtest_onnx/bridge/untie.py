"""Give each reader of a shared initializer a copy of its own, and take the copies back."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Literal, TypeAlias

import onnx

from redtest_onnx.bridge.dtypes import TRAINABLE
from redtest_onnx.errors import InputError
from redtest_onnx.graph.model import Model, subgraphs

Untie: TypeAlias = Literal["none", "merged"] | Collection[str]
"""Which shared initializers become one parameter per reader: none, those an exporter merged, or by name."""


def chosen(model: Model, untie: Untie) -> tuple[str, ...]:
    """The names `untie` stands for.

    Exporters merge initializers with equal values. Trained weights differ between modules, so a shared tensor
    whose elements are all the same number (the ones of a scale, the zeros of a bias) was merged, while any
    other shared tensor is shared on purpose, as an embedding with its output projection.

    Raises:
        InputError: a name is no initializer.
    """
    if untie == "none":
        return ()
    if untie == "merged":
        counts = _readers(model.graph)
        return tuple(name for name, count in counts.items() if count > 1 and _is_uniform(model, name))
    names = tuple(dict.fromkeys(untie))
    if unknown := [name for name in names if name not in model.initializers]:
        raise InputError(
            f"can't untie {', '.join(unknown)}: no such initializers",
            where=model.label,
            hint="name initializers of the main graph",
        )
    return names


def split(graph: onnx.GraphProto, names: Collection[str]) -> dict[str, str]:
    """Let the second and later readers of the named initializers read names of their own, in place.

    The same graph and names give the same new names each time.

    Returns:
        The initializer's name by the name of its copy.
    """
    wanted, seen = set(names), set[str]()
    taken = set(_all_names(graph))
    copies: dict[str, str] = {}
    for node, position in _reads(graph):
        name = node.input[position]
        if name not in wanted:
            continue
        if name in seen:
            copy = _fresh(name, taken)
            copies[copy] = name
            node.input[position] = copy
        seen.add(name)
    return copies


def rejoin(graph: onnx.GraphProto, copies: dict[str, str]) -> None:
    """Undo `split` for the given copies, in place."""
    for node, position in _reads(graph):
        node.input[position] = copies.get(node.input[position], node.input[position])


def _reads(graph: onnx.GraphProto) -> Iterator[tuple[onnx.NodeProto, int]]:
    for node in graph.node:
        yield from ((node, position) for position in range(len(node.input)))
        for child in subgraphs([node]):
            yield from _reads(child)


def _all_names(graph: onnx.GraphProto) -> Iterator[str]:
    yield from (value.name for value in (*graph.input, *graph.output))
    yield from (tensor.name for tensor in graph.initializer)
    for node in graph.node:
        yield from (*node.input, *node.output)
        for child in subgraphs([node]):
            yield from _all_names(child)


def _fresh(name: str, taken: set[str]) -> str:
    count = 2
    while (fresh := f"{name}_untied{count}") in taken:
        count += 1
    taken.add(fresh)
    return fresh


def _readers(graph: onnx.GraphProto) -> dict[str, int]:
    counts: dict[str, int] = {}
    for node, position in _reads(graph):
        counts[node.input[position]] = counts.get(node.input[position], 0) + 1
    return counts


def _is_uniform(model: Model, name: str) -> bool:
    tensor = model.initializers.get(name)
    if tensor is None or tensor.data_type not in TRAINABLE:
        return False
    values = model.value(tensor).ravel()
    return values.size > 1 and bool((values == values[0]).all())
