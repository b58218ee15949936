"""The kinds of outputs, and how a user names one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from redtest_onnx.errors import InputError
from redtest_onnx.metrics.agreement.next_token import Scale

Kind = Literal[
    "classes", "dense", "tokens", "next-token", "embedding", "values", "detections", "elements", "ignore"
]
"""What an output holds:

- "classes": class scores [N, C]; "dense": per position of an image or volume [N, C, H, W]; "tokens": per
  token or time step [N, T, C]; "next-token": those of a decoder.
- "embedding": one vector per sample.
- "values": numbers as they are: regression, boxes, masks, sound, hidden states.
- "detections": rows whose number depends on values.
- "elements": labels, indices, strings, truth values, lists and tables of anything.
- "ignore": not judged.
"""
KINDS: tuple[Kind, ...] = get_args(Kind)
SCORES: frozenset[Kind] = frozenset({"classes", "dense", "tokens", "next-token"})
"""The kinds with an axis of classes."""


@dataclass(frozen=True)
class JudgedTensor:
    """A tensor that is compared between two models.

    Attributes:
        name: of the tensor: the output, or one in front of it.
        kind: how it is compared.
        axis: of the classes; None for other kinds.
        sample_axis: of the samples; None where no axis grows with their number, -1 where a model takes one
            sample a run and all of the tensor is that sample's.
        mask: model input whose zeros (of [N, T]), or lengths (of [N]), leave positions out; None: all count.
        pad: the value of that input that leaves positions out where it holds token ids; None for masks.
        scale: whether class scores are logits or probabilities.
        reader: first output of a node that reads the tensor, and the position: what that node reads in a
            model where the tensor is gone is compared instead. None for outputs, which keep their names.
        columns: part of the axis behind `column_axis` that is compared; None: all.
        column_axis: of `columns`.
    """

    name: str
    kind: Kind
    axis: int | None = None
    sample_axis: int | None = 0
    mask: str | None = None
    scale: Scale = "logits"
    reader: tuple[str, int] | None = None
    columns: tuple[int, int] | None = None
    column_axis: int = 0
    pad: int | None = None


@dataclass(frozen=True)
class ModelOutput:
    """One output of a model.

    Attributes:
        name: of the output.
        kind: what it holds.
        axis: of the classes; None for other kinds.
        why: what told the kind, in words.
        tensors: what is compared for it: itself, or the tensors in front of its data-dependent part.
        steers: whether its agreement counts in the verdict.
        sets: whether rows are compared as sets, too.
        layers_behind: whether layers lie behind the tensors compared, so that they do not tell all.
        note: what a user should know; None if nothing.
    """

    name: str
    kind: Kind
    axis: int | None
    why: str
    tensors: tuple[JudgedTensor, ...]
    steers: bool = True
    sets: bool = False
    layers_behind: bool = False
    note: str | None = None

    def document(self) -> dict[str, object]:
        """The output as JSON."""
        return {
            "name": self.name,
            "kind": self.kind,
            "axis": self.axis,
            "why": self.why,
            "steers": self.steers,
            "tensors": [tensor.name for tensor in self.tensors],
            "note": self.note,
        }


@dataclass(frozen=True)
class OutputKind:
    """What a user says of an output.

    Attributes:
        kind: see `Kind`.
        axis: of the classes, for kinds that have one; None: found, or the usual one.

    Raises:
        InputError: no such kind, or an axis for a kind without classes.
    """

    kind: Kind
    axis: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(
                f"there is no kind of output {self.kind!r}", hint=f"kinds are {', '.join(KINDS)}"
            )
        if self.axis is not None and self.kind not in SCORES:
            raise InputError(
                f"an output of kind {self.kind!r} has no axis of classes, but axis {self.axis} was given",
                hint=f"kinds with an axis of classes are {', '.join(k for k in KINDS if k in SCORES)}",
            )


def parse_output_kind(text: str) -> tuple[str, OutputKind]:
    """Read NAME=KIND or NAME=KIND:AXIS.

    Raises:
        InputError: not of that form, no such kind, or an axis where there is none.
    """
    name, equals, rest = text.rpartition("=")
    kind, colon, axis = rest.partition(":")
    form = "NAME=KIND or NAME=KIND:AXIS, such as logits=dense:1"
    if not equals or not name:
        raise InputError(f"{text!r} does not say what an output is", hint=form)
    try:
        number = int(axis) if colon else None
    except ValueError:
        raise InputError(f"{axis!r} in {text!r} is not the number of an axis", hint=form) from None
    return name, OutputKind(kind, number)  # type: ignore[arg-type]


def check_output_kinds(kinds: Mapping[str, OutputKind], ranks: Mapping[str, int | None]) -> None:
    """Hold what a user says against the model's outputs.

    Args:
        kinds: by output.
        ranks: of the outputs; None where unknown.

    Raises:
        InputError: no such output, or no such axis.
    """
    for name, said in kinds.items():
        if name not in ranks:
            raise InputError(f"the model has no output {name!r}", hint=f"outputs are {', '.join(ranks)}")
        rank = ranks[name]
        if said.axis is not None and rank is not None and not -rank <= said.axis < rank:
            raise InputError(
                f"output {name!r} has {rank} axes, there is no axis {said.axis}",
                hint=f"axes are {-rank} to {rank - 1}",
            )
