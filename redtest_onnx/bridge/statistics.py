"""Running statistics of batch normalisation, which training changes without gradients."""

from __future__ import annotations

from math import prod

from redtest_onnx.errors import InputError
from redtest_onnx.graph.index import index_of
from redtest_onnx.runtime.workbench import Workbench


def check_statistics(bench: Workbench) -> None:
    """Refuse batch normalisation whose running statistics training can't track.

    The file has to store them for it alone: exporters merge equal tensors, and in an untrained network many
    are; what training makes of such statistics could not be written back. And a run has to hold more than one
    value of each channel, which one sample behind a pooling does not.

    Args:
        bench: the model that is trained.

    Raises:
        InputError: naming the statistics, or the operator.
    """
    model, index = bench.model, index_of(bench.model)
    for node in index.nodes:
        if node.op_type != "BatchNormalization":
            continue
        for name in node.input[3:5]:
            shared = len(index.readers[name]) > 1 or list(node.input).count(name) > 1
            if shared or name not in index.initializers:
                raise InputError(
                    f"the running statistics {name!r} are shared with other tensors",
                    where=model.label,
                    hint="keep them with @batch_norm=frozen, or export the network after a first epoch, "
                    "when no two are equal",
                )
        sizes = bench.shapes.sizes.get(node.input[0], ()) if bench.fixed_batch == 1 else ()
        if len(sizes) > 1 and prod(sizes) == sizes[1]:
            raise InputError(
                f"{node.name or node.output[0]!r} sees one value of each channel in a run of one sample",
                where=model.label,
                hint="keep the running statistics with @batch_norm=frozen, or export the model with an open "
                "batch",
            )
