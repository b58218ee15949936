"""What is counted when layers are removed, and what is said where so many can't go."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from redtest_onnx.errors import NegativeVerdictError
from redtest_onnx.layers.layer import Layer
from redtest_onnx.pruning.plan import Plan
from redtest_onnx.runtime.workbench import Workbench


def counted(layers: Sequence[Layer]) -> tuple[str, int]:
    """What a number of these layers counts, and how many there are: blocks where all that can go are some."""
    blocks = [layer for layer in layers if layer.kind == "block" and layer.parts]
    if blocks and all(layer.parts for layer in layers if layer.removable):
        return "block", len(blocks)
    return "layer", len(layers)


def removed_of(plan: Plan, layers: Sequence[Layer]) -> str:
    """How many of these layers a plan takes, such as "2 of 12 blocks"."""
    total = len(layers)
    if plan.unit == "block":
        total = sum(layer.kind == "block" and bool(layer.parts) for layer in layers)
    return f"{len(plan.steps)} of {total} {plan.unit}{'s' * (total != 1)}"


def too_many(
    bench: Workbench, count: int, possible: int, layers: Sequence[Layer], why: str = ""
) -> NegativeVerdictError:
    """Says that fewer layers can go than are asked for.

    Args:
        bench: the model.
        count: number of layers to remove.
        possible: how many can go.
        layers: all that were considered.
        why: more of the reason, behind a semicolon.
    """
    unit, total = counted(layers)
    if unit == "block":
        singly = "; @granularity=sub-layer counts attention and feed-forward one by one"
        where = "`inspect` with @granularity=block"
    else:
        singly, where = "", "`inspect`"
    return NegativeVerdictError(
        f"{f'1 {unit}' if count == 1 else f'{count} {unit}s'} can't be removed: {possible} of {total} can go",
        where=bench.label,
        hint=f"{where} gives the reason for each layer that stays{why}{singly}",
    )


def unfitted(layers: Sequence[Layer], allowed: Callable[[Layer], bool]) -> str:
    """Words for the layers that could go if there were data to fit something in their place."""
    count = sum(layer.removable and not allowed(layer) for layer in layers)
    if not count:
        return ""
    need = "1 needs" if count == 1 else f"{count} need"
    return f"; {need} an adapter: give samples to fit it to (@data), or say @repair=adapter"


def kept_by(layers: Sequence[Layer], protected: Callable[[Layer], bool]) -> str:
    """Words for the layers that could go if the user did not keep them."""
    count = sum(layer.removable and not protected(layer) for layer in layers)
    return f"; @protect keeps {count} that could go" if count else ""
