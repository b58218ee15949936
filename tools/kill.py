"""Kill commands at random moments: nothing lost, nothing half written, no litter after the next run.

    python tools/kill.py --count 300 --seed 0 --log kill.jsonl

Each try runs one command on a model with external data and ends it with SIGKILL after a random share of the
time that it takes undisturbed: `prune` to a new file and over an earlier result, `finetune`, `search`, and
`analyze` with a page, a picture and a document. Then it checks that all inputs are the same byte for byte,
that each output is absent, as it was before, or whole (it loads, or is as the undisturbed run wrote it),
that the same command run again (with --resume where there is one) ends as the undisturbed run, and that
nothing else lies in the folders for outputs and for temporary files. Numbers that the log holds are not
tried again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

FEW = ("--samples", "16", "--batches", "2", "--threads", "1", "-q")
CODE = "import sys; from redtest_onnx.cli.main import main; main()"
Contents = dict[str, bytes]


@dataclass(frozen=True)
class Command:
    """One of the commands that are killed.

    Attributes:
        arguments: as a user gives them, in the folder of outputs; inputs lie in `../in`.
        again: what is added when it is run again after a kill.
        same: outputs that must be byte for byte those of the undisturbed run.
        before: outputs of an earlier run lie there already.
    """

    arguments: tuple[str, ...]
    again: tuple[str, ...] = ()
    same: tuple[str, ...] = ()
    before: bool = False


PRUNE = ("prune", "../in/m.onnx", "--data", "../in/d.npz", "--remove", "1", "--repair", "refit", *FEW)
COMMANDS = {
    "prune": Command((*PRUNE, "-o", "out.onnx"), ("--force",), ("out.onnx", "out.onnx.data")),
    "prune over": Command((*PRUNE, "-o", "out.onnx", "--force"), (), ("out.onnx",), before=True),
    "finetune": Command(
        (
            *("finetune", "../in/m.onnx", "--data", "../in/d.npz", "--epochs", "3", "--threads", "1", "-q"),
            *("--device", "cpu", "-o", "out.onnx"),
        ),
        ("--resume", "--force"),
        ("out.onnx", "out.onnx.data"),
    ),
    "search": Command(
        (
            *(
                "search",
                "--space",
                "topology-4x1",
                "--metrics",
                "../in/t.csv",
                "--by",
                "S2",
                "--seed",
                "1",
                "-q",
            ),
            *("--strategy", "random", "--evaluations", "6", "--output", "found.sqlite"),
        ),
        (),
    ),
    "analyze": Command(
        (
            *("analyze", "../in/m.onnx", "--data", "../in/d.npz", *FEW),
            *("--json", "out.json", "--html", "out.html", "--png", "out.png"),
        ),
        ("--force",),
        ("out.html", "out.png"),
    ),
}


def write_inputs(folder: Path) -> None:
    """A model of some layers whose weights lie beside it, samples, and a table of accuracies."""
    rng = np.random.default_rng(0)
    nodes, weights, last = [], [], "input"
    for k in range(6):
        values = (np.eye(192) + rng.normal(size=(192, 192)) * 0.05).astype(np.float32)
        weights.append(numpy_helper.from_array(values, f"w{k}"))
        nodes += [
            helper.make_node("MatMul", [last, f"w{k}"], [f"m{k}"], name=f"product{k}"),
            helper.make_node("Relu", [f"m{k}"], [f"r{k}"], name=f"relu{k}"),
        ]
        last = f"r{k}"
    weights.append(numpy_helper.from_array(rng.normal(size=(192, 4)).astype(np.float32), "head"))
    nodes.append(helper.make_node("MatMul", [last, "head"], ["scores"], name="head"))
    value = helper.make_tensor_value_info
    inputs, outputs = [value("input", 1, ["n", 192])], [value("scores", 1, ["n", 4])]
    graph = helper.make_graph(nodes, "net", inputs, outputs, weights)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(proto, folder / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    data = rng.normal(size=(256, 192)).astype(np.float32)
    np.savez(folder / "d.npz", input=data, labels=rng.integers(0, 4, 256))


def start(command: Command, folder: Path, extra: tuple[str, ...]) -> subprocess.Popen[bytes]:
    """Begin a command in a folder of outputs."""
    environment = {**os.environ, "TMPDIR": str(folder.parent / "tmp"), "OMP_NUM_THREADS": "1"}
    program = [sys.executable, "-c", CODE, *command.arguments, *extra]
    return subprocess.Popen(
        program, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def contents(folder: Path) -> Contents:
    """Everything below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def weights_of(path: Path) -> list[bytes]:
    """The values of all weights of a model, wherever they lie."""
    return [numpy_helper.to_array(t).tobytes() for t in onnx.load(path).graph.initializer]


class Tries:
    """Undisturbed runs, and what they took and wrote.

    Args:
        folder: a place for all files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seconds: dict[str, float] = {}
        self.whole: dict[str, Path] = {}
        (folder / "in").mkdir()
        write_inputs(folder / "in")
        _table(folder / "in" / "t.csv")
        self.inputs = contents(folder / "in")

    def undisturbed(self, name: str) -> Path:
        """The folder that an undisturbed run of a command filled."""
        if name not in self.whole:
            place = self._fresh(f"whole-{name.replace(' ', '-')}")
            if COMMANDS[name].before:
                shutil.copytree(self.undisturbed("prune"), place, dirs_exist_ok=True)
            begin = time.monotonic()
            _finish(start(COMMANDS[name], place, ()), name)
            self.seconds[name], self.whole[name] = time.monotonic() - begin, place
        return self.whole[name]

    def attempt(self, name: str, rng: random.Random) -> tuple[str | None, float]:
        """Kill one run; what was wrong, and the share of its time that it had."""
        command, whole = COMMANDS[name], self.undisturbed(name)
        place = self._fresh("try")
        if command.before:
            shutil.copytree(self.undisturbed("prune"), place, dirs_exist_ok=True)
        before = contents(place)
        share = rng.random()
        process = start(command, place, ())
        time.sleep(share * self.seconds[name])
        process.send_signal(signal.SIGKILL)
        process.communicate()
        wrong = self._after_the_kill(command, place, before, whole)
        if wrong is None:
            extra = command.again
            if name == "search" and (place / "found.sqlite").exists():
                command = Command(
                    (
                        "search",
                        "--resume",
                        "found.sqlite",
                        "--metrics",
                        "../in/t.csv",
                        "--evaluations",
                        "6",
                        "-q",
                    )
                )
                if not _has_settings(place / "found.sqlite"):
                    command, extra = COMMANDS[name], ("--force",)
            if name == "finetune" and not list(place.glob("*.checkpoint")):
                extra = ("--force",)
            _finish(start(command, place, extra), name)
            wrong = self._after_the_next(COMMANDS[name], name, place, whole)
        shutil.rmtree(place)
        return wrong, share

    def _after_the_kill(self, command: Command, place: Path, before: Contents, whole: Path) -> str | None:
        if contents(self.folder / "in") != self.inputs:
            return "an input was changed"
        for path in place.glob("*.onnx"):
            try:
                found = weights_of(path)
            except Exception as error:
                return f"{path.name} does not load: {error}"
            if found not in (
                weights_of(whole / path.name),
                *([weights_of(self.undisturbed("prune") / path.name)] if command.before else []),
            ):
                return f"the weights of {path.name} are neither old nor new"
        for path in place.iterdir():
            if path.suffix == ".json":
                json.loads(path.read_text())
            drawn = path.name in command.same and path.suffix in (".html", ".png")
            if drawn and _undated(path) != _undated(whole / path.name):
                return f"{path.name} is not whole"
        return None

    def _after_the_next(self, command: Command, name: str, place: Path, whole: Path) -> str | None:
        if contents(self.folder / "in") != self.inputs:
            return "the next run changed an input"
        if left := [*(self.folder / "tmp").glob("*redtest*"), *(self.folder / "tmp").glob(".redtest*")]:
            return f"left in the folder for temporary files: {left[0].name}"
        names = {path.name for path in place.iterdir()}
        expected = {path.name for path in whole.iterdir()}
        if any(n.startswith(".") for n in names) or {n for n in names if ".data" not in n} != {
            n for n in expected if ".data" not in n
        }:
            return f"the next run leaves {sorted(names)}, not {sorted(expected)}"
        if sum(".data" in n for n in names) != sum(".data" in n for n in expected):
            return f"the next run leaves {sorted(names)}, not {sorted(expected)}"
        for path in place.glob("*.onnx"):
            if weights_of(path) != weights_of(whole / path.name):
                return f"{path.name} of the next run is another"
        for path in place.glob("*.sqlite"):
            if _rows(path) != _rows(whole / path.name):
                return "the search ended otherwise"
        return None

    def _fresh(self, name: str) -> Path:
        place = self.folder / name
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        (self.folder / "tmp").mkdir(exist_ok=True)
        return place


def _table(path: Path) -> None:
    """An accuracy for every architecture that a search may propose."""
    from redtest_onnx.search.topology import TopologySpace

    space = TopologySpace.named("topology-4x1")
    assert space is not None
    rng = random.Random(0)
    lines = [f"{name},{0.5 + rng.random() / 4:.4f}" for name in space]
    path.write_text("\n".join(["architecture,accuracy", *lines]) + "\n")


def _undated(path: Path) -> bytes:
    """What a page or a picture holds, but for the time that a page tells."""
    return re.sub(rb"\d{4}-\d\d-\d\d \d\d:\d\d UTC", b"", path.read_bytes())


def _rows(path: Path) -> list[tuple[object, ...]]:
    import sqlite3

    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(
            "SELECT number, key, accuracy, error FROM results ORDER BY number"
        ).fetchall()


def _has_settings(path: Path) -> bool:
    import sqlite3

    try:
        with closing(sqlite3.connect(path)) as connection:
            return bool(connection.execute("SELECT count(*) FROM settings").fetchone()[0])
    except sqlite3.Error:
        return False


def _finish(process: subprocess.Popen[bytes], name: str) -> None:
    _, errors = process.communicate()
    if process.returncode != 0:
        raise SystemExit(f"{name} ended with {process.returncode}: {errors.decode()}")


def main() -> None:
    """Kill runs and say what was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", type=Path, help="JSON lines, one a kill; goes on where it ends")
    options = parser.parse_args()
    lines = options.log.read_text().splitlines() if options.log and options.log.exists() else []
    done = {record["number"]: record for record in map(json.loads, lines)}
    with tempfile.TemporaryDirectory(prefix="redtest-kill-") as name:
        tries = Tries(Path(name))
        for number in range(options.count):
            if number in done:
                continue
            command = list(COMMANDS)[number % len(COMMANDS)]
            wrong, share = tries.attempt(command, random.Random(f"{options.seed}/{number}"))
            done[number] = {"number": number, "command": command, "share": round(share, 3), "wrong": wrong}
            if options.log:
                with options.log.open("a") as log:
                    log.write(json.dumps(done[number]) + "\n")
            if wrong:
                print(f"{number} {command} after {share:.0%}: {wrong}", flush=True)
    faults = sum(bool(record["wrong"]) for record in done.values())
    print(f"{len(done)} kills, {faults} faults")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
