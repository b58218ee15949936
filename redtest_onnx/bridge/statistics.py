"""Running statistics of batch normalisation, which training changes without gradients."""

from __future__ import annotations

from redtest_onnx.errors import InputError
from redtest_onnx.graph.index import index_of
from redtest_onnx.graph.model import Model


def check_statistics(model: Model) -> None:
    """Refuse batch normalisation whose running statistics the file does not store for it alone.

    Exporters merge equal tensors, and in an untrained network many are; what training makes of such
    statistics could not be written back.

    Raises:
        InputError: naming the statistics.
    """
    index = index_of(model)
    for node in index.nodes:
        if node.op_type == "BatchNormalization":
            for name in node.input[3:5]:
                shared = len(index.readers[name]) > 1 or list(node.input).count(name) > 1
                if shared or name not in index.initializers:
                    raise InputError(
                        f"the running statistics {name!r} are shared with other tensors",
                        where=model.label,
                        hint="keep them with @batch_norm=frozen, or export the network after a first epoch, "
                        "when no two are equal",
                    )
