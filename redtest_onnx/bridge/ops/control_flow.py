"""If, Loop and Scan: Python decides, the bodies are programs of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from redtest_onnx.bridge.ops.numbers import single
from redtest_onnx.bridge.program import SubgraphProgram
from redtest_onnx.bridge.registry import ConversionContext, operator
from redtest_onnx.errors import InputError


@operator("If", numbers=(0,))
def if_(
    condition: bool | list[bool],
    *,
    then_branch: SubgraphProgram,
    else_branch: SubgraphProgram,
    captured: Mapping[str, Any],
    context: ConversionContext,
) -> tuple[Any, ...]:
    """Results of one branch or the other."""
    branch = then_branch if single(condition) else else_branch
    return tuple(branch((), captured, context))


@operator("Loop", numbers=(0, 1))
def loop(
    trips: int | list[int] | None,
    condition: bool | list[bool] | None,
    *carried: Any,
    body: SubgraphProgram,
    captured: Mapping[str, Any],
    context: ConversionContext,
) -> tuple[Any, ...]:
    """Repeat the body while its condition holds, at most `trips` times.

    Returns:
        The values carried from round to round, then what the body put out each round, stacked.
    """
    most = None if trips is None else single(trips)
    going = condition is None or bool(single(condition))
    state, rounds = list(carried), list[Sequence[Any]]()
    while going and (most is None or len(rounds) < most):
        number = torch.tensor(len(rounds), device=context.device)
        state_before = [number, torch.tensor(True, device=context.device), *state]
        again, *results = body(state_before, captured, context)
        going = bool(again)
        state = results[: len(state)]
        rounds.append(results[len(state) :])
    scans = len(body.program.results) - 1 - len(carried)
    return (*state, *(_stacked([row[i] for row in rounds], context) for i in range(scans)))


@operator("Scan", since=9)
def scan(
    *inputs: Tensor,
    body: SubgraphProgram,
    num_scan_inputs: int,
    scan_input_axes: Sequence[int] = (),
    scan_input_directions: Sequence[int] = (),
    scan_output_axes: Sequence[int] = (),
    scan_output_directions: Sequence[int] = (),
    captured: Mapping[str, Any],
    context: ConversionContext,
) -> tuple[Tensor, ...]:
    """Run the body over the slices of its scan inputs.

    Returns:
        The last state, then what the body put out for each slice, stacked.
    """
    split = len(inputs) - num_scan_inputs
    state = list(inputs[:split])
    axes = tuple(scan_input_axes) or (0,) * num_scan_inputs
    backwards = tuple(scan_input_directions) or (0,) * num_scan_inputs
    columns = [
        _ordered(list(x.unbind(axis)), back)
        for x, axis, back in zip(inputs[split:], axes, backwards, strict=True)
    ]
    rounds: list[Sequence[Any]] = []
    for slices in zip(*columns, strict=True):
        results = body([*state, *slices], captured, context)
        state = results[:split]
        rounds.append(results[split:])
    count = len(body.program.results) - split
    out_axes = tuple(scan_output_axes) or (0,) * count
    out_backwards = tuple(scan_output_directions) or (0,) * count
    stacked = (
        torch.stack(_ordered([row[i] for row in rounds], out_backwards[i]), out_axes[i]) for i in range(count)
    )
    return (*state, *stacked)


@operator("Scan", since=8)
def scan_8(
    lengths: Tensor | None,
    *inputs: Tensor,
    body: SubgraphProgram,
    num_scan_inputs: int,
    directions: Sequence[int] = (),
    captured: Mapping[str, Any],
    context: ConversionContext,
) -> tuple[Tensor, ...]:
    """Scan over the second axis of a batch, as in operator set 8; without sequence lengths."""
    if lengths is not None:
        raise InputError("a Scan of operator set 8 has sequence lengths", hint="export for operator set 9")
    samples = [
        scan(
            *(x[i] for x in inputs),
            body=body,
            num_scan_inputs=num_scan_inputs,
            scan_input_directions=directions,
            captured=captured,
            context=context,
        )
        for i in range(inputs[0].shape[0])
    ]
    return tuple(torch.stack(values) for values in zip(*samples, strict=True))


def _ordered(items: list[Any], backwards: int) -> list[Any]:
    return items[::-1] if backwards else items


def _stacked(items: list[Any], context: ConversionContext) -> Tensor:
    return torch.stack(items) if items else torch.empty(0, device=context.device)
