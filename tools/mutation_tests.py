"""Which tests a mutant is given to, and whether one of them fails: for `tools/mutation.py`."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import subprocess
import threading
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

SPARE_SECONDS = 10  # of CPU, beyond three times what the tests take without a mutant
OPTIONS = (
    "-q",
    "-p",
    "no:xdist",
    "-p",
    "no:cacheprovider",
    "-p",
    "mutation_plugin",
    "--hypothesis-profile=mutants",
)
AT_IMPORT = ""  # the name that lines go by which run before any test


class MutationTests:
    """The tests of the mutated rooms: their CPU seconds, and the lines that each runs.

    Args:
        python: runs the tests.
        most: CPU seconds of tests that a mutant is given at most; the first test of all may take longer.
    """

    def __init__(self, python: str, most: float) -> None:
        self._python = python
        self._most = most
        self.seconds: dict[str, float] = {}
        self._workers: dict[Path, subprocess.Popen[str]] = {}
        self._runs: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))

    def record(self, copy: Path, modules: Sequence[Path], kept: Path | None, jobs: int = 1) -> None:
        """Find out what each test runs, or read it where neither the modules nor the tests have changed.

        Args:
            copy: the project.
            modules: what will be mutated.
            kept: JSON file of an earlier record; written anew.
            jobs: processes that run the tests.
        """
        files = tests_of(copy, modules)
        digests = {file: _digest(copy, [Path(file), *modules]) for file in files}
        document: dict[str, Any] = {}
        if kept is not None and kept.exists():
            document = json.loads(kept.read_text(encoding="utf-8"))
        known = {file: part for file, part in document.items() if part["digest"] == digests.get(file)}
        stale = [file for file in files if file not in known]
        if stale:
            with ThreadPoolExecutor(jobs) as pool:
                parts = [part for part in (stale[k::jobs] for k in range(jobs)) if part]
                found_parts = list(pool.map(lambda part: self._measured(copy, part), parts))
            for part, measured in zip(parts, found_parts, strict=True):
                for file in part:
                    own = {name: found for name, found in measured.items() if name.partition("::")[0] == file}
                    lines = measured[AT_IMPORT]["lines"]
                    known[file] = {"digest": digests[file], "tests": own, "import": lines}
            if kept is not None:
                kept.write_text(json.dumps(known), encoding="utf-8")
        for entry in known.values():
            for name, found in entry["tests"].items():
                self.seconds[name] = found["seconds"]
                self._add(name, found["lines"])
            self._add(AT_IMPORT, entry["import"])

    def judge(self, copy: Path, module: Path, line: int, source: str) -> str:
        """What becomes of a mutant: "killed", "survived", or "never run" by any test.

        Args:
            copy: the project, without the mutant.
            module: what is changed.
            line: where.
            source: the module's source after that.
        """
        file = copy / module
        original = file.read_text(encoding="utf-8")
        names = self.order(module, original, line)
        if not names:
            return "never run"
        file.write_text(source, encoding="utf-8")
        try:
            return "survived" if self._pass(copy, names) else "killed"
        finally:
            file.write_text(original, encoding="utf-8")

    def order(self, module: Path, source: str, line: int) -> list[str]:
        """The tests of a line: those that run it, then the others of their files, until time is up."""
        runs = self._runs[module.as_posix()]
        names = set().union(*(runs.get(k, set()) for k in _statement(source, line)))
        if AT_IMPORT in names:
            room = Path("tests") / module.relative_to("redtest_onnx").parent
            around = [f"{folder.as_posix()}/test_" for folder in (room, *room.parents[:-2])]
            names = set().union(*runs.values())
            names |= {name for name in self.seconds if name.startswith(tuple(around))}
        names.discard(AT_IMPORT)
        files = {name.partition("::")[0] for name in names}
        # A fixture of a whole file counts for the first test that asks for it only.
        beside = {name for name in self.seconds if name.partition("::")[0] in files} - names
        found: list[str] = []
        spent = 0.0
        for group in (names, beside):
            for name in self._sorted(module, group):
                if found and spent + self.seconds[name] > self._most:
                    continue
                spent += self.seconds[name]
                found.append(name)
        return found

    def _sorted(self, module: Path, names: Iterable[str]) -> list[str]:
        """The module's own file first, then the files that take least; of each file the quickest first."""
        names = list(names)
        total: dict[str, float] = defaultdict(float)
        for name in names:
            total[name.partition("::")[0]] += self.seconds[name]

        def key(name: str) -> tuple[bool, float, str, float]:
            file = name.partition("::")[0]
            return Path(file).name != f"test_{module.stem}.py", total[file], file, self.seconds[name]

        return sorted(names, key=key)

    def _add(self, name: str, lines: dict[str, list[int]]) -> None:
        for module, numbers in lines.items():
            for number in numbers:
                self._runs[module][number].add(name)

    def _measured(self, copy: Path, files: Sequence[str]) -> dict[str, Any]:
        target = copy / f"record-{threading.get_ident()}.json"
        done = subprocess.run(
            [self._python, "-B", "-m", "pytest", *OPTIONS, *files],
            cwd=copy,
            env={**_environment(copy), "MUTATION_RECORD": str(target)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        if done.returncode not in (0, 1):
            raise SystemExit(f"the tests can't be run without a mutant: pytest ended with {done.returncode}")
        found: dict[str, Any] = json.loads(target.read_text(encoding="utf-8"))
        return found

    def _pass(self, copy: Path, names: Sequence[str]) -> bool:
        order = copy / "order.json"
        order.write_text(json.dumps(names), encoding="utf-8")
        files = dict.fromkeys(name.partition("::")[0] for name in names)
        job = {
            "arguments": [*OPTIONS, "-x", "--tb=no", "--assert=plain", *files],
            "environment": {"MUTATION_ORDER": str(order)},
            "seconds": int(3 * sum(self.seconds[name] for name in names)) + SPARE_SECONDS,
        }
        code = self._answer(copy, json.dumps(job))
        if code in (4, 5):
            raise SystemExit(f"the tests {names[:3]}... are not there: pytest ended with {code}")
        return code == 0

    def _answer(self, copy: Path, job: str) -> int:
        if copy not in self._workers:
            self._workers[copy] = subprocess.Popen(
                [self._python, "-B", str(copy / "tools" / "mutation_worker.py")],
                cwd=copy,
                env=_environment(copy),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        worker = self._workers[copy]
        assert worker.stdin is not None
        assert worker.stdout is not None
        print(job, file=worker.stdin, flush=True)
        return int(worker.stdout.readline())

    def close(self) -> None:
        """End the processes that run the tests."""
        for worker in self._workers.values():
            worker.communicate()


def _environment(copy: Path) -> dict[str, str]:
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    return {**os.environ, **threads, "PYTHONPATH": os.pathsep.join([str(copy), str(copy / "tools")])}


def tests_of(copy: Path, modules: Iterable[Path]) -> list[str]:
    """Test files of the rooms that modules stand in, and inside; those that import it of a single module."""
    modules = set(modules)
    found: set[Path] = set()
    for module in modules:
        folder = copy / "tests" / module.relative_to("redtest_onnx").parent
        files = set(folder.rglob("test_*.py"))
        room = {file.relative_to(copy) for file in (copy / module.parent).glob("*.py")}
        if not {file for file in room if file.name != "__init__.py"} <= modules:
            dotted = ".".join(module.with_suffix("").parts)
            files = {file for file in files if dotted in file.read_text(encoding="utf-8")}
        found |= files
    return sorted(file.relative_to(copy).as_posix() for file in found)


def _statement(source: str, line: int) -> range:
    """Lines of the smallest statement around a line; of one with a body, its head."""
    found = range(line, line + 1)
    smallest = float("inf")
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.stmt):
            continue
        body = getattr(node, "body", None)
        decorators = getattr(node, "decorator_list", [])
        first = min([node.lineno, *(each.lineno for each in decorators)])
        last = body[0].lineno - 1 if body else node.end_lineno or node.lineno
        last = max(last, node.lineno)
        if first <= line <= last and last - first < smallest:
            smallest, found = last - first, range(first, last + 1)
    return found


def _digest(copy: Path, files: Iterable[Path]) -> str:
    found = hashlib.sha256()
    for file in files:
        found.update((copy / file).read_bytes())
    return found.hexdigest()
