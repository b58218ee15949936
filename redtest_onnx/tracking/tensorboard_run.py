"""A run as event files of TensorBoard, through the writer that PyTorch ships."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from redtest_onnx.errors import InputError
from redtest_onnx.tracking.base import RunState


class TensorboardRun:
    """One run in a folder of its own.

    Args:
        folder: of all runs.
        name: of the run, and of its folder; what an earlier run of that name left there is no longer shown.

    Raises:
        InputError: the folder can't be written.
    """

    def __init__(self, folder: Path, name: str) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._folder = folder / name
        try:
            self._writer: Any = SummaryWriter(str(self._folder), purge_step=0)
        except OSError as error:
            raise InputError(f"can't be written ({error})", where=str(self._folder)) from error
        self._files: list[str] = []

    @property
    def where(self) -> str:
        """Where the run can be looked at."""
        return f"TensorBoard in {self._folder}"

    def parameters(self, values: Mapping[str, str]) -> None:
        """A table of them as a text."""
        rows = (f"| {_cell(name)} | {_cell(value)} |" for name, value in values.items())
        self.text("parameters", "\n".join(["| parameter | value |", "| --- | --- |", *rows]))

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Scalars of a step."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def candidate(self, number: int, values: Mapping[str, str], measures: Mapping[str, float]) -> None:
        """Scalars over the position of the candidate, and what it is as a text."""
        self.metrics({f"candidates/{name}": value for name, value in measures.items()}, number)
        words = ", ".join(f"{name} {_cell(value)}" for name, value in values.items())
        self._writer.add_text("candidates", words, number)

    def text(self, name: str, markdown: str) -> None:
        """A text."""
        self._writer.add_text(name, markdown)
        self._writer.flush()

    def artefact(self, path: Path) -> None:
        """The name of the file: TensorBoard keeps no copies."""
        self._files.append(f"* `{path}`")
        self.text("files", "\n".join(self._files))

    def close(self, state: RunState) -> None:
        """Note how the run ended."""
        self._writer.add_text("state", state)
        self._writer.close()


def _cell(text: str) -> str:
    """Text that can't be taken for markup of a table."""
    return text.replace("|", "\\|").replace("\n", " ")
