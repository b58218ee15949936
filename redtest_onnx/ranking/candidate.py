"""What is known of a candidate architecture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

CostName = Literal["latency", "parameters", "macs"]
COSTS: tuple[CostName, ...] = get_args(CostName)

MsrsOrigin = Literal["table", "model", "weights", "trained", "untrained", "untrained on random images"]
"""What an MSRS was measured on: what a table's was; the model file; a benchmark's trained weights; a network
that was trained shortly for it; or one that was only initialised, fed with the data or with random images."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One architecture, or one trained model, with its measures; those that are not known are None.

    Attributes:
        name: the architecture, or the file.
        accuracy: share of right answers on validation data.
        parameters: number of learned values.
        macs: multiply-accumulates for one sample.
        latency_ms: median time of one sample on one thread.
        msrs: redundancy score; None also if no two layers vary over the samples.
        msrs_from: what the score was measured on.
        layers: number of layers that were compared.
        undefined: number of those left out of the score since they do not vary.
        test_accuracy: on the test split. Not for choosing.
        depth: operators with weights on the longest way.
        synflow: zero-cost proxy of the untrained network, like the two below; None also where undefined.
        jacob_cov: zero-cost proxy.
        naswot: zero-cost proxy.
    """

    name: str
    accuracy: float | None = None
    parameters: int | None = None
    macs: int | None = None
    latency_ms: float | None = None
    msrs: float | None = None
    msrs_from: MsrsOrigin | None = None
    layers: int = 0
    undefined: int = 0
    test_accuracy: float | None = None
    depth: int | None = None
    synflow: float | None = None
    jacob_cov: float | None = None
    naswot: float | None = None

    def cost(self, kind: CostName) -> float | None:
        """The cost of the given kind: milliseconds, learned values, or multiply-accumulates."""
        return {"latency": self.latency_ms, "parameters": self.parameters, "macs": self.macs}[kind]


@dataclass(frozen=True, kw_only=True)
class MeasuredCandidate(Candidate):
    """A candidate of a search.

    Attributes:
        key: the same for architectures that are the same network.
        seconds: time that the evaluation took.
        worker: host and process that did it.
    """

    key: str
    seconds: float = 0.0
    worker: str = ""
