"""A run in MLflow, through its client: an active run of the caller and other state stay as they are."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from redtest_onnx.errors import InputError
from redtest_onnx.tracking.base import RunState

_EXPERIMENT = "redtest-onnx"
_LONGEST = 500  # characters of a value: what every version of MLflow takes
_PATIENCE = 10.0  # seconds until a server that does not answer is given up; MLflow itself tries for minutes
_STATES = {"finished": "FINISHED", "failed": "FAILED", "killed": "KILLED"}


class MlflowRun:
    """One run; candidates become runs of their own below it.

    Args:
        uri: of the tracking server or database; None for what MLFLOW_TRACKING_URI says, or MLflow's default.
        name: of the run.
        command: which command tracks it.

    Raises:
        InputError: there is no such server, or it refuses.
    """

    def __init__(self, uri: str | None, name: str, command: str) -> None:
        from mlflow.tracking import MlflowClient

        shown = uri or os.environ.get("MLFLOW_TRACKING_URI", "the default of MLflow")
        with _refusals(shown), _quiet_stdout():
            self._client: Any = MlflowClient(tracking_uri=uri)
            _reach(self._client.tracking_uri)
            self._experiment = _experiment(self._client)
            self._tags = {"mlflow.source.type": "LOCAL", "mlflow.source.name": f"redtest-onnx {command}"}
            run = self._client.create_run(self._experiment, run_name=name, tags=self._tags)
        self._id: str = run.info.run_id

    @property
    def where(self) -> str:
        """Where the run can be looked at."""
        return f"MLflow at {_without_password(self._client.tracking_uri)}, run {self._id}"

    def parameters(self, values: Mapping[str, str]) -> None:
        """Note what the run depends on."""
        self._log(self._id, values, {}, 0)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Note numbers of a step."""
        self._log(self._id, {}, values, step)

    def candidate(self, number: int, values: Mapping[str, str], measures: Mapping[str, float]) -> None:
        """A run below this one, and the same numbers over its position here."""
        name, failed = values.get("name", str(number)), "error" in values
        tags = {**self._tags, "mlflow.parentRunId": self._id}
        with _quiet_stdout():
            run = self._client.create_run(self._experiment, run_name=name, tags=tags)
            self._log(run.info.run_id, {**values, "number": str(number)}, measures, 0)
            self._client.set_terminated(run.info.run_id, "FAILED" if failed else "FINISHED")
        self._log(self._id, {}, measures, number)

    def text(self, name: str, markdown: str) -> None:
        """Keep a text as an artefact."""
        with _quiet_stdout():
            self._client.log_text(self._id, markdown, f"{name}.md")

    def artefact(self, path: Path) -> None:
        """Keep a copy of a file."""
        with _quiet_stdout():
            self._client.log_artifact(self._id, str(path))

    def close(self, state: RunState) -> None:
        """End the run."""
        with _quiet_stdout():
            self._client.set_terminated(self._id, _STATES[state])

    def _log(self, run: str, values: Mapping[str, str], numbers: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric, Param

        if not values and not numbers:
            return
        now = int(time.time() * 1000)
        with _quiet_stdout():
            self._client.log_batch(
                run,
                metrics=[Metric(name, value, now, step) for name, value in numbers.items()],
                params=[Param(name, value[:_LONGEST]) for name, value in values.items()],
            )


def _experiment(client: Any) -> str:
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or _EXPERIMENT
    found = client.get_experiment_by_name(name)
    return str(client.create_experiment(name) if found is None else found.experiment_id)


def _reach(uri: str) -> None:
    """Fail at once where no server listens."""
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https") and parts.hostname:
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
        socket.create_connection((parts.hostname, port), timeout=_PATIENCE).close()


@contextmanager
def _quiet_stdout() -> Iterator[None]:
    """MLflow prints where a run can be looked at; stdout belongs to results."""
    with redirect_stdout(sys.stderr):
        yield


@contextmanager
def _refusals(uri: str) -> Iterator[None]:
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError, ImportError, ValueError) as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InputError(
            f"MLflow can't be used at {_without_password(uri)} ({first})",
            hint="@track takes mlflow:URI, such as mlflow:http://localhost:5000 or mlflow:sqlite:///mlflow.db",
        ) from error


def _without_password(uri: str) -> str:
    parts = urlsplit(uri)
    if parts.password is None:
        return uri
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
