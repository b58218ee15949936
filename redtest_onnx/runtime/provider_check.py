"""A model on an execution provider: which nodes it takes, how far it agrees with the CPU, how fast it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from math import isfinite
from typing import Any

from redtest_onnx.data.dataset import Subset
from redtest_onnx.metrics.agreement.summary import Agreement
from redtest_onnx.runtime.devices import CPU_PROVIDER
from redtest_onnx.runtime.latency import Latency, measure_latency
from redtest_onnx.runtime.workbench import Workbench

_SAMPLES = 64


@dataclass(frozen=True)
class ProviderReport:
    """A model on an execution provider, beside the same model on the CPU.

    Attributes:
        providers: what was asked for, in order of preference.
        nodes: number of nodes after ONNX Runtime's optimisations.
        taken: number of them that the providers run.
        left: names of the nodes that fell back to the CPU, by operator.
        agreement: of its outputs with those of the CPU.
        latency: of one sample on the providers; None if it was not measured.
        cpu_latency: of one sample on the CPU, likewise.
        took: names of the nodes that the providers run, by operator.
    """

    providers: tuple[str, ...]
    nodes: int
    taken: int
    left: Mapping[str, tuple[str, ...]]
    agreement: Agreement
    latency: Latency | None
    cpu_latency: Latency | None
    took: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """Share of the nodes that the providers run."""
        return self.taken / max(self.nodes, 1)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "providers": list(self.providers),
            "nodes": self.nodes,
            "taken": self.taken,
            "share": self.share,
            "took": {name: list(nodes) for name, nodes in self.took.items()},
            "left": {name: list(nodes) for name, nodes in self.left.items()},
            "agreement": _finite(asdict(self.agreement)),
            "latency_ms": _percentiles(self.latency),
            "cpu_latency_ms": _percentiles(self.cpu_latency),
        }

    def __str__(self) -> str:
        """In one sentence."""
        names = ", ".join(self.providers)
        text = f"{names} runs {self.taken} of {self.nodes} nodes ({self.share:.0%})"
        text += f", outputs differ from the CPU's by {self.agreement.relative_l2:.1e}"
        if self.latency and self.cpu_latency:
            text += f", {self.latency.p50:.2f} ms a sample (CPU: {self.cpu_latency.p50:.2f} ms)"
        return text


def _finite(value: Any) -> Any:
    """A value with None for every number in it that JSON can't hold."""
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def _percentiles(latency: Latency | None) -> dict[str, float] | None:
    return None if latency is None else {"p50": latency.p50, "p90": latency.p90, "p99": latency.p99}


def check_provider(bench: Workbench, *, timed: bool = True, seconds: float = 3.0) -> ProviderReport:
    """Run a model on the providers of its options and on the CPU.

    Args:
        bench: the model, samples, and options that name providers.
        timed: whether latency is measured.
        seconds: for both latencies together.

    Raises:
        InputError: a provider refuses the model or an option.
        RuntimeUnavailableError: a provider is missing.
    """
    plain = replace(bench.options, device="cpu", providers=(), latency_command=None)
    cpu = Workbench(bench.model, bench.data, plain, seed=bench.seed)
    session = bench.session(deployed=True)
    assigned = session.assigned_nodes()
    left: dict[str, list[str]] = {}
    took: dict[str, list[str]] = {}
    asked = {name.lower() for name in session.provider_names}
    for provider, nodes in assigned.items():
        fell_back = provider == CPU_PROVIDER and CPU_PROVIDER.lower() not in asked
        for name, operator in nodes:
            (left if fell_back else took).setdefault(operator, []).append(name)
    indices = bench.judging.indices[:_SAMPLES]
    samples = Subset(bench.judging.data, indices)
    agreement = cpu.evaluator(samples).evaluate(session).agreement
    latency: list[Latency | None] = [None, None]
    if timed:
        apart = bench.options.latency_command is not None
        pair = [[bench], [cpu]] if apart else [[bench, cpu]]
        latency = [each for benches in pair for each in measure_latency(benches, seconds=seconds)]
    return ProviderReport(
        tuple(map(str, bench.options.providers)),
        sum(map(len, assigned.values())),
        sum(map(len, took.values())),
        _sorted(left),
        agreement,
        latency[0],
        latency[1],
        _sorted(took),
    )


def _sorted(nodes: Mapping[str, list[str]]) -> dict[str, tuple[str, ...]]:
    return {operator: tuple(names) for operator, names in sorted(nodes.items())}
