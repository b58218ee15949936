"""Which layers are looked at: of the series, of all activations, or by name."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase

from redtest_onnx.errors import InputError
from redtest_onnx.layers.granularity import GranularityChoice, measured_granularity
from redtest_onnx.layers.layer import Layer, every_activation
from redtest_onnx.runtime.workbench import Workbench


def select_layers(bench: Workbench, which: str, granularity: GranularityChoice = "auto") -> tuple[Layer, ...]:
    """The layers to measure: the series for "auto", every activation for "all", or those a glob names.

    Raises:
        InputError: no layer's name fits the glob.
    """
    series = bench.layers(measured_granularity(granularity))
    if which == "auto":
        return series
    everything = every_activation(bench.index, bench.shapes, series)
    if which == "all":
        return everything
    for pool in (series, everything):
        if chosen := tuple(layer for layer in pool if fnmatchcase(layer.name, which)):
            return tuple(replace(layer, index=i) for i, layer in enumerate(chosen))
    raise InputError(
        f"no layer is called {which!r}",
        where=bench.label,
        hint="`inspect` with @layers=all lists all names; * stands for any part of one",
    )
