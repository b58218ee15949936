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
    """Findings of an earlier audit.

    Attributes:
        findings: rule and message by the path of the model and the fingerprint.
        models: paths of all models that were audited.
    """

    findings: dict[tuple[str, str], str]
    models: frozenset[str] = frozenset()

    def of(self, model: Path) -> frozenset[str]:
        """Fingerprints known for a model."""
        return frozenset(mark for path, mark in self.findings if path == str(model))

    def moved_to(self, models: Iterable[Path]) -> Known:
        """The same findings, at the paths of these models.

        A model that was audited at another path is known by the name of its file, where just one of those
        that are not there any more, and one of those that are new, is called so.
        """
        now = {str(model) for model in models}
        gone, new = self.models - now, now - self.models
        places: dict[str, str] = {}
        for path in gone:
            name = Path(path).name
            alike = [[other for other in side if Path(other).name == name] for side in (gone, new)]
            if [len(side) for side in alike] == [1, 1]:
                places[path] = alike[1][0]
        found = {(places.get(path, path), mark): text for (path, mark), text in self.findings.items()}
        return Known(found, frozenset(places.get(path, path) for path in self.models))


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
    audits = document.get("audits", [document])
    for one in audits:
        found.update(_findings(one))
    return Known(found, frozenset(map(_path, audits)))


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
    return tuple(sorted(f"{Path(path).name}: {known.findings[path, mark]}" for path, mark in keys))


def _findings(document: dict[str, Any]) -> dict[tuple[str, str], str]:
    path = _path(document)
    return {
        (path, str(item["fingerprint"])): f"{item['rule']} {item['message']}"
        for item in document.get("findings", ())
        if not item.get("suppressed")
    }


def _path(document: dict[str, Any]) -> str:
    return str(Path(str(document.get("model", {}).get("path", ""))))
