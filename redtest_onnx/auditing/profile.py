"""Profiles: what a deployment target can do and what it allows, as TOML."""

from __future__ import annotations

import re
import tomllib
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from redtest_onnx.auditing.findings import Severity
from redtest_onnx.errors import InputError
from redtest_onnx.graph.reading import read_text

DEFAULT = "onnxruntime-cpu"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DeploymentTarget(_Part):
    """Where the model will run.

    Attributes:
        runtime: what executes it.
        provider: the execution provider or compiler that should take it.
        max_opset: newest operator set of the default domain.
        max_ir: newest IR version.
        support: table of the installed onnxruntime that lists the provider's operators.
        operators: its operators, if they are listed here; qualified by domain outside the default one.
        types: element types it computes with, as ONNX calls them, such as "float".
        fixed_shapes: it needs every dimension to be known.
        control_flow: it runs If, Loop and Scan.
        fallback: what it can't do runs on the CPU, or nowhere.
        required_operators: configuration of a reduced ONNX Runtime build, relative to the profile.
    """

    runtime: str = "onnxruntime"
    provider: str = "cpu"
    max_opset: int | None = Field(default=None, ge=1)
    max_ir: int | None = Field(default=None, ge=1)
    support: Literal["nnapi", "coreml_mlprogram", "coreml_neuralnetwork"] | None = None
    operators: tuple[str, ...] | None = None
    types: tuple[str, ...] | None = None
    fixed_shapes: bool = False
    control_flow: bool = True
    fallback: Literal["cpu", "none"] = "cpu"
    required_operators: str | None = None


class Budgets(_Part):
    """Upper limits; what is not given is not limited.

    Attributes:
        file_mb: file with external data, 10^6 bytes.
        weights_mb: stored values, 10^6 bytes.
        activations_mb: activations of one sample at their peak, 10^6 bytes.
        memory_mb: stored values and activations together, 10^6 bytes.
        macs_m: multiply-accumulates of one sample, in millions.
        latency_ms: median of one sample on this machine, one thread.
        cold_start_ms: loading the model and its first run on this machine.
        msrs: redundancy score.
        fallback_share: share of nodes that the target's provider leaves to the CPU.
        partitions: pieces the graph is cut into by that.
    """

    file_mb: float | None = Field(default=None, gt=0)
    weights_mb: float | None = Field(default=None, gt=0)
    activations_mb: float | None = Field(default=None, gt=0)
    memory_mb: float | None = Field(default=None, gt=0)
    macs_m: float | None = Field(default=None, gt=0)
    latency_ms: float | None = Field(default=None, gt=0)
    cold_start_ms: float | None = Field(default=None, gt=0)
    msrs: float | None = Field(default=None, ge=0)
    fallback_share: float | None = Field(default=None, ge=0, le=1)
    partitions: int | None = Field(default=None, ge=1)


class Operators(_Part):
    """Operators that must not or must be there, qualified by domain outside the default one."""

    forbidden: tuple[str, ...] = ()
    required: tuple[str, ...] = ()


class Suppression(_Part):
    """A finding that is accepted, for a reason and perhaps for a time.

    Attributes:
        rule: id of the rule.
        where: glob over the nodes and tensors of the finding; all if absent.
        reason: why it is accepted.
        expires: the day from which on it counts again.
    """

    rule: str = Field(pattern=r"^RT\d{3}$")
    where: str = "*"
    reason: str = Field(min_length=1)
    expires: date | None = None


class Profile(_Part):
    """A deployment target with its limits.

    Attributes:
        name: what reports call it.
        description: for whom it is.
        sources: where its facts come from.
        target: what the target can do.
        budgets: what it allows.
        operators: operators that must not or must be there.
        severities: how bad findings of a rule are here; "off" leaves the rule out.
        suppress: findings that are accepted.
    """

    name: str
    description: str = ""
    sources: tuple[str, ...] = ()
    target: DeploymentTarget = DeploymentTarget()
    budgets: Budgets = Budgets()
    operators: Operators = Operators()
    severities: dict[str, Severity | Literal["off"]] = Field(default_factory=dict)
    suppress: tuple[Suppression, ...] = ()


def shipped() -> tuple[str, ...]:
    """Names of the profiles that come with the package."""
    folder = files("redtest_onnx.auditing") / "profiles"
    return tuple(sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml")))


def load_profile(name: str) -> Profile:
    """Read a profile: a shipped one by name, or a TOML file by path.

    Raises:
        InputError: there is none, it is not TOML, or a value is wrong; the message names the line.
    """
    if name in shipped():
        text = (files("redtest_onnx.auditing") / "profiles" / f"{name}.toml").read_text(encoding="utf-8")
        return _parse(text, name, None)
    path = Path(name)
    try:
        text = read_text(path)
    except InputError as error:
        raise InputError(
            f"can't be read as a profile ({error.what})",
            where=name,
            hint=f"a TOML file, or one of {', '.join(shipped())}",
        ) from error
    return _parse(text, name, path.parent)


def _parse(text: str, label: str, folder: Path | None) -> Profile:
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, ValueError, RecursionError) as error:
        raise InputError(f"is not TOML: {error}", where=label) from error
    try:
        profile = Profile.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        line = _line_of(text, first["loc"])
        where = label if line is None else f"{label}, line {line}"
        raise InputError(f"{place or 'the profile'}: {first['msg']}", where=where) from error
    required = profile.target.required_operators
    if required is not None:
        path = _below(folder, required, label)
        absolute = profile.target.model_copy(update={"required_operators": str(path)})
        profile = profile.model_copy(update={"target": absolute})
    return profile


def _below(folder: Path | None, name: str, label: str) -> Path:
    """A file that a profile names: beside it or below, links resolved; a profile may come from anywhere.

    Raises:
        InputError: it lies elsewhere.
    """
    try:
        if folder is not None and (folder / name).resolve().is_relative_to(folder.resolve()):
            return folder / name
    except (OSError, ValueError, RuntimeError):  # no name of a file
        pass
    raise InputError(
        "target.required_operators lies outside the profile's folder",
        where=label,
        hint="copy the file beside the profile",
    )


def _line_of(text: str, loc: tuple[Any, ...]) -> int | None:
    """The line of the innermost key of a location that the text names."""
    keys = [part for part in loc if isinstance(part, str)]
    repeats = next((part for part in loc if isinstance(part, int)), 0)
    table: list[str] = []
    seen = -1
    best: int | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        header = re.match(r"\s*\[+\s*([^\]]+?)\s*\]+", line)
        if header:
            table = header.group(1).split(".")
            seen += table == keys[: len(table)] and line.lstrip().startswith("[[")
            if table == keys[: len(table)] and (seen in (-1, repeats)):
                best = number
            continue
        key = re.match(r"\s*([\w-]+|\"[^\"]*\")\s*=", line)
        if key and [*table, key.group(1).strip('"')] == keys[: len(table) + 1] and seen in (-1, repeats):
            return number
    return best
