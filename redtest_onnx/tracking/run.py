"""Which trackers a run is told to, and the one object that tells them."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, get_args

from redtest_onnx.checks import check_settings
from redtest_onnx.errors import InputError, RuntimeUnavailableError
from redtest_onnx.tracking.base import RunState, Tracker

log = logging.getLogger(__name__)

TrackerName = Literal["mlflow", "tensorboard"]
TRACKERS: tuple[TrackerName, ...] = get_args(TrackerName)
_NEEDS = {
    "mlflow": {"mlflow": "MLflow"},
    "tensorboard": {"tensorboard": "TensorBoard", "torch": "PyTorch"},
}
_FOLDER = "runs"


@dataclass(frozen=True)
class TrackerTarget:
    """A package that is told of a run, and where.

    Attributes:
        name: "mlflow" or "tensorboard".
        where: URI of MLflow's server or database, or folder of TensorBoard; None for the usual one.
    """

    name: TrackerName
    where: str | None = None

    def __post_init__(self) -> None:
        check_settings(self)

    @classmethod
    def parse(cls, text: str) -> TrackerTarget:
        """Read NAME or NAME:WHERE.

        Raises:
            InputError: it begins with another name.
        """
        name, _, where = text.partition(":")
        for known in TRACKERS:
            if name == known:
                return cls(known, where or None)
        raise InputError(
            f"@track is {text!r}",
            hint="give mlflow, mlflow:URI, tensorboard or tensorboard:FOLDER",
        )

    def open(self, name: str, command: str) -> Tracker:
        """Begin a run."""
        if self.name == "mlflow":
            from redtest_onnx.tracking.mlflow_run import MlflowRun

            return MlflowRun(self.where, name, command)
        from redtest_onnx.tracking.tensorboard_run import TensorboardRun

        return TensorboardRun(Path(self.where or _FOLDER), name)


@dataclass(frozen=True)
class TrackingOptions:
    """Who is told of a run.

    Attributes:
        targets: the packages.
        name: of the run; None for the command and the time.
    """

    targets: tuple[TrackerTarget, ...] = ()
    name: str | None = None

    def __post_init__(self) -> None:
        check_settings(self)
        if self.name is not None and (not self.name.strip() or Path(self.name).name != self.name):
            raise InputError(f"@run_name is {self.name!r}", hint="give a name that can be that of a folder")

    @classmethod
    def of(cls, track: str | Iterable[str] = (), name: str | None = None) -> TrackingOptions:
        """Read what was asked for, and refuse what is not installed, before any work.

        Args:
            track: one or several of "mlflow", "mlflow:URI", "tensorboard", "tensorboard:FOLDER".
            name: of the run.

        Raises:
            InputError: an unknown name, or one given twice.
            RuntimeUnavailableError: a package is missing.
        """
        texts = (track,) if isinstance(track, str) else tuple(track)
        targets = tuple(map(TrackerTarget.parse, texts))
        if len(set(targets)) < len(targets):
            raise InputError("@track names the same place twice", hint="give each once")
        for target in targets:
            needed = _NEEDS[target.name]
            missing = [label for module, label in needed.items() if find_spec(module) is None]
            if missing:
                raise RuntimeUnavailableError(
                    f"@track={target.name} needs {' and '.join(missing)}, not installed here",
                    hint='pip install "redtest-onnx[tracking,torch]", or leave @track out',
                )
        return cls(targets, name)

    def open(self, command: str, *, here: bool = True) -> TrackedRun:
        """Begin the run everywhere.

        Args:
            command: what is run.
            here: whether this process tells of it; of those that train together one does.

        Raises:
            InputError: a place can't be reached or written; runs begun elsewhere are ended as failed.
        """
        name = self.name or f"{command}-{datetime.now():%Y%m%d-%H%M%S}"
        run = TrackedRun()
        for target in self.targets if here else ():
            try:
                run.trackers.append(target.open(name, command))
            except InputError:
                run.close("failed")
                raise
        return run


class TrackedRun:
    """A run and the trackers that log it; there may be none.

    A tracker that fails on the way is left out from there on with a warning: hours of training are not lost
    because a server went away.
    """

    def __init__(self) -> None:
        self.trackers: list[Tracker] = []

    @property
    def where(self) -> list[str]:
        """Where the run can be looked at, in words."""
        return [tracker.where for tracker in self.trackers]

    def parameters(self, values: Mapping[str, object]) -> None:
        """Note what the run depends on; what is None is left out."""
        known = _texts(values)
        self._tell(lambda tracker: tracker.parameters(known))

    def metrics(self, values: Mapping[str, object], step: int = 0) -> None:
        """Note the finite numbers of a step."""
        numbers = _numbers(values)
        self._tell(lambda tracker: tracker.metrics(numbers, step))

    def candidate(self, number: int, values: Mapping[str, object], measures: Mapping[str, object]) -> None:
        """Note one of many candidates."""
        known, numbers = _texts(values), _numbers(measures)
        self._tell(lambda tracker: tracker.candidate(number, known, numbers))

    def text(self, name: str, markdown: str) -> None:
        """Keep a text."""
        self._tell(lambda tracker: tracker.text(name, markdown))

    def artefacts(self, *paths: Path | None) -> None:
        """Keep files; those that are None or not there are left out."""
        for path in paths:
            if path is not None and path.is_file():
                self._tell(lambda tracker, path=path: tracker.artefact(path))  # type: ignore[misc]

    def close(self, state: RunState) -> None:
        """End the run."""
        self._tell(lambda tracker: tracker.close(state))
        self.trackers.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close("finished")
        else:
            self.close("failed" if isinstance(error, Exception) else "killed")

    def _tell(self, what: Callable[[Tracker], None]) -> None:
        for tracker in tuple(self.trackers):
            try:
                what(tracker)
            except Exception as error:
                self.trackers.remove(tracker)
                log.warning("%s takes down nothing from here on: %s", tracker.where, error)


def _texts(values: Mapping[str, object]) -> dict[str, str]:
    return {name: _text(value) for name, value in values.items() if value is not None}


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _numbers(values: Mapping[str, object]) -> dict[str, float]:
    found = {n: float(v) for n, v in values.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    return {name: value for name, value in found.items() if math.isfinite(value)}
