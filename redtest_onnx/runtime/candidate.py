"""Models that are held against a reference: each with its way of being run on the reference's samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from redtest_onnx.arrays import Indices
from redtest_onnx.data.dataset import Dataset
from redtest_onnx.runtime.answers import Answers
from redtest_onnx.runtime.session import Session
from redtest_onnx.runtime.session_room import SPARED, is_large


@dataclass(frozen=True)
class CandidateSession:
    """A model to hold against the reference that has its own way of being fed.

    Attributes:
        session: of the model.
        data: the reference's samples for its inputs, where those are called or typed otherwise.
    """

    session: Session
    data: Dataset


class CandidateRun:
    """A model with all judged tensors among its outputs, what they are called there, and what it is fed."""

    def __init__(self, session: Session, names: Mapping[str, str], data: Dataset) -> None:
        self._session: Session | None = session
        self._opener = session.opener if is_large(session.model, SPARED) else None
        self.names, self.data = names, data

    def __call__(self, indices: Indices, feeds: dict[str, Any]) -> dict[str, Any]:
        """The judged tensors of a run, by the names they have in the reference.

        Args:
            indices: the samples.
            feeds: their inputs.
        """
        if self._session is None:
            assert self._opener is not None
            self._session = self._opener()
        found = self._session.run(feeds, list(dict.fromkeys(self.names.values())))
        return {name: found[own] for name, own in self.names.items()}

    def release(self) -> None:
        """Close the session of a large model; the next run opens it again."""
        if self._opener is not None:
            self._session = None


class AnsweredRun(CandidateRun):
    """A model whose answers are known: it is not run any more."""

    def __init__(self, answers: Answers, data: Dataset) -> None:
        self._answers = answers
        self.names, self.data = {name: name for name in answers.names}, data

    def __call__(self, indices: Indices, feeds: dict[str, Any]) -> dict[str, Any]:
        """As that of a run."""
        return self._answers.of(indices)

    def release(self) -> None:
        """Nothing is open."""
