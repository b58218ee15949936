"""Recurrent layers: torch's fused kernels for the plain forms, a loop over time for all others."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from redtest_onnx.bridge.ops.recurrence import (
    Direction,
    States,
    activation_functions,
    clipped,
    directions,
    first_states,
    fused,
    laid_out,
    loop,
)
from redtest_onnx.bridge.registry import operator


@operator("RNN", since=7, weights=(1, 2, 3), fixed=(4, 5))
def rnn(
    x: Tensor,
    weight: Tensor,
    recurrence: Tensor,
    bias: Tensor | None = None,
    lengths: Tensor | None = None,
    hidden: Tensor | None = None,
    *,
    activations: Sequence[str] = (),
    activation_alpha: Sequence[float] = (),
    activation_beta: Sequence[float] = (),
    clip: float | None = None,
    direction: str,
    hidden_size: int = 0,
    layout: int = 0,
) -> tuple[Tensor, ...]:
    """Elman network; see `lstm` for shapes."""
    names = tuple(activations) or ("Tanh",) * weight.shape[0]
    functions = activation_functions(names, activation_alpha, activation_beta)
    sides = directions(weight, recurrence, bias, None, direction, functions)
    states = first_states([hidden], weight, recurrence.shape[-1], x, layout)
    x = x.transpose(0, 1) if layout else x

    def cell(side: Direction, gate: Tensor, now: States) -> States:
        total = gate + functional.linear(now[0], side.recurrence, side.recurrence_bias)
        return (side.activations[0](clipped(total, clip)),)

    if lengths is None and clip is None and set(names) == {"Tanh"}:
        return laid_out(fused(torch.rnn_tanh, sides, x, states), layout)
    return laid_out(loop(cell, sides, x, states, lengths), layout)


@operator("GRU", since=7, weights=(1, 2, 3), fixed=(4, 5))
def gru(
    x: Tensor,
    weight: Tensor,
    recurrence: Tensor,
    bias: Tensor | None = None,
    lengths: Tensor | None = None,
    hidden: Tensor | None = None,
    *,
    activations: Sequence[str] = (),
    activation_alpha: Sequence[float] = (),
    activation_beta: Sequence[float] = (),
    clip: float | None = None,
    direction: str,
    hidden_size: int = 0,
    layout: int = 0,
    linear_before_reset: int = 0,
) -> tuple[Tensor, ...]:
    """Gated recurrent unit with the gates update, reset, hidden (Cho et al. 2014); see `lstm` for shapes."""
    defaults = ("Sigmoid", "Tanh") * weight.shape[0]
    names = tuple(activations) or defaults
    functions = activation_functions(names, activation_alpha, activation_beta)
    sides = directions(weight, recurrence, bias, None, direction, functions)
    states = first_states([hidden], weight, recurrence.shape[-1], x, layout)
    x = x.transpose(0, 1) if layout else x

    def cell(side: Direction, gate: Tensor, now: States) -> States:
        (h,) = now
        sizes = [2 * h.shape[-1], h.shape[-1]]
        gate_zr, gate_h = torch.split(gate, sizes, -1)
        weight_zr, weight_h = torch.split(side.recurrence, sizes)
        bias = side.recurrence_bias
        bias_zr, bias_h = (None, None) if bias is None else torch.split(bias, sizes)
        f, g = side.activations
        update, reset = f(clipped(gate_zr + functional.linear(h, weight_zr, bias_zr), clip)).chunk(2, -1)
        if linear_before_reset:
            inner = reset * functional.linear(h, weight_h, bias_h)
        else:
            inner = functional.linear(reset * h, weight_h, bias_h)
        return ((1 - update) * g(clipped(gate_h + inner, clip)) + update * h,)

    if lengths is None and clip is None and names == defaults and linear_before_reset:
        return laid_out(fused(torch.gru, [side.reordered((1, 0, 2)) for side in sides], x, states), layout)
    return laid_out(loop(cell, sides, x, states, lengths), layout)


@operator("LSTM", since=7, weights=(1, 2, 3, 7), fixed=(4, 5, 6))
def lstm(
    x: Tensor,
    weight: Tensor,
    recurrence: Tensor,
    bias: Tensor | None = None,
    lengths: Tensor | None = None,
    hidden: Tensor | None = None,
    memory: Tensor | None = None,
    peepholes: Tensor | None = None,
    *,
    activations: Sequence[str] = (),
    activation_alpha: Sequence[float] = (),
    activation_beta: Sequence[float] = (),
    clip: float | None = None,
    direction: str,
    hidden_size: int = 0,
    input_forget: int = 0,
    layout: int = 0,
) -> tuple[Tensor, ...]:
    """Long short-term memory with the gates input, output, forget, cell (Hochreiter and Schmidhuber 1997).

    Args:
        x: [steps, batch, inputs]; batch first where `layout` is set, also in the states and results.
        weight: [directions, 4 H, inputs].
        recurrence: [directions, 4 H, H].
        bias: [directions, 8 H], that of the inputs before that of the recurrence.
        lengths: steps of each sample, [batch].
        hidden: first hidden state, [directions, batch, H].
        memory: first cell state, [directions, batch, H].
        peepholes: weights from the cell to the gates input, output, forget, [directions, 3 H].

    Returns:
        Hidden states [steps, directions, batch, H], the last ones and the last cell states.
    """
    defaults = ("Sigmoid", "Tanh", "Tanh") * weight.shape[0]
    names = tuple(activations) or defaults
    functions = activation_functions(names, activation_alpha, activation_beta)
    sides = directions(weight, recurrence, bias, peepholes, direction, functions)
    states = first_states([hidden, memory], weight, recurrence.shape[-1], x, layout)
    x = x.transpose(0, 1) if layout else x

    def cell(side: Direction, gate: Tensor, now: States) -> States:
        h, c = now
        total = gate + functional.linear(h, side.recurrence, side.recurrence_bias)
        i, o, forget, new = total.chunk(4, -1)
        f, g, squash = side.activations
        peep_i, peep_o, peep_f = (0.0, 0.0, 0.0) if side.peepholes is None else side.peepholes.chunk(3)
        i = f(clipped(i + peep_i * c, clip))
        forget = 1 - i if input_forget else f(clipped(forget + peep_f * c, clip))
        c = forget * c + i * g(clipped(new, clip))
        return f(clipped(o + peep_o * c, clip)) * squash(c), c

    plain = lengths is None and clip is None and peepholes is None and not input_forget
    if plain and names == defaults:
        sides = [side.reordered((0, 2, 3, 1)) for side in sides]
        return laid_out(fused(torch.lstm, sides, x, states), layout)
    return laid_out(loop(cell, sides, x, states, lengths), layout)
