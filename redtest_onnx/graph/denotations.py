"""What a file says of the axes of its inputs, by ONNX's denotations of dimensions.

Where samples are not in front is told by operators, such as a recurrent one that moves along the steps. Once
these are removed, nothing else in the graph does: the file has to say it.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx

from redtest_onnx.graph.model import Model

_BATCH, _FEATURE = "DATA_BATCH", "DATA_FEATURE"
_OTHERS = frozenset({"DATA_CHANNEL", "DATA_TIME", _FEATURE})
_STANDARD = _OTHERS | {_BATCH}


def denoted_axes(model: Model) -> dict[str, int | None]:
    """The axis of the samples of each input that says so; None where the first axis is said to be another.

    Words of one's own, which ONNX allows, say nothing.
    """
    found: dict[str, int | None] = {}
    for info in model.graph.input:
        said = [dim.denotation for dim in info.type.tensor_type.shape.dim]
        if _BATCH in said:
            found[info.name] = said.index(_BATCH)
        elif said and said[0] in _OTHERS:
            found[info.name] = None
    return found


def denote_axes(inputs: Iterable[onnx.ValueInfoProto], axes: dict[str, int | None]) -> None:
    """Say of inputs, in place, where their samples are if that is not in front.

    Args:
        inputs: of a graph; what they say in ONNX's words is kept.
        axes: of the samples of each input; None for one without.
    """
    for info in inputs:
        dims, axis = info.type.tensor_type.shape.dim, axes.get(info.name, 0)
        if axis != 0 and dims and dims[axis or 0].denotation not in _STANDARD:
            dims[axis or 0].denotation = _FEATURE if axis is None else _BATCH
