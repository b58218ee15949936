"""What an audit says: problems, where they are, how bad they are and what to do."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Problem:
    """What a rule finds: one cause with all the places it shows at.

    Attributes:
        message: what is wrong, in a sentence.
        cause: what tells this problem from others of the same rule, whatever the numbers in the message.
        nodes: names of the nodes concerned.
        tensors: names of the tensors concerned.
        fix: what to do here, where that differs from the rule's general advice.
    """

    message: str
    cause: str = ""
    nodes: tuple[str, ...] = ()
    tensors: tuple[str, ...] = ()
    fix: str | None = None


@dataclass(frozen=True)
class Finding:
    """A problem as the profile judges it.

    Attributes:
        rule: id of the rule, such as "RT021".
        name: the rule's name.
        severity: "error", "warning" or "note".
        message: what is wrong.
        nodes: names of the nodes concerned.
        tensors: names of the tensors concerned.
        fix: what to do; a command where one does it.
        fingerprint: the same for the same cause in the same model, across versions of its numbers.
        suppressed: the reason it was suppressed for; None if it counts.
    """

    rule: str
    name: str
    severity: Severity
    message: str
    nodes: tuple[str, ...]
    tensors: tuple[str, ...]
    fix: str
    fingerprint: str
    suppressed: str | None = None


def fingerprint(rule: str, cause: str) -> str:
    """A stable name for a problem, for baselines and code scanning."""
    return hashlib.sha256(f"{rule}\n{cause}".encode("utf-8", "surrogatepass")).hexdigest()[:32]
