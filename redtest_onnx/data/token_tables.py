"""The stored tables that token ids and positions point into."""

from __future__ import annotations

from redtest_onnx.graph.index import index_of
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.operators import CARRIERS, attribute, qualified

# Where the table stands among the inputs of a node, by operator and the place of what points into it.
_TABLES = {
    ("Gather", 1): 0,
    ("com.microsoft:GatherBlockQuantized", 1): 0,
    ("com.microsoft:EmbedLayerNormalization", 0): 2,
    ("com.microsoft:EmbedLayerNormalization", 1): 4,
    ("com.microsoft:EmbedLayerNormalization", 7): 3,
}


def table_rows(model: Model, name: str) -> int | None:
    """Rows of the smallest stored table that an input points into, as it is or with its type changed.

    Args:
        model: with the input.
        name: of the input.

    Returns:
        None where it points into no table that is stored as it is.
    """
    index = index_of(model)
    found: list[int] = []
    tensors = [name]
    for tensor in tensors:
        for node in (index.nodes[k] for k in index.readers.get(tensor, ())):
            kind = qualified(node)
            if kind in CARRIERS:
                tensors.append(node.output[0])
            for place, read in enumerate(node.input):
                table = _TABLES.get((kind, place))
                if read != tensor or table is None or table >= len(node.input):
                    continue
                stored = index.initializers.get(node.input[table])
                first = attribute(node, "axis", 0) == 0 and attribute(node, "gather_axis", 0) == 0
                if stored is not None and stored.dims and first:
                    found.append(int(stored.dims[0]))
    return min(found, default=None)
