"""How similarity and redundancy are measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from redtest_onnx.checks import Between, Natural, Positive, check_settings
from redtest_onnx.errors import SettingError
from redtest_onnx.graph.probe.reduction import Pooling
from redtest_onnx.layers.granularity import GranularityChoice
from redtest_onnx.metrics.cka import Estimator
from redtest_onnx.similarity.measure import Kernel


@dataclass(frozen=True)
class AnalysisSettings:
    """How similarity and redundancy are measured.

    Attributes:
        pooling: "mean" averages each activation over its positions, "none" takes all values; of sequences
            "cls" takes the first token and "token" one of each sample, drawn at random.
        layers: "auto" for the default series, "all" for every tensor of floats that follows from the
            inputs, or a glob over layer names.
        granularity: how much a layer of the series holds, see `regroup`; "auto" is the default series, and
            the blocks of a transformer where a number of layers is to be removed.
        estimator: "minibatch" takes one ratio of sums over the batches, "paper" the mean over them, "exact"
            all samples at once; "biased" is "minibatch" with the biased HSIC.
        kernel: "linear", or "rbf" with the median distance as its width.
        alpha: steepness of the score; infinite counts the pairs above the threshold.
        threshold: similarity from which on a pair counts as redundant; None picks .8 for graphs with skip
            connections and .7 for plain chains.
        gate: count only pairs above the threshold, as RedTest's Algorithm 1 does.
        samples: samples per batch.
        batches: batches, as far as the data reaches.
        seed: of the choice of samples.
    """

    pooling: Pooling = "mean"
    layers: str = "auto"
    granularity: GranularityChoice = "auto"
    estimator: Estimator = "minibatch"
    kernel: Kernel = "linear"
    alpha: Annotated[float, Between(0, above=True)] = 100.0
    threshold: float | None = None
    gate: bool = False
    samples: Positive = 256
    batches: Positive = 10
    seed: Natural = 0

    def __post_init__(self) -> None:
        check_settings(self)
        if self.kernel != "linear" and self.estimator == "exact":
            raise SettingError("kernel", self.kernel, "'linear' with the estimator 'exact'")
