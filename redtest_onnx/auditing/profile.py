"""Profiles: what a deployment target can do and what it allows."""

from __future__ import annotations

from datetime import date
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from redtest_onnx.auditing.findings import Severity


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
