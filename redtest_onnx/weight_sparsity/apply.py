"""Write masks into a model: zeros where a weight is gone, everything else of the file as it was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import onnx

from redtest_onnx.errors import InputError
from redtest_onnx.graph.files import copy_external
from redtest_onnx.graph.model import Model, is_external, tensors
from redtest_onnx.graph.weights import store
from redtest_onnx.weight_sparsity.masks import Mask, PruningRule, Scope, prune_smallest
from redtest_onnx.weight_sparsity.weights import Weight, find_weights, prunable

DATA = "weights.data"


def chosen_weights(model: Model, protect: Sequence[str] = ()) -> list[Weight]:
    """The weights that are pruned: all that the file holds as single numbers, but those protected.

    Args:
        model: the model.
        protect: globs over names of tensors and operators.

    Raises:
        InputError: nothing is left, or a glob matches nothing.
    """
    weights, _ = find_weights(model)
    if empty := next((weight for weight in weights if not weight.elements), None):
        raise InputError(
            f"has the sizes {list(empty.tensor.dims)}: there is nothing in it to prune",
            where=f"{model.label}, tensor {empty.name!r}",
            hint="export the model with weights in all operators",
        )
    for pattern in protect:
        if not any(_matches(weight, pattern) for weight in weights):
            raise InputError(f"@protect {pattern!r} matches no weights", hint="see `redtest-onnx sparsity`")
    chosen = [
        weight
        for weight in weights
        if prunable(weight) and not any(_matches(weight, pattern) for pattern in protect)
    ]
    if not chosen:
        raise InputError("no weights to prune", where=model.label, hint="see `redtest-onnx sparsity`")
    return chosen


def full_masks(weights: Sequence[Weight]) -> list[Mask]:
    """Masks that keep everything."""
    return [np.ones((weight.layout.count, weight.inputs), np.bool_) for weight in weights]


def one_shot_masks(model: Model, weights: Sequence[Weight], scope: Scope, rule: PruningRule) -> list[Mask]:
    """Masks from the magnitudes of a model as it is, in one step (without training)."""
    return prune_smallest(lambda k: weights[k].rows(model), full_masks(weights), scope, rule)


def apply_masks(
    model: Model, weights: Sequence[Weight], masks: Sequence[Mask], folder: Path | None = None
) -> Model:
    """A model whose masked weights are exactly zero; quantised ones stand at their zero point.

    Args:
        model: the model; not changed.
        weights: of this model.
        masks: of each of them.
        folder: where the weights of a model with external data are written meanwhile, one tensor in memory
            at a time; without it they become part of the proto.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    edited = model.edited(proto)
    targets = dict(_pairs(weights, find_weights(edited)[0]))
    external = model.weights_in is None and any(is_external(tensor) for tensor in tensors(proto.graph))
    sink = folder / DATA if folder is not None and external else None
    if sink is not None:
        changed = {id(target.tensor) for target in targets.values()}
        kept = [t for t in tensors(proto.graph) if is_external(t) and id(t) not in changed]
        copy_external(model.folder, kept, sink, DATA)
    for k, mask in enumerate(masks):
        weight, target = weights[k], targets[k].tensor
        keep = weight.layout.restore(mask, weight.tensor.dims)
        values = weight.coding.cleared(model, weight.tensor, keep)
        if sink is not None and is_external(target):
            _append(target, onnx.numpy_helper.from_array(values).raw_data, sink)
        else:
            store(target, values)
    return Model(proto, data_folder=folder) if sink is not None else edited


def _pairs(weights: Sequence[Weight], fresh: Sequence[Weight]) -> Iterator[tuple[int, Weight]]:
    """The same tensors in the copy, which holds them in the same order."""
    left = iter(fresh)
    for k, weight in enumerate(weights):
        yield k, next(item for item in left if item.name == weight.name)


def _append(tensor: onnx.TensorProto, content: bytes, file: Path) -> None:
    with file.open("ab") as sink:
        offset = sink.tell()
        sink.write(content)
    del tensor.external_data[:]
    for key, value in (("location", file.name), ("offset", offset), ("length", len(content))):
        tensor.external_data.add(key=key, value=str(value))


def _matches(weight: Weight, pattern: str) -> bool:
    return fnmatchcase(weight.name, pattern) or fnmatchcase(weight.operator, pattern)
