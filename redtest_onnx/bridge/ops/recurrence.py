"""What RNN, GRU and LSTM share: directions, a loop over time, and torch's fused kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Activation = Callable[[Tensor], Tensor]
States = tuple[Tensor, ...]


@dataclass(frozen=True)
class Direction:
    """One direction of a recurrent layer.

    Attributes:
        backwards: whether it reads the steps from the end.
        weight: input weights [gates H, inputs].
        recurrence: recurrent weights [gates H, H].
        weight_bias: bias of the inputs [gates H]; None without biases.
        recurrence_bias: bias of the recurrence [gates H].
        peepholes: weights from the cell to the gates [3 H].
        activations: activation functions in the operator's order.
    """

    backwards: bool
    weight: Tensor
    recurrence: Tensor
    weight_bias: Tensor | None
    recurrence_bias: Tensor | None
    peepholes: Tensor | None
    activations: tuple[Activation, ...]

    def reordered(self, gates: Sequence[int]) -> Direction:
        """The same with the gates in another order."""
        hidden = self.recurrence.shape[1]

        def order(x: Tensor | None) -> Tensor | None:
            return (
                None if x is None else torch.cat([x[gate * hidden : (gate + 1) * hidden] for gate in gates])
            )

        weight, recurrence = order(self.weight), order(self.recurrence)
        assert weight is not None
        assert recurrence is not None
        return replace(
            self,
            weight=weight,
            recurrence=recurrence,
            weight_bias=order(self.weight_bias),
            recurrence_bias=order(self.recurrence_bias),
        )


Cell = Callable[[Direction, Tensor, States], States]
"""Takes the direction, the gates' share from the input [batch, gates H], and the states; gives new states."""


def directions(
    weight: Tensor,
    recurrence: Tensor,
    bias: Tensor | None,
    peepholes: Tensor | None,
    direction: str,
    activations: Sequence[Activation],
) -> list[Direction]:
    """Split the operator's weights by direction."""
    count = weight.shape[0]
    each = len(activations) // count
    sides = []
    for i in range(count):
        weight_bias, recurrence_bias = (None, None) if bias is None else bias[i].chunk(2)
        sides.append(
            Direction(
                direction == "reverse" or i == 1,
                weight[i],
                recurrence[i],
                weight_bias,
                recurrence_bias,
                None if peepholes is None else peepholes[i],
                tuple(activations[i * each : (i + 1) * each]),
            )
        )
    return sides


def first_states(
    given: Sequence[Tensor | None], weight: Tensor, hidden: int, x: Tensor, layout: int
) -> States:
    """The first states as [directions, batch, H], zeros where the caller gives none."""
    batch = x.shape[0] if layout else x.shape[1]
    zeros = x.new_zeros(weight.shape[0], batch, hidden)
    return tuple(
        zeros if state is None else (state.transpose(0, 1) if layout else state).contiguous()
        for state in given
    )


def loop(
    cell: Cell, sides: Sequence[Direction], x: Tensor, states: States, lengths: Tensor | None
) -> tuple[Tensor, ...]:
    """Run a cell step by step.

    Args:
        cell: what one step does.
        sides: the directions.
        x: inputs [steps, batch, inputs].
        states: first states, each [directions, batch, H]; the first of them is the output.
        lengths: steps of each sample [batch]; later ones change nothing and put out zeros.

    Returns:
        Outputs [steps, directions, batch, H], then the last states.
    """
    outputs, lasts = [], []
    for i, side in enumerate(sides):
        gates = functional.linear(x, side.weight, side.weight_bias)
        now = tuple(state[i] for state in states)
        steps: list[Tensor] = [now[0]] * len(x)
        for t in reversed(range(len(x))) if side.backwards else range(len(x)):
            new = cell(side, gates[t], now)
            steps[t] = new[0]
            if lengths is not None:
                alive = (t < lengths)[:, None]
                steps[t] = new[0] * alive
                new = tuple(torch.where(alive, after, before) for after, before in zip(new, now, strict=True))
            now = new
        outputs.append(torch.stack(steps))
        lasts.append(now)
    return torch.stack(outputs, 1), *(torch.stack(state) for state in zip(*lasts, strict=True))


def fused(
    kernel: Callable[..., Any], sides: Sequence[Direction], x: Tensor, states: States
) -> tuple[Tensor, ...]:
    """Run one of torch's kernels (`torch.lstm`, `torch.gru`, ...); arguments and results as for `loop`."""
    only_backwards = len(sides) == 1 and sides[0].backwards
    x = x.flip(0) if only_backwards else x
    weights = [w for side in sides for w in _weights(side)]
    state = states if len(states) > 1 else states[0]
    biased = sides[0].weight_bias is not None
    y, *lasts = kernel(x, state, weights, biased, 1, 0.0, False, len(sides) == 2, False)
    y = y.flip(0) if only_backwards else y
    return y.reshape(*y.shape[:2], len(sides), -1).transpose(1, 2), *lasts


def _weights(side: Direction) -> Iterator[Tensor]:
    for weight in (side.weight, side.recurrence, side.weight_bias, side.recurrence_bias):
        if weight is not None:
            yield weight


def laid_out(results: tuple[Tensor, ...], layout: int) -> tuple[Tensor, ...]:
    """Outputs and last states in the layout asked for."""
    y, *lasts = results
    return (y.permute(2, 0, 1, 3), *(last.transpose(0, 1) for last in lasts)) if layout else results


def clipped(x: Tensor, limit: float | None) -> Tensor:
    """Values kept within [-limit, limit]."""
    return x if limit is None else x.clamp(-limit, limit)


def activation_functions(
    names: Sequence[str], alphas: Sequence[float], betas: Sequence[float]
) -> list[Activation]:
    """The functions by their ONNX names; those with parameters take the next ones from the lists."""
    alpha, beta = iter(alphas), iter(betas)
    functions: list[Activation] = []
    for name in names:
        function, defaults = _FUNCTIONS[name]
        given = [next(source, default) for source, default in zip((alpha, beta), defaults, strict=False)]
        functions.append(partial(function, *given) if given else function)
    return functions


def _affine(alpha: float, beta: float, x: Tensor) -> Tensor:
    return alpha * x + beta


def _leaky_relu(alpha: float, x: Tensor) -> Tensor:
    return functional.leaky_relu(x, alpha)


def _thresholded_relu(alpha: float, x: Tensor) -> Tensor:
    return functional.threshold(x, alpha, 0.0)


def _scaled_tanh(alpha: float, beta: float, x: Tensor) -> Tensor:
    return alpha * torch.tanh(beta * x)


def _hard_sigmoid(alpha: float, beta: float, x: Tensor) -> Tensor:
    return torch.clamp(alpha * x + beta, 0, 1)


def _elu(alpha: float, x: Tensor) -> Tensor:
    return functional.elu(x, alpha)


# Function and the defaults of its parameters alpha and beta.
_FUNCTIONS: dict[str, tuple[Callable[..., Tensor], tuple[float, ...]]] = {
    "Relu": (torch.relu, ()),
    "Tanh": (torch.tanh, ()),
    "Sigmoid": (torch.sigmoid, ()),
    "Softsign": (functional.softsign, ()),
    "Softplus": (functional.softplus, ()),
    "Affine": (_affine, (1.0, 0.0)),
    "LeakyRelu": (_leaky_relu, (0.01,)),
    "ThresholdedRelu": (_thresholded_relu, (1.0,)),
    "ScaledTanh": (_scaled_tanh, (1.0, 1.0)),
    "HardSigmoid": (_hard_sigmoid, (0.2, 0.5)),
    "Elu": (_elu, (1.0,)),
}
