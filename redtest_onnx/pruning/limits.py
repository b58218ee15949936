"""What a pruned model that is written must keep to: the targets, and never more than the original."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from redtest_onnx.errors import NegativeVerdictError
from redtest_onnx.pruning.targets import Quantity, Targets, unknown_quantity
from redtest_onnx.runtime.latency import measure_latency
from redtest_onnx.runtime.workbench import Workbench

_NOISE = 0.05  # of a ratio of two measured latencies
_TIMINGS = 3  # until a latency is believed to be too long


@dataclass(frozen=True)
class Limits:
    """The quantities of the original and the share of them that may stay.

    Attributes:
        original: the model before any pruning, and samples for sizes and timings.
        targets: quantities with the share that may stay, see `Budget`.
        max_drop: largest loss on held-out samples; None: any.
    """

    original: Workbench
    targets: Targets = ()
    max_drop: float | None = None

    def left(self, quantity: Quantity, pruned: Workbench) -> float:
        """The share of a quantity of the original that a model has, all it holds included.

        Raises:
            InputError: the original's quantity is unknown.
        """
        if quantity == "latency":
            before, after = measure_latency([self.original, pruned])
            return after.p50 / before.p50
        if quantity == "size":
            return pruned.model.file_bytes / self.original.model.file_bytes
        cost, whole = pruned.cost, self.original.cost
        pairs = {
            "params": (cost.parameters, whole.parameters),
            "macs": (cost.macs, whole.macs),
            "memory": (cost.peak_activation_bytes, whole.peak_activation_bytes),
        }
        now, before_share = pairs[quantity]
        if now is None or not before_share:
            raise unknown_quantity(quantity, self.original.label)
        return now / before_share

    def missed(self, pruned: Workbench) -> list[tuple[Quantity, float, float]]:
        """The targets that a model misses, each with its share and what is left."""
        found: list[tuple[Quantity, float, float]] = []
        for quantity, share in self.targets:
            left = self.left(quantity, pruned)
            if quantity == "latency":
                for _ in range(_TIMINGS - 1):
                    left = left if left <= share else min(left, self.left(quantity, pruned))
                share_or_noise = share + _NOISE
            else:
                share_or_noise = share * (1 + 1e-9)
            if left > share_or_noise:
                found.append((quantity, share, left))
        return found

    def larger(self, pruned: Workbench) -> bool:
        """Whether a model has more parameters or takes more multiply-accumulates than the original."""
        cost, whole = pruned.cost, self.original.cost
        more_work = cost.macs is not None and whole.macs is not None and cost.macs > whole.macs
        return cost.parameters > whole.parameters or more_work

    def allow(self, pruned: Workbench) -> bool:
        """Whether a model may be written."""
        return not self.larger(pruned) and not self.missed(pruned)

    def require(self, pruned: Workbench, removed: Sequence[object]) -> None:
        """Refuse a model that may not be written.

        Args:
            pruned: what would be written.
            removed: the layers that were taken out of the original.

        Raises:
            NegativeVerdictError: with what was reached.
        """
        if self.larger(pruned):
            raise NegativeVerdictError(
                "the result would be larger than the original, with all that stands in for what was removed",
                where=self.original.label,
                hint="@repair=refit or @repair=none, which add nothing",
            )
        missed = self.missed(pruned)
        if missed:
            quantity, share, left = missed[0]
            raise NegativeVerdictError(
                f"target {quantity}={share:g} was missed: without {len(removed)} layers {left:.3f} is left, "
                "repairs included",
                where=self.original.label,
                hint="a higher target, @repair=refit or @repair=none, or fewer protected layers",
            )
