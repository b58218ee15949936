"""What an installation weighs: the packages that each extra pulls, from the files of those installed here.

    python tools/install_size.py                # base with `cpu`, and what the other extras add
    python tools/install_size.py --extras cpu report images

Packages that are not installed are named and count as nothing.
"""

from __future__ import annotations

import argparse
from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import Requirement

PACKAGE = "redtest-onnx"
EXTRAS = ("report", "images", "data", "sound")


def closure(names: set[str], extras: dict[str, set[str]]) -> set[str]:
    """All packages that some need, themselves included."""
    found: set[str] = set()
    todo = [(name, frozenset(extras.get(name, ()))) for name in names]
    while todo:
        name, wanted = todo.pop()
        if name in found and not wanted:
            continue
        found.add(name)
        try:
            needs = distribution(name).requires or []
        except PackageNotFoundError:
            continue
        for text in needs:
            need = Requirement(text)
            marks = [{"extra": extra} for extra in (wanted or {""})]
            if need.marker is None or any(need.marker.evaluate(mark) for mark in marks):
                key = need.name.lower().replace("_", "-")
                if key not in found:
                    todo.append((key, frozenset(need.extras)))
    return found


def weight(name: str) -> int | None:
    """Bytes of a package's files; None where it is not installed."""
    try:
        files = distribution(name).files or []
    except PackageNotFoundError:
        return None
    return sum(path.stat().st_size for path in (file.locate() for file in files) if path.is_file())  # type: ignore[attr-defined]


def main() -> None:
    """Print the sizes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--extras", nargs="*", default=list(EXTRAS))
    arguments = parser.parse_args()
    base = closure({PACKAGE}, {PACKAGE: {"cpu"}})
    show("base with cpu", base)
    for extra in arguments.extras:
        show(f"+ {extra}", closure({PACKAGE}, {PACKAGE: {"cpu", extra}}) - base)


def show(what: str, names: set[str]) -> None:
    """A line for a set of packages."""
    sizes = {name: weight(name) for name in sorted(names)}
    missing = [name for name, size in sizes.items() if size is None]
    total = sum(size or 0 for size in sizes.values()) / 1e6
    absent = f" (not installed here: {', '.join(missing)})" if missing else ""
    print(f"{what:15} {total:7.1f} MB in {len(sizes) - len(missing)} packages{absent}")


if __name__ == "__main__":
    main()
