"""Hold models against a reference on the same samples: agreement of outputs, accuracy with labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from redtest_onnx.data.batching import batches
from redtest_onnx.data.dataset import Subset
from redtest_onnx.graph.model import Model
from redtest_onnx.metrics.agreement import Agreement, AgreementSum
from redtest_onnx.runtime.session import Session

_BATCH = 64
# Reference outputs up to this size are kept, so that many candidates can be held against them.
_CACHE_BYTES = 1 << 28


@dataclass(frozen=True)
class Evaluation:
    """A model held against the reference.

    Attributes:
        agreement: of its outputs with the reference's.
        accuracy: share of right answers; None without labels.
        samples: number of samples.
    """

    agreement: Agreement
    accuracy: float | None
    samples: int


class Evaluator:
    """Evaluates candidates against one reference model.

    Args:
        reference: the original model, ready to run.
        samples: with or without labels.
        fixed: number of samples that every run must have; None where that is open.
    """

    def __init__(self, reference: Session, samples: Subset, fixed: int | None = None) -> None:
        self._reference = reference
        self._data = samples.data
        self._batches = list(batches(samples.indices, fixed or _BATCH, fixed=fixed is not None))
        self._cache: list[dict[str, Any]] = []
        self.reference = self._hold(self._reference)
        """The reference held against itself: its accuracy."""

    def evaluate(self, model: Model | Session) -> Evaluation:
        """Run a model with the reference's signature on the samples.

        Args:
            model: the model, or a session of it.

        Raises:
            InputError: ONNX Runtime refuses the model or the run.
        """
        return self._hold(model if isinstance(model, Session) else Session(model, self._reference.options))

    def _hold(self, session: Session) -> Evaluation:
        total = AgreementSum()
        right, labelled = 0, 0
        for k, (indices, count) in enumerate(self._batches):
            feeds = self._data.inputs(indices)
            reference = self._reference_outputs(k, feeds)
            outputs = reference if session is self._reference else session.run(feeds)
            total.add(*(list(_cut(values, len(indices), count)) for values in (reference, outputs)))
            labels = self._data.labels(indices[:count])
            if labels is not None:
                scores = next(_cut(outputs, len(indices), count))
                right += int(np.sum(scores.reshape(count, -1).argmax(1) == labels))
                labelled += count
        accuracy = right / labelled if labelled else None
        return Evaluation(total.result(), accuracy, sum(count for _, count in self._batches))

    def _reference_outputs(self, batch: int, feeds: dict[str, Any]) -> dict[str, Any]:
        if batch < len(self._cache):
            return self._cache[batch]
        outputs = self._reference.run(feeds)
        size = sum(getattr(value, "nbytes", 0) for value in outputs.values())
        if batch == len(self._cache) and size * (batch + 1) <= _CACHE_BYTES:
            self._cache.append(outputs)
        return outputs


def _cut(outputs: dict[str, Any], size: int, count: int) -> Iterator[npt.NDArray[np.generic]]:
    """The floating-point outputs without what a fixed batch was filled up with."""
    for value in outputs.values():
        if isinstance(value, np.ndarray) and value.ndim and np.issubdtype(value.dtype, np.floating):
            yield value[:count] if len(value) == size else value
