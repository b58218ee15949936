"""Give single operators other weights, also where an exporter let several share one tensor."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx

from redtest_onnx.graph.edits import finished
from redtest_onnx.graph.index import index_of
from redtest_onnx.graph.model import Model


def store(tensor: onnx.TensorProto, values: npt.NDArray[np.generic]) -> None:
    """Replace a tensor's values and sizes in place; its name and documentation stay."""
    fresh = onnx.numpy_helper.from_array(np.ascontiguousarray(values).reshape(values.shape), tensor.name)
    fresh.doc_string = tensor.doc_string
    fresh.metadata_props.extend(tensor.metadata_props)
    tensor.CopyFrom(fresh)


def change_operands(model: Model, changes: Mapping[tuple[int, str], npt.NDArray[np.generic]]) -> Model:
    """A new model in which some nodes read other values.

    Args:
        model: the model; not changed.
        changes: new values by (index of the node, name of the initializer it reads), of the same shape and
            type. An initializer that other nodes read, too, stays as it is for them.
    """
    if not changes:
        return model
    index = index_of(model)
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    stored = {tensor.name: tensor for tensor in proto.graph.initializer}
    for (node, name), value in changes.items():
        tensor = onnx.numpy_helper.from_array(np.ascontiguousarray(value), name)
        tensor.doc_string = stored[name].doc_string
        tensor.metadata_props.extend(stored[name].metadata_props)
        if index.value_readers(name) == (node,):
            stored[name].CopyFrom(tensor)
            continue
        tensor.name = f"{name}/{proto.graph.node[node].output[0]}"
        proto.graph.initializer.append(tensor)
        inputs = proto.graph.node[node].input
        for k, read in enumerate(inputs):
            if read == name:
                inputs[k] = tensor.name
    return finished(model, proto)
