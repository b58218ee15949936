"""An ONNX graph as a PyTorch module."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Literal, TypeAlias

import torch
from torch import nn

from redtest_onnx.bridge.naming import place
from redtest_onnx.bridge.program import Program
from redtest_onnx.bridge.registry import ConversionContext
from redtest_onnx.errors import InputError

BatchNorm: TypeAlias = Literal["train", "frozen"]
"""Whether batch normalisation in `train()` uses and tracks batch statistics, or keeps the stored ones."""


@dataclass(frozen=True, eq=False)
class StoredTensors:
    """The tensors of a model by their part in it.

    Attributes:
        parameters: trained tensors by ONNX name.
        statistics: running statistics of batch normalisation by ONNX name.
        constants: tensors that never change by name; they are no part of the state dict.
        copies: original initializer by the name of each untied copy.
    """

    parameters: Mapping[str, torch.Tensor]
    statistics: Mapping[str, torch.Tensor]
    constants: Mapping[str, torch.Tensor]
    copies: Mapping[str, str]


class OnnxModule(nn.Module):
    """Runs an ONNX graph; its weights are parameters under their ONNX names.

    Call it with the model's inputs in order or by name. It returns the only output, or a tuple of all.

    Args:
        program: what to run.
        inputs: names of the model's inputs.
        outputs: names of the model's outputs.
        stored: what the model holds.
        batch_norm: how batch normalisation trains.

    Attributes:
        onnx_names: ONNX name of each parameter and buffer by its name in torch. They are equal except for
            names that torch can't take.
    """

    def __init__(
        self,
        program: Program,
        inputs: tuple[str, ...],
        outputs: tuple[str, ...],
        stored: StoredTensors,
        batch_norm: BatchNorm,
    ) -> None:
        super().__init__()
        self.program = program
        self.input_names = inputs
        self.output_names = outputs
        self.copies = dict(stored.copies)
        self.batch_norm: BatchNorm = batch_norm
        self._outputs = tuple(zip(outputs, program.results, strict=True))
        self.onnx_names: dict[str, str] = {}
        for name, tensor in stored.parameters.items():
            self.onnx_names[place(self, name, nn.Parameter(tensor))] = name
        for name, tensor in stored.statistics.items():
            self.onnx_names[place(self, name, tensor)] = name
        self._trained = len(self.onnx_names)
        for name, tensor in stored.constants.items():
            self.onnx_names[place(self, name, tensor, persistent=False)] = name

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the graph.

        Args:
            *args: the model's first inputs in order.
            **kwargs: the others by name.

        Returns:
            The output, or a tuple where the model has several.

        Raises:
            InputError: inputs are missing, unknown or given twice.
        """
        values = self._run(self._feeds(args, kwargs), ())
        outputs = tuple(values[key] for _, key in self._outputs)
        return outputs[0] if len(outputs) == 1 else outputs

    def tensors(self, names: Iterable[str], *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Run the graph and return values from inside it, as feature distillation needs them.

        Args:
            names: names of any tensors of the main graph.
            *args: as for `forward`.
            **kwargs: as for `forward`.

        Returns:
            The values by name, with gradients.

        Raises:
            InputError: the graph has no such tensor, or the inputs are wrong.
        """
        names = tuple(names)
        values = self._run(self._feeds(args, kwargs), frozenset(names))
        values.update({name: values[key] for name, key in self._outputs})
        if missing := [name for name in names if name not in values]:
            raise InputError(f"the graph computes no tensor {', '.join(missing)}", hint="see `inspect`")
        return {name: values[name] for name in names}

    def trained(self) -> Iterator[tuple[str, torch.Tensor]]:
        """What training changes: parameters and running statistics by ONNX name."""
        for path, name in list(self.onnx_names.items())[: self._trained]:
            yield name, attrgetter(path)(self)

    def _run(self, feeds: Mapping[str, Any], keep: Any) -> dict[str, Any]:
        values = {name: attrgetter(path)(self) for path, name in self.onnx_names.items()}
        values.update(feeds)
        context = ConversionContext(
            training=self.training,
            batch_statistics=self.training and self.batch_norm == "train",
            device=_device(values.values()),
        )
        return self.program.run(values, context, keep)

    def _feeds(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        feeds = {**dict(zip(self.input_names, args, strict=False)), **kwargs}
        fits = len(args) + len(kwargs) == len(self.input_names)
        if fits and all(name in feeds for name in self.input_names):
            return feeds
        given = f"{len(args)} in order" + (f" and {', '.join(kwargs)}" if kwargs else "")
        raise InputError(
            f"the model takes the inputs {', '.join(self.input_names)}; given are {given}",
            hint="give each input once",
        )


def _device(values: Iterable[Any]) -> torch.device:
    return next((v.device for v in values if isinstance(v, torch.Tensor)), torch.device("cpu"))
