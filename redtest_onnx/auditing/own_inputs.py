"""Whether what fails on synthetic inputs is the model's fault."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from redtest_onnx.auditing.subject import Subject
from redtest_onnx.data.batching import leading_indices
from redtest_onnx.data.synthetic import Synthetic, guessed_values
from redtest_onnx.errors import InputError
from redtest_onnx.graph.signature import GUESSES


def is_fault_of_model(subject: Subject, kind: str) -> bool:
    """Whether outputs that are not finite on inputs of a kind speak against the model.

    Zeros and noise do where each value of them might come from a user. Not so where nothing tells what the
    values mean, as the edges of a graph: then only real samples do. Sizes that are a guess are tried again.

    Args:
        subject: what is audited.
        kind: one of `Subject.stimuli`.

    Raises:
        InputError: nothing but such guesses is there to audit the model with.
    """
    if kind == "real":
        return True
    if guesses := guessed_values(subject.model):
        if kind == "random" and subject.data.synthetic:
            raise InputError(
                f"{', '.join(subject.broken[kind])} on synthetic inputs: not finite, or no output at all; "
                f"the values of {', '.join(guesses)} are a guess, so that the model may be right",
                where=subject.label,
                hint="give samples with @data",
            )
        return False
    return not _finite_at_other_sizes(subject, kind)


def _finite_at_other_sizes(subject: Subject, kind: str) -> bool:
    """Whether the model gives numbers where sizes that are a guess are guessed in another way."""
    data = subject.data
    if not isinstance(data, Synthetic) or not data.guessed_sizes:
        return False
    tried = [{name: value.shape for name, value in subject.usual.items()}]
    for guess in GUESSES:
        try:
            feeds = data.guessed(guess).inputs(leading_indices(subject.bench.fixed_batch or 1, len(data)))
            sizes = {name: value.shape for name, value in feeds.items()}
            if sizes in tried:
                continue
            tried.append(sizes)
            if _finite(subject.session.run(_zeros(feeds) if kind == "zero" else feeds)):
                return True
        except InputError:
            continue
    return False


def _zeros(feeds: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: np.zeros_like(value) if np.issubdtype(value.dtype, np.floating) else value
        for name, value in feeds.items()
    }


def _finite(outputs: Mapping[str, Any]) -> bool:
    arrays = (value for value in outputs.values() if isinstance(value, np.ndarray))
    return all(np.isfinite(value).all() for value in arrays if np.issubdtype(value.dtype, np.floating))
