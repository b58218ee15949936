"""Rules: each is one function with one registration."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module

from redtest_onnx.auditing.findings import Problem, Severity
from redtest_onnx.auditing.subject import Subject

Check = Callable[[Subject], Iterable[Problem]]
_TOPICS = ("validity", "target", "provider", "weights", "numerics", "budgets", "hygiene")


@dataclass(frozen=True)
class Rule:
    """A check with what people need to know about it.

    Attributes:
        id: stable, "RT" and three digits.
        name: stable, words with dashes.
        severity: how bad a finding is unless the profile says otherwise.
        explanation: why it matters.
        fix: what to do.
        check: the function that looks.
        runs: whether it needs the model to run.
    """

    id: str
    name: str
    severity: Severity
    explanation: str
    fix: str
    check: Check
    runs: bool


_RULES: dict[str, Rule] = {}


def rule(
    id_: str, name: str, severity: Severity, *, explanation: str, fix: str, runs: bool = False
) -> Callable[[Check], Check]:
    """Register a function as a rule; see `Rule` for the arguments."""

    def register(check: Check) -> Check:
        _RULES[id_] = Rule(id_, name, severity, explanation, fix, check, runs)
        return check

    return register


def rules() -> tuple[Rule, ...]:
    """All rules in the order of their ids."""
    for topic in _TOPICS:
        import_module(f"redtest_onnx.auditing.rules.{topic}")
    return tuple(_RULES[id_] for id_ in sorted(_RULES))
