"""A pruned model whose linear operators are written in whitened coordinates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import attrgetter

import torch
from torch import Tensor, nn
from torch.func import functional_call

from redtest_onnx.bridge.convert import to_torch
from redtest_onnx.graph.index import index_of
from redtest_onnx.graph.linear_operators import LinearOperator, linear_operators
from redtest_onnx.graph.masks import Mask
from redtest_onnx.graph.model import Model
from redtest_onnx.training.distil.settings import DistilSettings
from redtest_onnx.training.distil.whitening import SeenValues, WhitenedOperator, second_moments
from redtest_onnx.training.objective import TappedModule
from redtest_onnx.training.positions import counted_positions

Inputs = Mapping[str, Tensor]


class Student(nn.Module):
    """The module that is trained: V of every linear operator with weights of its own; all else is frozen.

    Args:
        model: the pruned model, repaired as far as least squares does.
        names: tensors that its forward pass returns.
        batches: inputs of some samples, that the second moments are taken from.
        settings: see `DistilSettings`.
        mask: which positions of sequences count; None where all do.
    """

    def __init__(
        self,
        model: Model,
        names: tuple[str, ...],
        batches: Iterable[Inputs],
        settings: DistilSettings,
        mask: Mask | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.onnx_module = to_torch(model, batch_norm="frozen").eval().requires_grad_(False)
        self._tapped = TappedModule(self.onnx_module, names)
        paths = {name: path for path, name in self.onnx_module.onnx_names.items()}
        parameters = {path for path, _ in self.onnx_module.named_parameters()}
        self._places: list[tuple[str, str | None]] = []
        self.operators = nn.ModuleList()
        operators = [
            operator
            for operator in trainable_operators(model)
            if paths.get(operator.weight_of(model).name) in parameters
        ]
        taps = tuple(dict.fromkeys(name for op in operators for name in (op.input, op.output)))
        with torch.no_grad():
            seen = (
                SeenValues(self.onnx_module.tensors(taps, **batch), _counted(mask, batch))
                for batch in batches
            )
            moments = second_moments(
                operators, seen, settings.moment_samples, settings.rows_per_unknown, settings.seed
            )
        for operator in operators:
            constant = operator.bias_of(model)
            bias_path = None if constant is None else paths.get(constant.name)
            weight_path = paths[operator.weight_of(model).name]
            bias = None if bias_path is None else self._value(bias_path)
            self._places.append((weight_path, bias_path))
            whitener = moments[operator.node].whitener(settings.ridge)
            self.operators.append(WhitenedOperator(operator, self._value(weight_path), bias, whitener))

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Values of the tensors that were asked for, by name."""
        values = {f"module.{path}": value for path, value in self._weights().items()}
        found: dict[str, Tensor] = functional_call(self._tapped, values, (), inputs)
        return found

    @torch.no_grad()
    def write(self) -> nn.Module:
        """The plain module with the weights that the coordinates stand for."""
        for path, value in self._weights().items():
            self._value(path).copy_(value)
        for operator in self.operators:
            operator.requires_grad_(False)
        return self.onnx_module

    def _weights(self) -> dict[str, Tensor]:
        weights: dict[str, Tensor] = {}
        for (weight_path, bias_path), operator in zip(self._places, self.operators, strict=True):
            weight, bias = operator()
            weights[weight_path] = weight
            if bias_path is not None and bias is not None:
                weights[bias_path] = bias
        return weights

    def _value(self, path: str) -> Tensor:
        value: Tensor = attrgetter(path)(self.onnx_module)
        return value


def _counted(mask: Mask | None, batch: Inputs) -> Tensor | None:
    return counted_positions(mask, {name: value.numpy() for name, value in batch.items()})


def trainable_operators(model: Model) -> list[LinearOperator]:
    """Linear operators whose weights and additive constants nothing else reads."""
    index = index_of(model)
    found = []
    for operator in linear_operators(model):
        constant = operator.bias_of(model)
        own = [operator.weight_of(model), *([constant] if constant is not None else [])]
        if all(len(index.readers.get(tensor.name, ())) == 1 for tensor in own):
            found.append(operator)
    return found
