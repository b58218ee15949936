"""What an interrupted run needs to go on as if nothing had happened."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from redtest_onnx.errors import InputError, OutputError
from redtest_onnx.graph.writing import write_atomic

log = logging.getLogger(__name__)

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

    def check(self) -> None:
        """Hold what was read from a file against what it should be.

        Raises:
            ValueError: a value that can't be.
        """
        numbers = (self.epoch, self.step, self.best_epoch + 1)
        if not all(isinstance(number, int) and number >= 0 for number in numbers):
            raise ValueError("its counts are none")
        if not all(isinstance(number, float) for number in (self.loss, self.best_score)):
            raise ValueError("its losses are none")
        if self.best_epoch > self.epoch or len(self.history) != self.epoch:
            raise ValueError("its epochs don't fit together")
        for record in self.history:
            if not {"epoch", "lr", "train_loss", "validation_loss", "validation_accuracy"} <= record.keys():
                raise ValueError("a record of an epoch lacks something")
            if not all(value is None or isinstance(value, int | float) for value in record.values()):
                raise ValueError("a record of an epoch holds no numbers")
        if not all(isinstance(value, torch.Tensor) for value in self.best.values()):
            raise ValueError("its weights are none")


@contextmanager
def damage_reported(path: Path) -> Iterator[None]:
    """Whatever goes wrong with what a checkpoint holds is said of its file, which may come from anywhere.

    Raises:
        InputError: anything did.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # its reader, and what takes the state, fail in many ways
        raise InputError(
            f"is not a checkpoint of this version ({type(error).__name__})",
            where=str(path),
            hint="delete it to start anew",
        ) from error


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
                hint="@resume=True continues it; delete the file to start anew",
            )

    def save(self, progress: Progress, parts: State) -> None:
        """Write the state, whole or not at all."""
        state = {"identity": self.identity, "progress": asdict(progress), **parts}
        write_atomic(self.path, lambda path: torch.save(state, path))

    def load(self) -> tuple[Progress, State] | None:
        """The state to continue from; None where there is none.

        Raises:
            InputError: no checkpoint, or one of another model, other data or other settings.
        """
        if not self.resume:
            return None
        if not self.path.exists():
            log.warning("no checkpoint at %s: training begins with the first epoch", self.path)
            return None
        with damage_reported(self.path):
            state = torch.load(self.path, map_location="cpu", weights_only=True)
            identity, progress = dict(state.pop("identity")), Progress(**state.pop("progress"))
            progress.check()
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
