"""Mutants of the modules that decide what is removed and how it is repaired: how many do the tests notice?

    pip install cosmic-ray coverage
    python tools/mutation.py --count 200 --seed 0 [--jobs 2] [--rooms metrics layers] [--results FILE]

cosmic-ray (https://cosmic-ray.readthedocs.io) changes one place of a module at a time: another operator, a
number one higher, a condition turned round. A sample of these places is drawn, one mutant for each. A first
run of the rooms' own tests records which test runs which line, and how long it takes; a mutant is given to
those that run its line, then to the rest of their files, the module's own file and the quickest first, until
one fails or `--most` seconds of CPU are spent. So a mutant costs seconds, and the score is never better than
that of all tests.

The score is the share of mutants that make a test fail, or run three times as long as without a mutant.
Mutants that no test runs and those that change nothing a caller could see count as survivors, too. `|` is
left out, which stands in annotations most of all, and what doesn't compile.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import queue
import shutil
import sys
import threading
from collections import defaultdict
from dataclasses import dataclass
from difflib import unified_diff
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from time import monotonic

from mutation_tests import MutationTests

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "redtest_onnx"
ROOMS = ("metrics", "layers", "data/splits.py", "pruning", "pruning/repair")
LEFT_OUT = ("BitOr", "Variable")  # the latter are told the names of variables
COPIED = ("redtest_onnx", "tests", "models", "tools", "pyproject.toml")

Places = list[tuple[Path, int, tuple[tuple[str, int], ...]]]


@dataclass(frozen=True)
class Mutant:
    """One change of a module: its source before and after that, and where it is."""

    module: Path
    line: int
    operator: str
    original: str
    source: str

    @property
    def where(self) -> str:
        """Module, line and operator."""
        return f"{self.module.relative_to('redtest_onnx').as_posix()}:{self.line} {self.operator}"

    def diff(self) -> str:
        """The lines that changed."""
        lines = unified_diff(self.original.splitlines(), self.source.splitlines(), lineterm="", n=0)
        return "\n".join(line for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---"))


def main() -> None:
    """Draw mutants, test them, and print the survivors and the score."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--most", type=float, default=40, help="seconds of tests per mutant, of CPU")
    parser.add_argument("--rooms", nargs="+", default=ROOMS)
    parser.add_argument(
        "--python",
        default=sys.executable,
        help="runs the tests, and has coverage; cosmic-ray can be elsewhere",
    )
    parser.add_argument(
        "--record", type=Path, help="JSON file that keeps which test runs what, for the next time"
    )
    parser.add_argument("--minutes", type=float, default=float("inf"), help="no mutant is begun after that")
    parser.add_argument(
        "--results", type=Path, help="JSON file with the outcomes; what it calls killed is not tested again"
    )
    arguments = parser.parse_args()
    modules = sorted({module for room in arguments.rooms for module in modules_of(room)})
    places = [place for module in modules for place in places_of(module)]
    mutants = draw(places, arguments.count, Random(arguments.seed))
    print(f"{len(mutants)} mutants at {len(places)} places of {len(modules)} modules", flush=True)
    outcomes = known(arguments.results)
    waiting: queue.SimpleQueue[Mutant] = queue.SimpleQueue()
    for mutant in mutants:
        if outcomes.get(f"{mutant.where}\n{mutant.diff()}") != "killed":
            waiting.put(mutant)
    with TemporaryDirectory() as scratch:
        first = copied(Path(scratch) / "0")
        tests = MutationTests(arguments.python, arguments.most)
        tests.record(first, modules, arguments.record, arguments.jobs)
        print(f"{len(tests.seconds)} tests, {sum(tests.seconds.values()):.0f} s of CPU", flush=True)
        copies = [first, *(copied(Path(scratch) / str(k)) for k in range(1, arguments.jobs))]
        workers = [
            threading.Thread(target=work, args=(waiting, outcomes, tests, copy, arguments)) for copy in copies
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        tests.close()
    judged = [outcomes[key] for mutant in mutants if (key := f"{mutant.where}\n{mutant.diff()}") in outcomes]
    killed = judged.count("killed")
    print(f"score: {killed} of {len(judged)} ({killed / max(len(judged), 1):.0%})")
    print(f"{judged.count('never run')} of the survivors stand where no test comes by")


def copied(copy: Path) -> Path:
    """A copy of the project that mutants are written into."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, copy / name)
    for name in ("redtest_onnx", "tests", "tools"):  # else each run of the tests compiles all of it again
        compileall.compile_dir(copy / name, quiet=2)
    return copy


def known(results: Path | None) -> dict[str, str]:
    """Outcomes of an earlier run."""
    if results is None or not results.exists():
        return {}
    outcomes: dict[str, str] = json.loads(results.read_text(encoding="utf-8"))
    return outcomes


def modules_of(room: str) -> list[Path]:
    """The modules directly in a room, or the one that is named."""
    folder = PACKAGE / room
    files = [folder] if folder.suffix == ".py" else folder.glob("*.py")
    return [file.relative_to(ROOT) for file in files if file.name != "__init__.py"]


def places_of(module: Path) -> Places:
    """Line and possible changes, as operator and occurrence, of every place that can be changed."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.plugins import get_operator, operator_names

    nodes = list(ast_nodes(get_ast((ROOT / module).read_text(encoding="utf-8"))))
    found: dict[tuple[object, object], list[tuple[str, int]]] = defaultdict(list)
    for name in sorted(operator_names()):
        if any(word in name for word in LEFT_OUT):
            continue
        operator, count = get_operator(name)(), 0
        for node in nodes:
            for start, stop in operator.mutation_positions(node):
                found[start, stop].append((name, count))
                count += 1
    return [(module, place[0][0], tuple(changes)) for place, changes in sorted(found.items(), key=str)]  # type: ignore[index]


def draw(places: Places, count: int, random: Random) -> list[Mutant]:
    """Mutants at different places, in random order; fewer than asked for where some don't compile."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    found = []
    for module, line, changes in random.sample(places, min(count, len(places))):
        name, occurrence = random.choice(changes)
        original = (ROOT / module).read_text(encoding="utf-8")
        source = mutate_code(original, get_operator(name)(), occurrence)
        if source is not None and compiles(source):
            found.append(Mutant(module, line, name.removeprefix("core/"), original, source))
    return found


def compiles(source: str) -> bool:
    """Whether a mutant is Python at all."""
    try:
        compile(source, "mutant", "exec")
    except SyntaxError:
        return False
    return True


def work(
    waiting: queue.SimpleQueue[Mutant],
    outcomes: dict[str, str],
    tests: MutationTests,
    copy: Path,
    arguments: argparse.Namespace,
) -> None:
    """Test one mutant after another in a copy of the project, until none or no time is left."""
    end = monotonic() + 60 * arguments.minutes
    while monotonic() < end:
        try:
            mutant = waiting.get_nowait()
        except queue.Empty:
            return
        outcome = tests.judge(copy, mutant.module, mutant.line, mutant.source)
        outcomes[f"{mutant.where}\n{mutant.diff()}"] = outcome
        shown = [] if outcome == "killed" else [mutant.diff()]
        print(f"{outcome:9} {mutant.where}", *shown, sep="\n", flush=True)
        if arguments.results is not None:
            arguments.results.write_text(json.dumps(outcomes, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
