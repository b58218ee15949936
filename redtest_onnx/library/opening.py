"""Models and data as users have them: paths, bytes, protos, arrays; and the workbench of both."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias, TypedDict, Unpack

import onnx

from redtest_onnx.checks import check
from redtest_onnx.data.images import ImageOptions
from redtest_onnx.data.open import DataLike, open_data
from redtest_onnx.data.saved_activations import holds_activations
from redtest_onnx.errors import InputError, SettingError
from redtest_onnx.graph.files import load, parse
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.shapes import Shape
from redtest_onnx.runtime.activation_model import activation_workbench
from redtest_onnx.runtime.outputs.kinds import parse_output_kind
from redtest_onnx.runtime.session import RunOptions
from redtest_onnx.runtime.workbench import Workbench

ModelLike: TypeAlias = str | os.PathLike[str] | bytes | onnx.ModelProto | Model | Workbench
"""A model by path, serialised, as a proto, loaded, or in a workbench; or saved activations by path."""


class Opening(TypedDict, total=False):
    """How a model and its data are opened and run.

    Attributes:
        options: device and threads.
        seed: of the choice of samples, and of synthetic ones.
        evaluation: other samples that judge results.
        split: which split of an .npz.
        images: how images become inputs.
        shapes: sizes of synthetic inputs.
        output_kinds: what outputs are, by name, such as {"logits": "dense:1"}; else found.
    """

    options: RunOptions
    seed: int
    evaluation: DataLike
    split: str
    images: ImageOptions
    shapes: dict[str, Shape]
    output_kinds: Mapping[str, str]


def open_model(model: ModelLike) -> Model:
    """The model, loaded and checked.

    Raises:
        InputError: it is none, or is of no kind that is known.
    """
    if isinstance(model, Workbench):
        return model.model
    if isinstance(model, Model):
        return model
    if isinstance(model, bytes | onnx.ModelProto):
        return parse(model)
    if isinstance(model, str | os.PathLike):
        return load(model)
    raise InputError(
        f"a model can't be made of {type(model).__name__}",
        hint="give a path, bytes, an onnx.ModelProto, or what load() returned",
    )


def open_workbench(model: ModelLike, data: DataLike = None, **how: Unpack[Opening]) -> Workbench:
    """The workbench of a model and its data; one that is given is returned.

    Args:
        model: the model, or its workbench.
        data: samples for it; synthetic ones if None.
        how: see `Opening`.

    Raises:
        InputError: the model or the data can't be read or don't fit, or both are in the workbench already.
        SettingError: no such keyword.
    """
    for name in how:
        if name not in Opening.__annotations__:
            raise SettingError("keyword", name, Opening.__annotations__)
    if isinstance(model, Workbench):
        named = [*(["data"] if data is not None else []), *how]
        if named:
            raise InputError(
                f"@{named[0]} belongs to the workbench, which is given already",
                hint="give a model instead of a workbench, or make another workbench",
            )
        return model
    if isinstance(model, str | os.PathLike) and data is None and holds_activations(Path(model)):
        return activation_workbench(Path(model), how.get("options") or RunOptions(), how.get("seed", 0))
    check("options", how.get("options"), RunOptions | None)
    opened, seed = open_model(model), how.get("seed", 0)
    images, shapes = how.get("images"), how.get("shapes")
    samples = open_data(data, opened, split=how.get("split"), images=images, shapes=shapes, seed=seed)
    evaluation = how.get("evaluation")
    others = None if evaluation is None else open_data(evaluation, opened, images=images)
    options = how.get("options") or RunOptions()
    if kinds := how.get("output_kinds"):
        said = tuple(parse_output_kind(f"{name}={kind}") for name, kind in kinds.items())
        options = replace(options, output_kinds=said)
    return Workbench(opened, samples, options, seed=seed, evaluation=others)


def opened_workbench(
    model: ModelLike, data: DataLike, options: RunOptions | None, seed: int | None = None
) -> Workbench:
    """The workbench of a model, data and options; `seed` counts for models that have none yet."""
    how: Opening = {}
    if options is not None:
        how["options"] = options
    if seed is not None and not isinstance(model, Workbench):
        how["seed"] = seed
    return open_workbench(model, data, **how)
