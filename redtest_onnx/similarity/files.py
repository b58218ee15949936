"""Two files, or one model on two data sets: all that they can be compared by."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from math import isnan
from typing import Any

from redtest_onnx.documents.base import Document
from redtest_onnx.documents.result import Result
from redtest_onnx.errors import InputError
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analyze import AnalysisSettings
from redtest_onnx.similarity.compare import Comparison, compare, on_same_samples
from redtest_onnx.similarity.documents import files_document
from redtest_onnx.similarity.measure import Progress
from redtest_onnx.similarity.selection import select_layers
from redtest_onnx.similarity.side_by_side import SideBySide, measure_side_by_side
from redtest_onnx.similarity.tensors import DIVERGES_BELOW, TensorComparison, compare_tensors

log = logging.getLogger(__name__)


@dataclass(frozen=True, repr=False)
class FileComparison(Result):
    """What was found of two files.

    Attributes:
        files: both side by side.
        tensors: matching tensors.
        layers: similarity of all layers; None where there are none to be measured.
        titles: what the two are called.
    """

    files: SideBySide
    tensors: TensorComparison
    layers: Comparison | None
    titles: tuple[str, str] = ("first", "second")

    def summary(self) -> str:
        """How many tensors match, and where the two part."""
        first = self.tensors.first_divergent
        where = "none diverges" if first is None else f"the first that diverges is {first.first}"
        return f"{len(self.tensors.tensors)} tensors match, {where}"

    def to_dict(self) -> Document:
        """The document of `compare --json`."""
        return files_document(self, self.titles)

    def records(self) -> list[dict[str, Any]]:
        """One entry per matching tensor."""
        return list(self.to_dict()["tensors"])


def compare_files(
    first: Workbench,
    second: Workbench,
    settings: AnalysisSettings | None = None,
    *,
    diverges_below: float = DIVERGES_BELOW,
    progress: Progress | None = None,
) -> FileComparison:
    """Hold one file against another: size, speed, outputs, every matching tensor, similarity of layers.

    Args:
        first: the reference and its samples.
        second: the other file; sample k of its data belongs to sample k of the first.
        settings: how similarity is measured.
        diverges_below: signal-to-noise ratio in dB below which a tensor diverges.
        progress: called as work is done.

    Raises:
        InputError: different numbers of samples, a file doesn't run on its data, no layer of one is called
            as the settings say, or `diverges_below` is no number.
    """
    if isnan(diverges_below):
        raise InputError("@diverges_below is nan; it must be a number")
    settings = settings or AnalysisSettings()
    if settings.layers not in ("auto", "all"):
        for side in (first, second):
            select_layers(side, settings.layers, settings.granularity)  # what is named has to be there
    first, second = on_same_samples(first, second)
    files = measure_side_by_side(first, second)
    tensors = compare_tensors(first, second, diverges_below=diverges_below, progress=progress)
    layers = None
    try:
        layers = compare(first, second, settings, progress)
    except InputError as error:
        # Integers have no similarity; the rest is known all the same.
        log.warning("similarity of layers is not measured: %s", error.what)
    return FileComparison(files, tensors, layers, (first.label, second.label))
