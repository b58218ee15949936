"""Iterations kept in a folder, so that a run that was broken off goes on where it stood."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from redtest_onnx.errors import InputError, OutputError
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.reading import read_json
from redtest_onnx.graph.writing import write_atomic
from redtest_onnx.weight_sparsity.iterative.masked import MaskedModule
from redtest_onnx.weight_sparsity.iterative.records import Iteration, IterationState, LoopSettings
from redtest_onnx.weight_sparsity.masks import Mask
from redtest_onnx.weight_sparsity.weights import Weight

_SCOPES = {"neuron", "layer", "global"}


class Checkpoints:
    """One file an iteration.

    Args:
        folder: where; nothing is kept if None.
        model: what is pruned.
        weights: the pruned tensors.
        settings: of the run.

    Raises:
        InputError: the folder holds another run.
        OutputError: it can't be made.
    """

    def __init__(
        self, folder: Path | None, model: Model, weights: Sequence[Weight], settings: LoopSettings
    ) -> None:
        self._folder = folder
        self._shapes = [(weight.layout.count, weight.inputs) for weight in weights]
        self._indices = len(settings.pairs)
        if folder is None:
            return
        run = _run(model, weights, settings)
        note = folder / "run.json"
        if note.exists():
            if read_json(note) != run:
                raise InputError(
                    "holds the iterations of another model or of other settings",
                    where=str(folder),
                    hint="name another folder as @checkpoints, or delete this one",
                )
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"can't be made ({error.strerror})", where=str(folder)) from error
        text = json.dumps(run, indent=2)
        write_atomic(note, lambda path: path.write_text(text, encoding="utf-8"))

    def load(self, number: int) -> IterationState | None:
        """An iteration that is done already; None if it is not."""
        import torch

        from redtest_onnx.training.checkpoint import damage_reported

        path = self._path(number)
        if path is None or not path.exists():
            return None
        with damage_reported(path):
            kept = torch.load(path, weights_only=True)
            record = kept["record"]
            record["pq_index"] = tuple(record["pq_index"])
            packed = (tensor.numpy() for tensor in kept["masks"])
            masks = [_unpacked(bits, shape) for bits, shape in zip(packed, self._shapes, strict=True)]
            found = Iteration(**record)
            _check(found, number, sum(int(np.count_nonzero(mask)) for mask in masks), self._indices)
        return IterationState(found, masks, kept["state"], path)

    def apply(self, step: IterationState, masked: MaskedModule) -> None:
        """Give a module the weights of an iteration.

        Raises:
            InputError: they are those of another module, or some are left where the masks took them.
        """
        from redtest_onnx.training.checkpoint import damage_reported

        with damage_reported(step.source or Path()):
            masked.module.load_state_dict(step.state)
            if any(np.any(masked.rows(k)[~mask]) for k, mask in enumerate(step.masks)):
                raise ValueError("it has weights where it is masked")

    def save(self, step: IterationState) -> None:
        """Keep an iteration."""
        import torch

        path = self._path(step.record.number)
        if path is None:
            return
        record = asdict(step.record)
        record["pq_index"] = list(record["pq_index"])
        masks = [torch.from_numpy(np.packbits(mask)) for mask in step.masks]
        content = {"record": record, "masks": masks, "state": step.state}
        write_atomic(path, lambda target: torch.save(content, target))

    def _path(self, number: int) -> Path | None:
        return None if self._folder is None else self._folder / f"iteration-{number:03d}.pt"


def _unpacked(bits: Any, shape: tuple[int, int]) -> Mask:
    count = shape[0] * shape[1]
    return np.unpackbits(bits, count=count).astype(np.bool_).reshape(shape)


def _check(record: Iteration, number: int, kept: int, indices: int) -> None:
    """Hold a record against what it should be.

    Raises:
        ValueError: a value that can't be.
    """
    if record.number != number or record.kept != kept or not isinstance(record.weights, int):
        raise ValueError("it is of another iteration")
    if len(record.pq_index) != indices or any(set(index) != _SCOPES for index in record.pq_index):
        raise ValueError("it is of other settings")
    numbers = (record.loss, record.seconds, *(v for index in record.pq_index for v in index.values()))
    if not all(isinstance(value, int | float) for value in numbers):
        raise ValueError("its measures are no numbers")
    if not isinstance(record.accuracy, int | float) or not 0 <= record.accuracy <= 1:
        raise ValueError("its accuracy is none")


def _run(model: Model, weights: Sequence[Weight], settings: LoopSettings) -> dict[str, Any]:
    """What must be equal for iterations to be used again; how many there are may grow."""
    values: dict[str, Any] = asdict(settings)
    del values["iterations"]
    values["rule"]["kind"] = type(settings.rule).__name__
    names = hashlib.sha256("\n".join(weight.name for weight in weights).encode()).hexdigest()
    run = {"model": model.sha256, "weights": names, "settings": values}
    parsed: dict[str, Any] = json.loads(json.dumps(run))
    return parsed
