"""What is known of a candidate architecture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

CostName = Literal["latency", "parameters", "macs"]
COSTS: tuple[CostName, ...] = get_args(CostName)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One architecture, or one trained model, with its measures.

    Attributes:
        name: the architecture, or the file.
        accuracy: share of right answers on validation data; None if unknown.
        parameters: number of learned values.
        macs: multiply-accumulates for one sample; None if unknown.
        latency_ms: median time of one sample on one thread; None if not measured.
        msrs: redundancy score; None if not measured, or if no two layers vary over the samples.
        layers: number of layers that were compared.
        undefined: number of those left out of the score since they do not vary.
    """

    name: str
    accuracy: float | None = None
    parameters: int
    macs: int | None = None
    latency_ms: float | None = None
    msrs: float | None = None
    layers: int = 0
    undefined: int = 0

    def cost(self, kind: CostName) -> float | None:
        """The cost of the given kind: milliseconds, learned values, or multiply-accumulates."""
        return {"latency": self.latency_ms, "parameters": self.parameters, "macs": self.macs}[kind]


@dataclass(frozen=True, kw_only=True)
class MeasuredCandidate(Candidate):
    """A candidate of a search space, built and measured.

    Attributes:
        key: the same for architectures that are the same network.
        depth: operators with weights on the longest way.
        test_accuracy: on the test split; None without one. Not for choosing.
        synflow: zero-cost proxy of the untrained network, like the two below; None where undefined.
        jacob_cov: zero-cost proxy.
        naswot: zero-cost proxy.
        seconds: time that the evaluation took.
        worker: host and process that did it.
    """

    key: str
    depth: int
    test_accuracy: float | None = None
    synflow: float | None = None
    jacob_cov: float | None = None
    naswot: float | None = None
    seconds: float = 0.0
    worker: str = ""
