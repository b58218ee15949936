"""Profiles as TOML files: those that come with the package, and a user's own."""

from __future__ import annotations

import re
import tomllib
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from redtest_onnx.auditing.profile import Budgets, DeploymentTarget, Operators, Profile, Suppression
from redtest_onnx.auditing.registry import rules
from redtest_onnx.errors import InputError
from redtest_onnx.graph.reading import read_text

DEFAULT = "onnxruntime-cpu"


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
        raise InputError(
            f"{place or 'the profile'}: {first['msg']}", where=where, hint=_nearest(first)
        ) from error
    _check_rules(profile, text, label)
    required = profile.target.required_operators
    if required is not None:
        path = _below(folder, required, label)
        absolute = profile.target.model_copy(update={"required_operators": str(path)})
        profile = profile.model_copy(update={"target": absolute})
    return profile


def _nearest(mistake: ErrorDetails) -> str | None:
    """The name that was meant by one that doesn't exist."""
    if mistake["type"] != "extra_forbidden":
        return None
    parts = (Profile, DeploymentTarget, Budgets, Operators, Suppression)
    names = sorted({name for part in parts for name in part.model_fields})
    near = get_close_matches(str(mistake["loc"][-1]), names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(names)}"


def _check_rules(profile: Profile, text: str, label: str) -> None:
    """Refuse what is said of rules that don't exist.

    Raises:
        InputError: naming the line.
    """
    known = [rule.id for rule in rules()]
    named: list[tuple[str, tuple[Any, ...]]] = [(id_, ("severities", id_)) for id_ in profile.severities]
    named += [(one.rule, ("suppress", k, "rule")) for k, one in enumerate(profile.suppress)]
    for id_, loc in named:
        if id_ not in known:
            line = _line_of(text, loc)
            raise InputError(
                f"{loc[0]}: there is no rule {id_}",
                where=label if line is None else f"{label}, line {line}",
                hint="`audit --list-rules` lists them",
            )


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
