"""Node data for Google's Model Explorer: similarity, MACs and removed layers, shown on the graph itself.

Nodes are keyed by the tensor they give, which Model Explorer matches with the outputs of its nodes. It shows
one quantity per file, so there are three.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from redtest_onnx.graph.writing import write_atomic
from redtest_onnx.layers.layer import Layer

QUANTITIES = ("similarity", "macs", "removed")
_GRADIENT = [
    {"stop": 0, "bgColor": "#440154", "textColor": "#ffffff"},
    {"stop": 0.5, "bgColor": "#21918c", "textColor": "#ffffff"},
    {"stop": 1, "bgColor": "#fde725", "textColor": "#000000"},
]


def explorer_files(path: Path | None) -> tuple[Path, ...]:
    """The files that are written for the name that was given, one for each of `QUANTITIES`; none for None."""
    return () if path is None else tuple(path.with_suffix(f".{quantity}.json") for quantity in QUANTITIES)


def explorer_data(
    layers: Sequence[Layer], adjacent: Sequence[float], removed: Collection[str]
) -> Mapping[str, dict[str, Any]]:
    """The contents of each file.

    Args:
        layers: the series, L layers.
        adjacent: [L - 1], similarity of each layer with the one before; NaN where undefined.
        removed: names of layers that were taken out, or would be.
    """
    similar = {
        layer.exit: {"value": round(value, 6)}
        for layer, value in zip(layers[1:], adjacent, strict=True)
        if math.isfinite(value)
    }
    macs = {layer.exit: {"value": layer.macs} for layer in layers if layer.macs is not None}
    gone = {
        layer.exit: {"value": int(layer.name in removed)}
        | ({"bgColor": "#d1495b", "textColor": "#ffffff"} if layer.name in removed else {})
        for layer in layers
    }
    return {
        "similarity": {"results": similar, "gradient": _GRADIENT},
        "macs": {"results": macs, "gradient": _GRADIENT},
        "removed": {"results": gone},
    }


def write_explorer(
    path: Path, layers: Sequence[Layer], adjacent: Sequence[float], removed: Collection[str] = ()
) -> None:
    """Write the files; see `explorer_files` and `explorer_data`."""
    for file, data in zip(
        explorer_files(path), explorer_data(layers, adjacent, removed).values(), strict=True
    ):
        text = json.dumps(data, indent=2, allow_nan=False) + "\n"
        write_atomic(file, partial(Path.write_text, data=text, encoding="utf-8"))
