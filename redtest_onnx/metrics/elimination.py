"""Backward elimination of channels that linear maps read, by what a least-squares fit can't make up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from redtest_onnx.arrays import Float64s, Indices

RIDGE = 1e-3
"""Penalty on the weights, relative to the mean variance of what they multiply."""
_STEPS = 64  # of an elimination: channels of very wide maps go several at a time


@dataclass(frozen=True)
class LinearReader:
    """A linear map y = x W + b that reads all channels, each at one place or at several, such as a kernel's.

    Attributes:
        moments: [C * places, C * places] float64 covariance of x, places of a channel behind one another.
        weight: [C * places, M] float64.
        energy: variance of what the map's result enters, summed over outputs; errors are shares of it.
    """

    moments: Float64s
    weight: Float64s
    energy: float

    @property
    def penalised(self) -> Float64s:
        """The covariance with the penalty on its diagonal."""
        size = len(self.moments)
        mean = float(np.trace(self.moments)) / max(size, 1)
        regular: Float64s = self.moments + max(RIDGE * mean, np.finfo(np.float64).tiny) * np.eye(size)
        return regular


@dataclass(frozen=True, eq=False)
class Elimination:
    """Channels in the order in which they go.

    Attributes:
        order: [C] channels, first to go first; the last stays.
        errors: [C] relative squared error with so many channels gone, none at first; rising.
    """

    order: Indices
    errors: Float64s

    def kept(self, count: int) -> Indices:
        """[count] the channels that stay if so many do, in rising order."""
        return np.sort(self.order[len(self.order) - count :])


def eliminate(readers: Sequence[LinearReader], channels: int) -> Elimination:
    """Take channels away one by one, always that whose loss the others make up for best.

    Without the rows S of x, the best weights for the others are W_K - P_KS P_SS^-1 W_S, and the error rises
    by tr(W_S' P_SS^-1 W_S), with P the inverse of the covariance: optimal brain surgery (Hassibi and Stork,
    1993) in blocks, with the covariance of the inputs as its Hessian. Errors are exact for the channels
    chosen; the choice is greedy. Of more than 64 channels some go together, those that would cost least one
    by one.

    Args:
        readers: the maps that read the channels; at least one.
        channels: C.
    """
    states = [_State(reader, channels) for reader in readers]
    alive = np.arange(channels)
    order: list[int] = []
    errors = [0.0]
    together = max(1, channels // _STEPS)
    while len(alive) > 1:
        costs: Float64s = np.sum([state.costs(alive) for state in states], axis=0)
        count = min(together, len(alive) - 1)
        chosen = np.sort(np.argsort(costs, kind="stable")[:count])
        gone = alive[chosen]
        rise = sum(state.remove(gone) for state in states)
        ranked = gone[np.argsort(costs[chosen], kind="stable")]
        order.extend(int(channel) for channel in ranked)
        # Those that go together share the rise.
        before = errors[-1]
        errors.extend(before + rise * (k + 1) / count for k in range(count))
        alive = np.delete(alive, chosen)
    order.extend(int(channel) for channel in alive)
    return Elimination(np.array(order, np.int64), np.array(errors[:channels]))


def fitted(reader: LinearReader, kept: Indices, channels: int) -> Float64s:
    """[kept * places, M] weights that make the most of the kept channels: G_KK^-1 G_K: W."""
    regular = reader.penalised
    rows = _rows(kept, len(regular) // channels)
    found = np.linalg.solve(regular[np.ix_(rows, rows)], regular[rows] @ reader.weight)
    return np.asarray(found, np.float64)


class _State:
    """The inverse covariance and the weights of one map while channels go."""

    def __init__(self, reader: LinearReader, channels: int) -> None:
        self._places = len(reader.moments) // channels
        inverse = np.linalg.inv(reader.penalised)
        self._inverse: Float64s = np.asarray((inverse + inverse.T) / 2, np.float64)
        self._weight = reader.weight.copy()
        self._energy = max(reader.energy, np.finfo(np.float64).tiny)

    def costs(self, alive: Indices) -> Float64s:
        """[alive] what taking away each channel alone would add to the error."""
        places, channels = self._places, len(self._weight) // self._places
        blocks = self._inverse.reshape(channels, places, channels, places)[alive, :, alive, :]
        weights = self._weight.reshape(channels, places, -1)[alive]
        solved = np.asarray(np.linalg.solve(blocks, weights), np.float64)
        found: Float64s = np.einsum("cpm,cpm->c", weights, solved) / self._energy
        return np.maximum(found, 0)

    def remove(self, gone: Indices) -> float:
        """Take channels away for good; what that adds to the error."""
        rows = _rows(gone, self._places)
        block, own = self._inverse[np.ix_(rows, rows)], self._weight[rows]
        across = self._inverse[:, rows]
        solved = np.linalg.solve(block, np.concatenate([own, across.T], axis=1)).astype(np.float64)
        weights, inner = solved[:, : own.shape[1]], solved[:, own.shape[1] :]
        rise = float(np.vdot(own, weights)) / self._energy
        self._weight -= across @ weights
        self._inverse -= across @ inner
        self._weight[rows] = 0
        self._inverse[rows] = 0
        self._inverse[:, rows] = 0
        return max(rise, 0.0)


def _rows(channels: Indices, places: int) -> Indices:
    found: Indices = (channels[:, None] * places + np.arange(places)).reshape(-1)
    return found
