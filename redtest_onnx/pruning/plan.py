"""A plan: which layers go and how; made from an analysis, or read from a file that a person edited."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from redtest_onnx.documents.base import Document
from redtest_onnx.documents.result import Result
from redtest_onnx.errors import InputError, with_arguments
from redtest_onnx.graph.inner_widths import inner_widths
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.reading import read_json
from redtest_onnx.layers.granularity import Granularity
from redtest_onnx.layers.layer import Layer, SubLayer
from redtest_onnx.runtime.workbench import Workbench


@dataclass(frozen=True)
class Step:
    """One layer to take out.

    Attributes:
        region: name of the layer.
        input: the activation that takes its place.
        tensor: the activation whose readers are redirected.
        action: "bypass", or "adapter" where the shapes differ.
        score: what the criterion gave it; None if unknown.
        parameters: learned values that go, less those of an adapter.
        macs: multiply-accumulates per sample that go, likewise; None if unknown.
        parts: the sub-layers that go with a transformer's block; empty for other layers.
    """

    region: str
    input: str
    tensor: str
    action: str
    score: float | None
    parameters: int
    macs: int | None
    parts: tuple[SubLayer, ...] = ()

    @classmethod
    def of(cls, layer: Layer, score: float | None = None) -> Step:
        """The step that removes a layer.

        Raises:
            InputError: the layer can't go, with its reason.
        """
        if layer.action is None or layer.input is None:
            raise InputError(f"layer {layer.name!r} can't be removed: {layer.reason}")
        return cls(
            layer.name,
            layer.input,
            layer.exit,
            layer.action,
            score if score is not None and math.isfinite(score) else None,
            layer.parameters - layer.added_parameters,
            None if layer.macs is None else layer.macs - layer.added_macs,
            layer.parts if layer.kind == "block" else (),
        )


@dataclass(frozen=True)
class Narrowing:
    """One inner width that loses channels; no shape outside changes.

    Attributes:
        width: name of the first operator that makes the channels.
        channels: how many there were.
        kept: indices of those that stay, in rising order.
        price: squared relative error of the outputs that was reckoned for it; None if unknown.
        parameters: learned values that go.
        macs: multiply-accumulates per sample that go; None if unknown.
    """

    width: str
    channels: int
    kept: tuple[int, ...]
    price: float | None = None
    parameters: int | None = None
    macs: int | None = None

    @property
    def removed(self) -> int:
        """Number of channels that go."""
        return self.channels - len(self.kept)


@dataclass(frozen=True, repr=False)
class Plan(Result):
    """The steps for one model, in the order of the graph.

    Attributes:
        criterion: what chose the steps.
        model_sha256: digest of the file the plan was made for.
        steps: the layers to take out.
        reason: why nothing goes and what to try, arguments marked by @; None where something goes.
        widths: inner widths of the layers that stay, with the channels they keep.
    """

    criterion: str
    model_sha256: str
    steps: tuple[Step, ...]
    reason: str | None = None
    widths: tuple[Narrowing, ...] = ()

    @property
    def unit(self) -> str:
        """What the steps are: "block" where all are blocks of a transformer, else "layer"."""
        return "block" if self.steps and all(step.parts for step in self.steps) else "layer"

    @property
    def empty(self) -> bool:
        """Whether nothing goes."""
        return not self.steps and not self.widths

    def granularity(self, bench: Workbench) -> Granularity | None:
        """How much its layers hold; None where they are not all of one granularity, or not of this model."""
        return granularity_of(bench, [(step.region, step.input, step.tensor) for step in self.steps])

    def summary(self) -> str:
        """Number of steps and what they save."""
        if self.reason is not None:
            return f"nothing to remove: {with_arguments(self.reason)}"
        parameters = sum(step.parameters for step in self.steps) + sum(w.parameters or 0 for w in self.widths)
        count = f"{len(self.steps)} {self.unit}{'s' * (len(self.steps) != 1)}"
        if self.widths:
            gone = sum(width.removed for width in self.widths)
            count += f" and {gone:,} channel{'s' * (gone != 1)} of {len(self.widths)} inner widths"
        return f"remove {count} with {parameters:,} parameters, by {self.criterion}"

    def to_dict(self) -> Document:
        """The plan as a person can edit it; `load_plan` reads what `save` writes."""
        fields = self.fields()
        criterion = fields.pop("criterion")
        return {"schema": SCHEMA, "criterion": criterion, "model_sha256": self.model_sha256, **fields}

    def fields(self) -> Document:
        """What it says of itself in any document; `widths` only where there are some."""
        found: Document = {"criterion": self.criterion, "steps": [asdict(step) for step in self.steps]}
        if self.widths:
            found["widths"] = [{**asdict(width), "kept": list(width.kept)} for width in self.widths]
        return found

    def records(self) -> list[dict[str, Any]]:
        """One entry per step."""
        return [asdict(step) for step in self.steps]


SCHEMA = "redtest-onnx/plan/1"


def load_plan(path: Path, model: Model, layers: Iterable[Layer], opened: Model | None = None) -> Plan:
    """Read a plan and hold it against the model.

    Steps need their `region` only; what else they say is taken from the model, which may have been
    measured anew.

    Args:
        path: the file.
        model: the model it is for.
        layers: its layers.
        opened: the model with what is folded up in it inlined, in which inner widths are found; the same if
            None.

    Raises:
        InputError: not a plan, made for another model, or with layers that are not there or can't go.
    """
    document = _read(path)
    if document.get("model_sha256") not in (None, model.sha256):
        raise InputError(
            f"was made for another model than {model.label}",
            where=str(path),
            hint="make a plan for this model with @plan",
        )
    by_name = {layer.name: layer for layer in layers}
    steps = []
    for k, entry in enumerate(document["steps"]):
        name = entry.get("region") if isinstance(entry, Mapping) else None
        layer = by_name.get(name) if isinstance(name, str) else None
        if layer is None:
            raise InputError(
                f"step {k} names {name!r}, which is no layer of {model.label}",
                where=str(path),
                hint="`inspect` lists the layers",
            )
        score = entry.get("score")
        steps.append((layer.index, Step.of(layer, score if isinstance(score, int | float) else None)))
    steps.sort(key=lambda pair: pair[0])
    widths = tuple(_narrowing(path, opened or model, entry) for entry in document.get("widths", ()))
    criterion = str(document.get("criterion", "plan"))
    return Plan(criterion, model.sha256, tuple(step for _, step in steps), widths=widths)


def granularity_of(
    bench: Workbench, steps: Sequence[tuple[str, str | None, str | None]], first: Granularity = "sub-layer"
) -> Granularity | None:
    """How much the layers of a plan hold; None where they are not all of one granularity.

    Args:
        bench: the model.
        steps: of the plan: name, input and last tensor; a block may be called like one of its sub-layers, so
            that tensors count where they are known.
        first: the granularity to try first.
    """
    granularities: tuple[Granularity, ...] = (first, *get_args(Granularity))
    for granularity in dict.fromkeys(granularities):
        named = {layer.name: (layer.input, layer.exit) for layer in bench.layers(granularity)}
        if all(
            name in named and all(own in (None, end) for own, end in zip(ends, named[name], strict=True))
            for name, *ends in steps
        ):
            return granularity
    return None


def saved_granularity(path: Path, bench: Workbench, first: Granularity = "sub-layer") -> Granularity:
    """As `granularity_of` for a plan in a file; `first` where its steps are not all of one granularity.

    Raises:
        InputError: not a plan.
    """
    steps = []
    for entry in _read(path)["steps"]:
        said = entry if isinstance(entry, Mapping) else {}
        name, start, end = (
            value if isinstance(value := said.get(key), str) else None
            for key in ("region", "input", "tensor")
        )
        if name is None:
            return first
        steps.append((name, start, end))
    return granularity_of(bench, steps, first) or first


def _narrowing(path: Path, model: Model, entry: Any) -> Narrowing:
    """One entry of `widths`, of which `width` and `kept` are needed."""
    name = entry.get("width") if isinstance(entry, Mapping) else None
    known = {width.name: width.channels for width in inner_widths(model).found}
    if not isinstance(name, str) or name not in known:
        raise InputError(
            f"`widths` names {name!r}, which is no inner width of {model.label}",
            where=str(path),
            hint="make a plan for this model with @width",
        )
    kept, channels = entry.get("kept"), known[name]
    integers = isinstance(kept, list) and all(type(k) is int and 0 <= k < channels for k in kept)
    if not integers or not kept or sorted(set(kept)) != kept:
        raise InputError(
            f"`kept` of {name!r} must be some of its {channels} channels, in rising order", where=str(path)
        )
    price, parameters, macs = (
        value if isinstance(value := entry.get(key), int | float) else None
        for key in ("price", "parameters", "macs")
    )
    return Narrowing(
        name,
        channels,
        tuple(kept),
        None if price is None else float(price),
        None if parameters is None else int(parameters),
        None if macs is None else int(macs),
    )


def _read(path: Path) -> dict[str, Any]:
    document: Any = read_json(path)
    if not isinstance(document, dict) or not isinstance(document.get("steps"), list):
        raise InputError("is not a plan: it has no list `steps`", where=str(path))
    if document.get("schema", SCHEMA) != SCHEMA:
        raise InputError(f"has schema {document['schema']!r}, not {SCHEMA!r}", where=str(path))
    return document
