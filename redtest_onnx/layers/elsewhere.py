"""Parameters that no single layer has for itself: predictions, shared weights, what is outside of layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from redtest_onnx.graph.cost import Cost, learned_values
from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.layers.layer import Layer


@dataclass(frozen=True)
class Elsewhere:
    """What the layers' own parameters leave to the total of the file.

    Attributes:
        parameters: learned values outside all layers, shared ones included.
        shared: those of them in stored tensors that several layers, or a layer and the rest, read.
        shared_names: these tensors.
        total: learned values of the whole file.
    """

    parameters: int
    shared: int
    shared_names: tuple[str, ...]
    total: int


def elsewhere(index: GraphIndex, layers: Sequence[Layer], cost: Cost) -> Elsewhere:
    """What is not counted for any layer.

    Args:
        index: the graph that the layers were found in.
        layers: all layers of a series.
        cost: of the whole file.
    """
    insides = [index.with_feeders(index.between(layer.input, layer.exit)) for layer in layers]
    shared: list[str] = []
    for name in index.initializers:
        readers = index.readers.get(name, ())
        if len(readers) > 1 and not any(inside.issuperset(readers) for inside in insides):
            shared.append(name)
    sizes = {name: learned_values(index, name) for name in shared}
    names = sorted((name for name in shared if sizes[name]), key=lambda name: -sizes[name])
    rest = cost.parameters - sum(layer.parameters for layer in layers)
    return Elsewhere(rest, sum(sizes.values()), tuple(names), cost.parameters)
