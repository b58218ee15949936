"""Networks as ONNX models."""

from __future__ import annotations

import io
import warnings

import onnx
import torch
from torch import nn

from redtest_onnx.graph.model import Model
from redtest_onnx.search.space import ImageTask

OPSET = 17


def export(network: nn.Module, task: ImageTask) -> Model:
    """The network as an ONNX model with input `input` [n, channels, size, size] and output `logits`.

    Batch normalisation stays an operator of its own, so that the file has the parameters of the network.
    """
    network = network.eval()
    file = io.BytesIO()
    with warnings.catch_warnings():
        # The newer exporter takes many seconds a network, and needs one more package.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.zeros(1, task.channels, task.size, task.size),),
            file,  # type: ignore[arg-type]
            input_names=["input"],
            output_names=["logits"],
            dynamic_axes={"input": {0: "n"}, "logits": {0: "n"}},
            opset_version=OPSET,
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
            dynamo=False,
        )
    return Model(onnx.load_from_string(file.getvalue()))
