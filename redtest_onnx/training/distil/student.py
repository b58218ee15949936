"""A pruned model whose linear operators are written in whitened coordinates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import attrgetter

import torch
from torch import Tensor, nn
from torch.func import functional_call

from redtest_onnx.bridge.convert import to_torch
from redtest_onnx.bridge.module import OnnxModule
from redtest_onnx.graph.index import index_of
from redtest_onnx.graph.linear_operators import LinearOperator, linear_operators
from redtest_onnx.graph.masks import Mask
from redtest_onnx.graph.model import Model
from redtest_onnx.training.axes import SampleAxes
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
        axes: of the model; samples are in front if None.
    """

    def __init__(
        self,
        model: Model,
        names: tuple[str, ...],
        batches: Iterable[Inputs],
        settings: DistilSettings,
        mask: Mask | None = None,
        axes: SampleAxes | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.onnx_module = to_torch(model, batch_norm="frozen").eval().requires_grad_(False)
        self._tapped = TappedModule(self.onnx_module, names, axes)
        found = whitened_operators(self.onnx_module, model, batches, settings, mask, axes)
        self._places = [(item.weight, item.bias) for item in found]
        self.operators = nn.ModuleList(item.operator for item in found)

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


@dataclass(frozen=True)
class PlacedOperator:
    """An operator in whitened coordinates and where its weights lie.

    Attributes:
        operator: the coordinates, zero.
        weight: name of its weights among the parameters of the module.
        bias: likewise of its additive constant; None where it has none.
    """

    operator: WhitenedOperator
    weight: str
    bias: str | None


def whitened_operators(
    module: OnnxModule,
    model: Model,
    batches: Iterable[Inputs],
    settings: DistilSettings,
    mask: Mask | None = None,
    axes: SampleAxes | None = None,
) -> list[PlacedOperator]:
    """The linear operators of a module with weights of their own, in whitened coordinates.

    Args:
        module: from `to_torch`.
        model: the graph it was made from.
        batches: inputs of some samples, that the second moments are taken from.
        settings: see `DistilSettings`.
        mask: which positions of sequences count; None where all do.
        axes: of the model; samples are in front if None.
    """
    paths = {name: path for path, name in module.onnx_names.items()}
    parameters = dict(module.named_parameters())
    operators = [
        operator
        for operator in trainable_operators(model)
        if paths.get(operator.weight_of(model).name) in parameters
    ]
    taps = tuple(dict.fromkeys(name for op in operators for name in (op.input, op.output)))
    with torch.no_grad():
        axes = axes or SampleAxes()
        seen = (
            SeenValues(module.tensors(taps, **batch), _counted(mask, batch, axes), axes) for batch in batches
        )
        moments = second_moments(
            operators, seen, settings.moment_samples, settings.rows_per_unknown, settings.seed
        )
    found = []
    for operator in operators:
        constant = operator.bias_of(model)
        bias_path = None if constant is None else paths.get(constant.name)
        weight_path = paths[operator.weight_of(model).name]
        weight: Tensor = attrgetter(weight_path)(module)
        bias: Tensor | None = None if bias_path is None else attrgetter(bias_path)(module)
        whitener = moments[operator.node].whitener(settings.ridge)
        whitened = WhitenedOperator(operator, weight, bias, whitener).to(weight.device)
        found.append(PlacedOperator(whitened, weight_path, bias_path))
    return found


def _counted(mask: Mask | None, batch: Inputs, axes: SampleAxes) -> Tensor | None:
    return counted_positions(mask, {name: value.cpu().numpy() for name, value in batch.items()}, axes)


def trainable_operators(model: Model) -> list[LinearOperator]:
    """Linear operators whose weights and additive constants nothing else reads."""
    index = index_of(model)
    found = []
    for operator in linear_operators(model):
        constant = operator.bias_of(model)
        own = [operator.weight_of(model), *([constant] if constant is not None else [])]
        if all(len(index.value_readers(tensor.name)) == 1 for tensor in own):
            found.append(operator)
    return found
