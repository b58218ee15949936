"""A size space: residual networks whose stages differ in depth and width."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from redtest_onnx.errors import InputError
from redtest_onnx.search.space import ImageTask

if TYPE_CHECKING:
    from torch import nn

_STAGE = re.compile(r"(\d+)x(\d+)")


@dataclass(frozen=True)
class SizeSpace:
    """Three stages of residual blocks, spelled `blocks x width` per stage: `2x16-4x32-1x64`.

    Attributes:
        depths: how many blocks a stage may have.
        widths: how many channels a stage may have.
    """

    depths: tuple[int, ...] = (1, 2, 3, 4, 6, 9)
    widths: tuple[int, ...] = (8, 16, 24, 32, 48, 64)

    @property
    def name(self) -> str:
        """`size`."""
        return "size"

    @property
    def choices(self) -> dict[str, tuple[str, ...]]:
        """Blocks and channels of each stage."""
        blocks, channels = tuple(map(str, self.depths)), tuple(map(str, self.widths))
        return {
            f"{what}{stage}": blocks if what == "depth" else channels
            for stage in (1, 2, 3)
            for what in ("depth", "width")
        }

    def spell(self, values: Mapping[str, str]) -> str:
        """The stages as text."""
        return "-".join(f"{values[f'depth{k}']}x{values[f'width{k}']}" for k in (1, 2, 3))

    def parse(self, architecture: str) -> dict[str, str]:
        """Blocks and channels of each stage.

        Raises:
            InputError: not three stages, or a depth or width that the space does not have.
        """
        stages = [_STAGE.fullmatch(part) for part in architecture.strip().split("-")]
        if len(stages) != 3 or not all(stages):
            raise _refusal(architecture, "it must read like 2x16-4x32-1x64")
        values: dict[str, str] = {}
        for k, stage in enumerate(stages, start=1):
            assert stage is not None
            values[f"depth{k}"], values[f"width{k}"] = str(int(stage[1])), str(int(stage[2]))
        for name, options in self.choices.items():
            if values[name] not in options:
                raise _refusal(architecture, f"{name} is {values[name]}, it can be {', '.join(options)}")
        return values

    def key(self, architecture: str) -> str:
        """The architecture itself: no two are the same network."""
        return self.spell(self.parse(architecture))

    def depth(self, architecture: str) -> int:
        """The first convolution and two per block."""
        values = self.parse(architecture)
        return 1 + 2 * sum(int(values[f"depth{k}"]) for k in (1, 2, 3))

    def build(self, architecture: str, task: ImageTask) -> nn.Module:
        """The residual network."""
        from redtest_onnx.search.networks.residual import ResidualNetwork

        values = self.parse(architecture)
        return ResidualNetwork(
            [(int(values[f"depth{k}"]), int(values[f"width{k}"])) for k in (1, 2, 3)], task
        )


def _refusal(architecture: str, why: str) -> InputError:
    return InputError(f"{architecture!r} is no network of the size space: {why}")
