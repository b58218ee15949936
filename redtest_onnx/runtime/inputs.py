"""Synthetic inputs that a model runs on."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress

from redtest_onnx.data.batching import leading_indices
from redtest_onnx.data.dataset import Dataset, Feeds, source_of
from redtest_onnx.data.images import ImageData
from redtest_onnx.data.synthetic import Synthetic
from redtest_onnx.errors import InputError
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.reduced import with_weights_made_in_place
from redtest_onnx.graph.signature import GUESSES, fixed_batch
from redtest_onnx.runtime.session import RunOptions, Session
from redtest_onnx.runtime.threads import thread_count

log = logging.getLogger(__name__)

_PIXEL_SHARE = 12  # of the memory for what is kept, for each data set of images


def keep_decoded(data: Dataset, options: RunOptions) -> Dataset:
    """The data, whose images are decoded by the threads of the options and kept in their memory."""
    source = source_of(data)
    if isinstance(source, ImageData):
        source.decoded.limit = options.memory // _PIXEL_SHARE
        source.decoded.threads = thread_count(options.threads)
    return data


def fit_inputs(model: Model, data: Dataset, options: RunOptions) -> tuple[Model, Dataset]:
    """The model with the sizes that the user chose, and data that it runs on.

    Where sizes of synthetic inputs are guesses, others are tried until the model runs. Where none does, the
    data is returned as it was: a later run says why.

    Args:
        model: the model.
        data: samples; anything but synthetic ones is returned as it is, see `keep_decoded`.
        options: device and threads.
    """
    if not isinstance(data, Synthetic):
        return model, keep_decoded(data, options)
    sized = model.with_sizes({name: size for name, size in data.sizes.items() if name not in model.sizes})
    if data.settled or not data.guessed_sizes:
        return sized, data
    settled = _settled(sized, data, options)
    settled.settled = True
    return sized, settled


def inputs_to_try(model: Model, data: Dataset) -> Iterator[Feeds]:
    """Inputs of the smallest run; with every guess of what sizes may be, where they are guesses.

    Args:
        model: the model.
        data: samples; what can't be read is left out, the run that needs it says why.
    """
    guesses = isinstance(data, Synthetic) and not data.settled and bool(data.guessed_sizes)
    for guess in GUESSES if guesses else GUESSES[:1]:
        tried = data.guessed(guess) if isinstance(data, Synthetic) and guess is not GUESSES[0] else data
        with suppress(InputError):
            yield tried.inputs(leading_indices(fixed_batch(model) or 1, len(tried)))


def _settled(model: Model, data: Synthetic, options: RunOptions) -> Synthetic:
    """The first guess that runs: without the model's large weights if it does, for sizes are what counts."""
    light = with_weights_made_in_place(model)
    for tried in (light, model) if light is not model else (model,):
        try:
            # Weights that are made must not be folded into constants.
            session = Session(tried, options, level="basic" if tried is model else "none")
        except InputError:
            continue
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
