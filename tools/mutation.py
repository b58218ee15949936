"""Mutants of the modules that decide what is removed and how it is repaired: how many do the tests notice?

    pip install cosmic-ray
    python tools/mutation.py [--count 200] [--seed 0] [--jobs 2] [--rooms metrics layers]

cosmic-ray (https://cosmic-ray.readthedocs.io) changes one place of a module at a time: another operator, a
number one higher, a condition turned round. A sample of these places is drawn, one mutant for each, and for
each mutant the tests run that mirror its module or import it. The score is the share of mutants that make a
test fail, or run three times as long as without a mutant. Mutants that change nothing a caller could see
count as survivors, too. `|` is left out, which stands in annotations most of all.
"""

from __future__ import annotations

import argparse
import os
import queue
import resource
import shutil
import subprocess
import sys
import threading
from collections import defaultdict
from dataclasses import dataclass
from difflib import unified_diff
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from time import monotonic

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "redtest_onnx"
ROOMS = ("metrics", "layers", "data/splits.py", "pruning", "pruning/repair")
LEFT_OUT = ("BitOr", "Variable")  # the latter are told the names of variables
COPIED = ("redtest_onnx", "tests", "models", "pyproject.toml")
SPARE_SECONDS = 10  # of CPU, beyond three times what the tests take without a mutant
LONGEST_SECONDS = 3600


@dataclass(frozen=True)
class Mutant:
    """One change of a module: its source after that, and where it is."""

    module: Path
    line: int
    operator: str
    source: str

    def diff(self) -> str:
        """The lines that changed."""
        before = (ROOT / self.module).read_text(encoding="utf-8").splitlines()
        lines = unified_diff(before, self.source.splitlines(), lineterm="", n=0)
        return "\n".join(line for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---"))


def main() -> None:
    """Draw mutants, test them, and print the survivors and the score."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--rooms", nargs="+", default=ROOMS)
    parser.add_argument(
        "--python", default=sys.executable, help="runs the tests; cosmic-ray can be elsewhere"
    )
    arguments = parser.parse_args()
    modules = sorted({module for room in arguments.rooms for module in modules_of(room)})
    places = [place for module in modules for place in places_of(module)]
    mutants = draw(places, arguments.count, Random(arguments.seed))
    print(f"{len(mutants)} mutants at {len(places)} places of {len(modules)} modules", flush=True)
    waiting: queue.SimpleQueue[list[Mutant]] = queue.SimpleQueue()
    for module in modules:
        if own := [mutant for mutant in mutants if mutant.module == module]:
            waiting.put(own)
    outcomes: list[str] = []
    workers = [
        threading.Thread(target=work, args=(waiting, outcomes, arguments.python))
        for _ in range(arguments.jobs)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    killed, judged = outcomes.count("killed"), len(outcomes) - outcomes.count("untested")
    share = f"{killed / max(judged, 1):.0%}"
    print(f"score: {killed} of {judged} ({share}); {len(outcomes) - judged} without a test")


def modules_of(room: str) -> list[Path]:
    """The modules directly in a room, or the one that is named."""
    folder = PACKAGE / room
    files = [folder] if folder.suffix == ".py" else folder.glob("*.py")
    return [file.relative_to(ROOT) for file in files if file.name != "__init__.py"]


def places_of(module: Path) -> list[tuple[Path, int, tuple[tuple[str, int], ...]]]:
    """Line and possible changes, as operator and occurrence, of every place that can be changed."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.plugins import get_operator, operator_names

    tree = get_ast((ROOT / module).read_text(encoding="utf-8"))
    found: dict[tuple[object, object], list[tuple[str, int]]] = defaultdict(list)
    for name in sorted(operator_names()):
        if any(word in name for word in LEFT_OUT):
            continue
        operator, count = get_operator(name)(), 0
        for node in ast_nodes(tree):
            for start, stop in operator.mutation_positions(node):
                found[start, stop].append((name, count))
                count += 1
    return [(module, place[0][0], tuple(changes)) for place, changes in sorted(found.items(), key=str)]  # type: ignore[index]


def draw(
    places: list[tuple[Path, int, tuple[tuple[str, int], ...]]], count: int, random: Random
) -> list[Mutant]:
    """Mutants at different places."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    found = []
    for module, line, changes in random.sample(places, min(count, len(places))):
        name, occurrence = random.choice(changes)
        source = mutate_code((ROOT / module).read_text(encoding="utf-8"), get_operator(name)(), occurrence)
        if source is not None:
            found.append(Mutant(module, line, name.removeprefix("core/"), source))
    return found


def tests_of(module: Path) -> list[str]:
    """Test files of a module: those that mirror it, and those beside them that import it."""
    folder = ROOT / "tests" / module.relative_to("redtest_onnx").parent
    mirrored = [file for file in (folder / f"test_{module.stem}.py",) if file.exists()]
    dotted = ".".join(module.with_suffix("").parts)
    beside = [file for file in sorted(folder.glob("test_*.py")) if dotted in file.read_text(encoding="utf-8")]
    files = dict.fromkeys([*mirrored, *beside] or sorted(folder.glob("test_*.py")))
    return [str(file.relative_to(ROOT)) for file in files]


def work(waiting: queue.SimpleQueue[list[Mutant]], outcomes: list[str], python: str) -> None:
    """Test the mutants of one module after another in a copy of the project, until none is left."""
    with TemporaryDirectory() as scratch:
        copy = Path(scratch)
        for name in COPIED:
            source = ROOT / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, copy / name)
        while True:
            try:
                mutants = waiting.get_nowait()
            except queue.Empty:
                return
            usual = seconds_without_mutant(copy, mutants[0].module, python)
            for mutant in mutants:
                outcome = test(copy, mutant, usual, python)
                outcomes.append(outcome)
                where = f"{mutant.module.relative_to('redtest_onnx')}:{mutant.line} {mutant.operator}"
                shown = [mutant.diff()] if outcome == "survived" else []
                print(f"{outcome:9} {where}", *shown, sep="\n", flush=True)


def seconds_without_mutant(copy: Path, module: Path, python: str) -> float | None:
    """CPU time of a module's tests as it is; None where it has none or they fail."""
    begin = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = monotonic()
    passes = run(copy, module, LONGEST_SECONDS, python)
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Of all workers, and so a little more than it took at most.
    spent = now.ru_utime + now.ru_stime - begin.ru_utime - begin.ru_stime
    return min(spent, monotonic() - started) if passes else None


def test(copy: Path, mutant: Mutant, usual: float | None, python: str) -> str:
    """Whether the tests notice a mutant: killed, survived or untested."""
    if usual is None:
        return "untested"
    file = copy / mutant.module
    original = file.read_text(encoding="utf-8")
    file.write_text(mutant.source, encoding="utf-8")
    try:
        return "survived" if run(copy, mutant.module, 3 * usual + SPARE_SECONDS, python) else "killed"
    finally:
        file.write_text(original, encoding="utf-8")


def run(copy: Path, module: Path, seconds: float, python: str) -> bool:
    """Whether a module's tests pass within a limit of CPU time."""
    limit = int(seconds) + 1
    command = [python, "-B", "-m", "pytest", "-x", "-q", "-p", "no:xdist", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            [*command, *tests_of(module)],
            cwd=copy,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=LONGEST_SECONDS,
            check=False,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (limit, limit)),
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


if __name__ == "__main__":
    main()
