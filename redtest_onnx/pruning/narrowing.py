"""What a plan makes of inner widths: the narrower model, and which channels its tensors still hold."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from redtest_onnx.graph.channel_edits import keep_channels, take_channels
from redtest_onnx.graph.inner_widths import inner_widths
from redtest_onnx.graph.model import Model
from redtest_onnx.pruning.plan import Plan

TakeChannels = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]


def narrowed(model: Model, plan: Plan) -> Model:
    """The model with the channels that a plan keeps of its inner widths.

    Raises:
        InputError: there are no such inner widths.
    """
    return keep_channels(model, kept_channels(plan)) if plan.widths else model


def kept_channels(plan: Plan) -> dict[str, npt.NDArray[np.int64]]:
    """The channels that a plan keeps, by inner width."""
    return {narrowing.width: np.array(narrowing.kept, np.int64) for narrowing in plan.widths}


def taken_channels(model: Model, plan: Plan) -> dict[str, TakeChannels]:
    """What takes the channels that a plan keeps, for each tensor that holds those of an inner width.

    Args:
        model: the model before channels went.
        plan: which stay.
    """
    if not plan.widths:
        return {}
    kept = kept_channels(plan)
    return {
        name: partial(take_channels, place=place, channels=width.channels, kept=kept[width.name])
        for width in inner_widths(model).found
        if width.name in kept
        for name, place in width.tensors.items()
    }
