"""Saved activations as a model and its data, so that all that measures layers measures them too."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from onnx import helper

from redtest_onnx.data.arrays import open_arrays
from redtest_onnx.data.saved_activations import SavedActivations, read_activations
from redtest_onnx.graph.model import FLOAT, Model
from redtest_onnx.runtime.session import RunOptions
from redtest_onnx.runtime.workbench import Workbench

log = logging.getLogger(__name__)

_OPSET, _IR = 17, 8
_PREFIX = "saved:"


def activation_model(saved: SavedActivations) -> Model:
    """A model that hands each saved tensor through as float32, by its name and in the order of the file."""
    inputs, outputs, nodes = [], [], []
    for name, array in saved.arrays.items():
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(array.dtype))
        shape = ["n", *array.shape[1:]]
        inputs.append(helper.make_tensor_value_info(_PREFIX + name, kind, shape))
        outputs.append(helper.make_tensor_value_info(name, FLOAT, shape))
        nodes.append(helper.make_node("Cast", [_PREFIX + name], [name], name=name, to=FLOAT))
    graph = helper.make_graph(nodes, "saved activations", inputs, outputs)
    return Model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR))


def activation_workbench(path: Path, options: RunOptions, seed: int = 0) -> Workbench:
    """A workbench whose layers are the tensors of a file or folder of activations.

    Args:
        path: see `read_activations`.
        options: threads and device.
        seed: of the choice of samples.

    Tensors of the file that are no floats, or of other samples, are left out with a line in the log.

    Raises:
        InputError: see `read_activations`.
    """
    saved = read_activations(path)
    model = activation_model(saved)
    data = open_arrays({_PREFIX + name: array for name, array in saved.arrays.items()}, model, str(path))
    for name, reason in saved.others:
        log.warning("%s: %s is left out, %s", path, name, reason)
    return Workbench(model, data, options, seed=seed)
