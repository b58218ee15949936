"""What a pruned model that is written must keep to: the targets, and never more than the original."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from redtest_onnx.data.dataset import Dataset
from redtest_onnx.errors import InputError, NegativeVerdictError
from redtest_onnx.graph.cost import Cost
from redtest_onnx.graph.model import Model
from redtest_onnx.runtime.latency import measure_latency
from redtest_onnx.runtime.opened import resolve_cost
from redtest_onnx.runtime.session import RunOptions

_NOISE = 0.05  # of a ratio of two measured latencies
_TIMINGS = 3  # until a latency is believed to be too long


@dataclass(frozen=True)
class Limits:
    """The quantities of the original and the share of them that may stay.

    Attributes:
        original: the model before any pruning.
        data: samples, for sizes and timings.
        options: device and threads.
        targets: quantities with the share that may stay, see `Budget`.
    """

    original: Model
    data: Dataset
    options: RunOptions
    targets: tuple[tuple[str, float], ...] = ()

    @cached_property
    def _cost(self) -> Cost:
        return resolve_cost(self.original, self.data, self.options)

    def left(self, quantity: str, model: Model) -> float:
        """The share of a quantity of the original that a model has, all it holds included.

        Raises:
            InputError: the original's quantity is unknown.
        """
        if quantity == "latency":
            before, after = measure_latency([self.original, model], self.data, self.options)
            return after.p50 / before.p50
        if quantity == "size":
            return model.file_bytes / self.original.file_bytes
        cost = resolve_cost(model, self.data, self.options)
        pairs = {
            "params": (cost.parameters, self._cost.parameters),
            "macs": (cost.macs, self._cost.macs),
            "memory": (cost.peak_activation_bytes, self._cost.peak_activation_bytes),
        }
        now, before_ = pairs[quantity]
        if now is None or not before_:
            raise InputError(f"the model's {quantity} are unknown", where=self.original.label)
        return now / before_

    def missed(self, model: Model) -> list[tuple[str, float, float]]:
        """The targets that a model misses, each with its share and what is left."""
        found = []
        for quantity, share in self.targets:
            left = self.left(quantity, model)
            if quantity == "latency":
                for _ in range(_TIMINGS - 1):
                    left = left if left <= share else min(left, self.left(quantity, model))
                share_or_noise = share + _NOISE
            else:
                share_or_noise = share * (1 + 1e-9)
            if left > share_or_noise:
                found.append((quantity, share, left))
        return found

    def larger(self, model: Model) -> bool:
        """Whether a model has more parameters or takes more multiply-accumulates than the original."""
        cost = resolve_cost(model, self.data, self.options)
        more_work = None not in (cost.macs, self._cost.macs) and (cost.macs or 0) > (self._cost.macs or 0)
        return cost.parameters > self._cost.parameters or more_work

    def allow(self, model: Model) -> bool:
        """Whether a model may be written."""
        return not self.larger(model) and not self.missed(model)

    def require(self, model: Model, removed: Sequence[object]) -> None:
        """Refuse a model that may not be written.

        Args:
            model: what would be written.
            removed: the layers that were taken out of the original.

        Raises:
            NegativeVerdictError: with what was reached.
        """
        if self.larger(model):
            raise NegativeVerdictError(
                "the result would be larger than the original, with all that stands in for what was removed",
                where=self.original.label,
                hint="--repair refit or none, which add nothing",
            )
        missed = self.missed(model)
        if missed:
            quantity, share, left = missed[0]
            raise NegativeVerdictError(
                f"target {quantity}={share:g} was missed: without {len(removed)} layers {left:.3f} is left, "
                "repairs included",
                where=self.original.label,
                hint="a higher target, --repair refit or none, or fewer protected layers",
            )
