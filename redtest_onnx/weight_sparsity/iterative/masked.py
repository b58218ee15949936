"""A module of the bridge whose masked weights are held at exactly zero."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from redtest_onnx.errors import InputError
from redtest_onnx.graph.model import Model
from redtest_onnx.weight_sparsity.masks import Mask, Rows
from redtest_onnx.weight_sparsity.weights import Weight

if TYPE_CHECKING:
    from redtest_onnx.bridge import OnnxModule


class MaskedModule:
    """Ties masks to the parameters of a module.

    Args:
        model: the model the module was made from.
        module: of the bridge.
        weights: the tensors that are pruned.

    Raises:
        InputError: one of them is no parameter of the module.
    """

    def __init__(self, model: Model, module: OnnxModule, weights: Sequence[Weight]) -> None:
        import torch

        self.module = module
        self._weights = weights
        parameters = {
            name: tensor for name, tensor in module.trained() if isinstance(tensor, torch.nn.Parameter)
        }
        missing = [weight.name for weight in weights if weight.name not in parameters]
        if missing:
            raise InputError(
                f"{missing[0]} can't be trained: it is stored as integers, or no plain initializer",
                where=model.label,
                hint="@protect it, or prune the model before it is quantised",
            )
        self._parameters = [parameters[weight.name] for weight in weights]
        self._gone: list[torch.Tensor] = []

    def rows(self, k: int) -> Rows:
        """[neurons, inputs] a copy of the values that tensor k has now."""
        from redtest_onnx.bridge.dtypes import to_array

        values = to_array(self._parameters[k], self._weights[k].tensor.data_type)
        return self._weights[k].layout.rows(values).copy()

    def mask(self, masks: Sequence[Mask]) -> None:
        """Set what the masks take to zero, now and at every `hold`."""
        import torch

        gone = (
            weight.layout.restore(~mask, weight.tensor.dims)
            for weight, mask in zip(self._weights, masks, strict=True)
        )
        self._gone = [torch.from_numpy(np.ascontiguousarray(values)) for values in gone]
        self.hold()

    def hold(self) -> None:
        """Set masked weights to zero again; momentum and weight decay move them."""
        for parameter, gone in zip(self._parameters, self._gone, strict=True):
            # Not a product with the mask: that would leave negative zeros and NaN.
            parameter.data.masked_fill_(gone.to(parameter.device), 0)
