"""Baselines: findings that are known, so that only new ones fail; and what changed between two audits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redtest_onnx.errors import InputError
from redtest_onnx.graph.reading import read_json

SCHEMA = "redtest-onnx/audit/1"


@dataclass(frozen=True)
class Known:
    """Findings of an earlier audit: rule and message by model name and fingerprint."""

    findings: dict[tuple[str, str], str]

    def of(self, model: str) -> frozenset[str]:
        """Fingerprints known for a model, by the name of its file."""
        return frozenset(mark for name, mark in self.findings if name == model)


def read_baseline(path: Path) -> Known:
    """Read an audit's JSON document, of one model or of several.

    Raises:
        InputError: it can't be read, or is no audit.
    """
    document = read_json(path)
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise InputError(
            "is no audit", where=str(path), hint="write one with: redtest-onnx audit MODEL --json FILE"
        )
    try:
        return known_of(document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"is a damaged audit ({type(error).__name__}: {error})",
            where=str(path),
            hint="write it again with: redtest-onnx audit MODEL --json FILE",
        ) from error


def known_of(document: dict[str, Any]) -> Known:
    """The findings of an audit's JSON document, of one model or of several."""
    found: dict[tuple[str, str], str] = {}
    for one in document.get("audits", [document]):
        found.update(_findings(one))
    return Known(found)


@dataclass(frozen=True)
class Change:
    """What changed between two audits: new and gone findings as text."""

    new: tuple[str, ...]
    gone: tuple[str, ...]


def compare(before: Known, after: Known) -> Change:
    """Hold two audits against each other."""
    new, gone = after.findings.keys() - before.findings, before.findings.keys() - after.findings
    return Change(_texts(after, new), _texts(before, gone))


def _texts(known: Known, keys: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    return tuple(sorted(f"{name}: {known.findings[name, mark]}" for name, mark in keys))


def _findings(document: dict[str, Any]) -> dict[tuple[str, str], str]:
    name = Path(str(document.get("model", {}).get("path", ""))).name
    return {
        (name, str(item["fingerprint"])): f"{item['rule']} {item['message']}"
        for item in document.get("findings", ())
        if not item.get("suppressed")
    }
