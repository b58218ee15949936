"""Which function computes an ONNX operator: a registry by domain, name and the version it exists since."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypedDict, TypeVar, Unpack

import torch

Kernel = Callable[..., Any]
K = TypeVar("K", bound=Kernel)

DEFAULT_DOMAIN = ""
MICROSOFT = "com.microsoft"

# Keyword-only parameters of a kernel that are no attributes: the program fills them.
OUTPUTS = "outputs"
CONTEXT = "context"
CAPTURED = "captured"


@dataclass(frozen=True)
class ConversionContext:
    """What kernels may know about the run they are part of.

    Attributes:
        training: whether dropout is active.
        batch_statistics: whether batch normalisation uses and tracks the statistics of the batch.
        device: where kernels without tensor inputs make their results.
    """

    training: bool
    batch_statistics: bool
    device: torch.device


@dataclass(frozen=True)
class KernelEntry:
    """One operator as of one version.

    The kernel takes the operator's inputs by position (None where omitted) and its attributes by keyword;
    it returns the only output, or a tuple.

    Attributes:
        domain: operator domain; empty for the default one.
        name: operator type.
        since: first version of the operator set with this signature and meaning.
        kernel: computes it.
        weights: inputs that hold trained weights by the operator's definition.
        fixed: inputs that are settings or states and never trained.
        numbers: inputs the kernel takes as Python numbers or lists of them; fixed as well.
        differentiable: whether gradients pass.
        pure: whether equal inputs give equal outputs without side effects.
    """

    domain: str
    name: str
    since: int
    kernel: Kernel
    weights: frozenset[int]
    fixed: frozenset[int]
    numbers: frozenset[int]
    differentiable: bool
    pure: bool

    @cached_property
    def keywords(self) -> dict[str, inspect.Parameter]:
        """Keyword-only parameters of the kernel by name; none for functions written in C."""
        try:
            parameters = inspect.signature(self.kernel).parameters
        except ValueError:
            return {}
        return {name: p for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY}


_OPERATORS: dict[tuple[str, str], dict[int, KernelEntry]] = {}


class Traits(TypedDict, total=False):
    """What is said of an operator beside its name; see `KernelEntry`."""

    weights: Collection[int]
    fixed: Collection[int]
    numbers: Collection[int]
    differentiable: bool
    pure: bool


def operator(
    name: str, *, since: int = 1, domain: str = DEFAULT_DOMAIN, **traits: Unpack[Traits]
) -> Callable[[K], K]:
    """Register the decorated function as the kernel of an operator; see `KernelEntry` for the arguments."""
    numbers = frozenset(traits.get("numbers", ()))

    def register(kernel: K) -> K:
        _OPERATORS.setdefault((domain, name), {})[since] = KernelEntry(
            domain,
            name,
            since,
            kernel,
            frozenset(traits.get("weights", ())),
            frozenset(traits.get("fixed", ())) | numbers,
            numbers,
            traits.get("differentiable", True),
            traits.get("pure", True),
        )
        return kernel

    return register


def find(domain: str, name: str, version: int) -> KernelEntry | None:
    """The newest registered form of an operator that operator set `version` can mean, or None."""
    forms = _OPERATORS.get((normalised(domain), name), {})
    since = max((v for v in forms if v <= version), default=None)
    return None if since is None else forms[since]


def versions(domain: str, name: str) -> tuple[int, ...]:
    """The versions an operator is registered with, oldest first; empty for unknown operators."""
    return tuple(sorted(_OPERATORS.get((normalised(domain), name), {})))


def registered() -> tuple[KernelEntry, ...]:
    """All registered operators by domain, name and version."""
    return tuple(forms[since] for _, forms in sorted(_OPERATORS.items()) for since in sorted(forms))


def normalised(domain: str) -> str:
    """The domain with the two spellings of the default one made equal."""
    return DEFAULT_DOMAIN if domain == "ai.onnx" else domain
