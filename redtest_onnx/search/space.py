"""What a search space is: named choices that spell architectures, and a network for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from redtest_onnx.errors import InputError

if TYPE_CHECKING:
    from torch import nn

ENTRY_POINTS = "redtest_onnx.spaces"

Choices = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class ImageTask:
    """What the networks of a space are for.

    Attributes:
        channels: of an input image.
        size: height and width of an input image.
        classes: number of classes.
    """

    channels: int = 3
    size: int = 32
    classes: int = 10


@runtime_checkable
class Enumerable(Protocol):
    """A space that holds some architectures and no others, and draws among them itself."""

    @property
    def names(self) -> tuple[str, ...]:
        """All of them."""

    def sample(self, rng: np.random.Generator) -> str:
        """Any of them, all alike."""

    def mutate(self, architecture: str, rng: np.random.Generator) -> str:
        """Another one that is like a given one."""


class Architectures(Protocol):
    """What is known of an architecture by its name, and its network."""

    def key(self, architecture: str) -> str:
        """The same text for architectures that are the same network."""

    def depth(self, architecture: str) -> int | None:
        """Number of operators with weights on the longest way through the network; None where unknown."""

    def build(self, architecture: str, task: ImageTask) -> nn.Module:
        """The untrained network.

        Its `forward` takes images [n, channels, size, size] and returns logits [n, classes]; `layers(x)`
        returns the logits and a list of the activations whose similarity is measured.
        """


class Space(Architectures, Protocol):
    """A search space. Architectures are strings; each is spelled by one value per named choice.

    Others bring theirs through the entry point group `redtest_onnx.spaces`, as an object or a callable
    without arguments that returns one.
    """

    @property
    def name(self) -> str:
        """What the command line calls it."""

    @property
    def choices(self) -> Choices:
        """Every decision with its values."""

    def spell(self, values: Mapping[str, str]) -> str:
        """The architecture that the values of all choices make."""

    def parse(self, architecture: str) -> dict[str, str]:
        """The values that spell an architecture.

        Raises:
            InputError: it is none of this space.
        """


def get_space(name: str) -> Space:
    """A space by its name.

    Raises:
        InputError: there is none of that name.
    """
    from redtest_onnx.search.size import SizeSpace
    from redtest_onnx.search.topology import TopologySpace

    if (topology := TopologySpace.named(name)) is not None:
        return topology
    if name == SizeSpace().name:
        return SizeSpace()
    found = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if name not in found:
        known = ", ".join(["topology", "topology-WIDTHxCELLS", "size", *found])
        raise InputError(
            f"there is no search space called {name!r}",
            hint=f"known are {known}; yours registers as entry point {ENTRY_POINTS}",
        )
    loaded = found[name].load()
    space: Space = loaded() if callable(loaded) else loaded
    return space


def sample(space: Space, rng: np.random.Generator) -> str:
    """An architecture with every choice drawn uniformly."""
    if isinstance(space, Enumerable):
        return space.sample(rng)
    return space.spell({name: values[rng.integers(len(values))] for name, values in space.choices.items()})


def mutate(space: Space, architecture: str, rng: np.random.Generator) -> str:
    """The architecture with one choice drawn anew among its other values."""
    if isinstance(space, Enumerable):
        return space.mutate(architecture, rng)
    values = space.parse(architecture)
    open_choices = [name for name, options in space.choices.items() if len(options) > 1]
    name = open_choices[rng.integers(len(open_choices))]
    others = [option for option in space.choices[name] if option != values[name]]
    return space.spell({**values, name: others[rng.integers(len(others))]})
