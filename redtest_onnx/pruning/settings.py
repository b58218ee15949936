"""How layers are chosen and what is left is repaired."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from redtest_onnx.checks import check_settings
from redtest_onnx.errors import SettingError
from redtest_onnx.pruning.criteria.base import names
from redtest_onnx.pruning.repair.fit import Method
from redtest_onnx.pruning.repair.shards import FitShards
from redtest_onnx.similarity.settings import AnalysisSettings
from redtest_onnx.training.distil.settings import DistilSettings


@dataclass(frozen=True)
class PruneSettings:
    """How layers are chosen and what is left is repaired.

    Attributes:
        criterion: the order in which layers go, one of `criteria.names()`.
        similarity: how similarity is measured.
        repair: one of `METHODS`, see `repair`; with repair more layers can go.
        kernel: size of the convolutions of fitted adapters.
        distil: how "distil" trains.
        shards: files that "refit" is fitted to by many workers; the data if None.
    """

    criterion: str = "redtest"
    similarity: AnalysisSettings = field(default_factory=AnalysisSettings)
    repair: Method = "auto"
    kernel: Literal[1, 3] = 1
    distil: DistilSettings = field(default_factory=DistilSettings)
    shards: FitShards | None = None

    def __post_init__(self) -> None:
        check_settings(self)
        if self.criterion not in names():
            raise SettingError("criterion", self.criterion, names())
