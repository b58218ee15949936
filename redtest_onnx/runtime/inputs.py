"""Synthetic inputs that a model runs on, and what to tell users about their sizes."""

from __future__ import annotations

import logging

from redtest_onnx.data.batching import leading_indices
from redtest_onnx.data.dataset import Dataset
from redtest_onnx.data.synthetic import Synthetic
from redtest_onnx.errors import InputError
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.shapes import Shape
from redtest_onnx.graph.signature import GUESSES, fixed_batch
from redtest_onnx.runtime.session import RunOptions, Session

log = logging.getLogger(__name__)


def fit_inputs(model: Model, data: Dataset, options: RunOptions) -> tuple[Model, Dataset]:
    """The model with the sizes that the user chose, and data that it runs on.

    Where sizes of synthetic inputs are guesses, others are tried until the model runs. Where none does, the
    data is returned as it was: a later run says why.

    Args:
        model: the model.
        data: samples; anything but synthetic ones is returned as it is.
        options: device and threads.
    """
    if not isinstance(data, Synthetic):
        return model, data
    sized = model.with_sizes({name: size for name, size in data.sizes.items() if name not in model.sizes})
    if data.settled or not data.guessed_sizes:
        return sized, data
    settled = _settled(sized, data, options)
    settled.settled = True
    return sized, settled


def _settled(model: Model, data: Synthetic, options: RunOptions) -> Synthetic:
    try:
        session = Session(model, options, level="basic")
    except InputError:
        return data
    for guess in GUESSES:
        candidate = data if guess is GUESSES[0] else data.guessed(guess)
        if _runs(model, session, candidate):
            return candidate
    return data


def _runs(model: Model, session: Session, data: Synthetic) -> bool:
    try:
        feeds = data.inputs(leading_indices(fixed_batch(model) or 1, len(data)))
        session.run(feeds)
    except InputError as error:
        log.info("%s: %s", model.label, error.what)
        return False
    return True


def guessed_sizes(data: Dataset) -> dict[str, Shape]:
    """Inputs whose sizes are a guess, with these sizes for one sample; nothing for real data."""
    return dict(data.guessed_sizes) if isinstance(data, Synthetic) else {}


def may_be_ours(model: Model, data: Dataset) -> bool:
    """Whether a failing run may be the fault of synthetic inputs: sizes or integers that are guesses."""
    if not isinstance(data, Synthetic):
        return False
    return bool(data.guessed_sizes) or any(spec.numpy_dtype.kind in "iu" for spec in model.inputs)


def sizes_note(data: Dataset) -> str | None:
    """What stands beside numbers that depend on guessed sizes; None where nothing is a guess."""
    found = [f"{name} {'x'.join(map(str, sizes))}" for name, sizes in guessed_sizes(data).items()]
    return f"at {', '.join(found)}" if found else None


def shape_hint(model: Model, data: Dataset) -> str:
    """The options that give other sizes, ready to be changed and pasted."""
    guesses = guessed_sizes(data)
    names = guesses or {spec.name: () for spec in model.inputs}
    parts = []
    for spec in model.inputs:
        if spec.name in names:
            sizes = guesses.get(spec.name) or tuple(d if isinstance(d, int) else 1 for d in spec.shape or ())
            parts.append(f"--input-shape {spec.name}:{','.join(map(str, sizes))}")
    return " ".join(parts)
