"""What an interrupted run needs to go on as if nothing had happened."""

from __future__ import annotations

import pickle
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from redtest_onnx.errors import InputError, OutputError
from redtest_onnx.graph.files import write_atomic

State = dict[str, Any]


@dataclass
class Progress:
    """Where training stands; plain values and tensors only.

    Attributes:
        epoch: the epoch that is under way.
        step: its next step.
        loss: sum of the losses of its steps so far.
        history: one record per finished epoch.
        best_epoch: the epoch with the best validation so far; -1 before the first.
        best_score: its score, larger is better.
        best: weights of that epoch.
    """

    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = -1
    best_score: float = float("-inf")
    best: State = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """A file that holds the state of a run.

    Attributes:
        path: the file.
        identity: what must be the same for a run to go on: model, data, settings.
        resume: whether an existing file is continued.
    """

    path: Path
    identity: State
    resume: bool = False

    def check(self) -> None:
        """Refuse to lose an interrupted run.

        Raises:
            OutputError: the file of an interrupted run is there and was not asked for.
        """
        if self.path.exists() and not self.resume:
            raise OutputError(
                "holds an interrupted run",
                where=str(self.path),
                hint="@resume=True goes on with it; delete the file to start anew",
            )

    def save(self, progress: Progress, parts: State) -> None:
        """Write the state, whole or not at all."""
        state = {"identity": self.identity, "progress": asdict(progress), **parts}
        write_atomic(self.path, lambda path: torch.save(state, path))

    def load(self) -> tuple[Progress, State] | None:
        """The state to go on from; None where there is none.

        Raises:
            InputError: no checkpoint, or one of another model, other data or other settings.
        """
        if not (self.resume and self.path.exists()):
            return None
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
            identity, progress = state.pop("identity"), Progress(**state.pop("progress"))
        except (OSError, RuntimeError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
            raise InputError(
                "is no checkpoint of this version", where=str(self.path), hint="delete it to start anew"
            ) from error
        if other := sorted(k for k in self.identity | identity if self.identity.get(k) != identity.get(k)):
            raise InputError(
                f"belongs to a run with another {', '.join(other)}",
                where=str(self.path),
                hint="resume with the same model, data and settings, or delete it to start anew",
            )
        return progress, state

    def remove(self) -> None:
        """Delete the file after the run is through."""
        self.path.unlink(missing_ok=True)
