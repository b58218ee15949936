"""What people wait for: whole commands, each a process of its own, beside one plain forward pass."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Literal

from benchmarking.load import busy
from benchmarking.onnx_networks import NETWORKS, samples

ROOT = Path(__file__).parents[2]
_PEERS = Path(__file__).parent / "peer_commands"
_IMPORTS = Path(__file__).parent / "imports.py"
_CORES = len(os.sched_getaffinity(0))
Figures = dict[str, Any]

# A process counts the memory of the one it was forked from as its own, which must be a small one.
_LAUNCH = """
import json, os, subprocess, sys
from time import perf_counter
begin = perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, used = os.wait4(process.pid, 0)
found = {
    "code": os.waitstatus_to_exitcode(status),
    "cpu_s": used.ru_utime + used.ru_stime,
    "wall_s": perf_counter() - begin,
    "peak_bytes": used.ru_maxrss * 1024,
}
print(json.dumps(found))
"""

_FORWARD = """
import sys
from time import process_time
import numpy as np
import onnxruntime as ort
options = ort.SessionOptions()
options.intra_op_num_threads = int(sys.argv[3])
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
name = session.get_inputs()[0].name
x = np.load(sys.argv[2])[sys.argv[4] or name]
session.run(None, {name: x[:4]})
start = process_time()
for k in range(0, len(x), 16):
    session.run(None, {name: x[k : k + 16]})
print(process_time() - start)
"""


@dataclass(frozen=True)
class CommandJob:
    """One command.

    Attributes:
        network: one of `onnx_networks.NETWORKS`, "digits" for the network of the repository, or the name of
            a file of the user's.
        samples: number of samples; 0 for a command without data.
        arguments: the command and its options; the model, the data and the output are filled in.
        peer: whether it is a module, or a script of `peer_commands`, for the peers' environment.
        threads: instead of those of the benchmark; 0 leaves them to the command, as users do.
        busy: whether another process multiplies matrices on each core meanwhile.
        note: what else tells it from others.
        imports: whether only what the command imports is loaded.
    """

    network: str
    samples: int
    arguments: tuple[str, ...]
    peer: Literal["", "module", "script"] = ""
    threads: int | None = None
    busy: bool = False
    note: str = ""
    imports: bool = False

    @property
    def title(self) -> str:
        """What the table calls it."""
        return f"{self.network}: {' '.join(self.arguments)}{self.circumstances}"

    @property
    def circumstances(self) -> str:
        """Threads and load, where they are said."""
        said = [self.note] if self.note else []
        if self.threads is not None:
            said.append(f"{self.threads} thread(s)" if self.threads else "threads by default")
        said += ["beside busy processes"] if self.busy else []
        said += ["its imports alone"] if self.imports else []
        return f" ({', '.join(said)})" if said else ""


_PLAIN = ("prune", "--remove", "4", "--repair", "none")
_REFIT = ("prune", "--remove", "4", "--repair", "refit")
_DIGITS = CommandJob("digits", 397, ("prune",), threads=0)
_RESNET56 = ("prune", "--remove", "8", "--repair", "refit")
COMMANDS: tuple[CommandJob, ...] = (
    CommandJob("digits", 0, ("inspect",)),
    CommandJob("digits", 397, ("prune",)),
    CommandJob("digits", 397, ("prune",), imports=True),
    CommandJob("digits", 397, ("prune", "--target", "params=0.5")),
    CommandJob("blocks24", 48, _PLAIN),
    CommandJob("blocks99", 48, _PLAIN),
    CommandJob("blocks200", 48, _PLAIN),
    CommandJob("blocks600", 48, _PLAIN),
    CommandJob("blocks600", 768, _PLAIN, note="768 samples"),
    CommandJob("resnet50", 0, ("inspect",)),
    CommandJob("resnet50", 0, ("onnxslim", "--inspect"), peer="module"),
    CommandJob("resnet50", 0, ("onnx_tool_profile.py",), peer="script"),
    CommandJob("resnet50", 0, ("audit", "--no-latency")),
    CommandJob("resnet50", 64, _PLAIN),
    CommandJob("resnet50", 64, _REFIT),
    CommandJob("resnet50", 256, ("prune",)),
    CommandJob("encoder", 0, ("inspect",)),
    CommandJob("encoder", 0, ("onnxslim", "--inspect"), peer="module"),
    CommandJob("encoder", 64, ("prune", "--remove", "2", "--repair", "none")),
    CommandJob("minilm", 384, ("prune", "--remove", "2", "--repair", "refit")),
    CommandJob("resnet56", 768, ("prune",)),
    CommandJob("resnet56", 768, _RESNET56),
    CommandJob("vit_b", 0, ("inspect",)),
    CommandJob("vit_b", 32, ("prune", "--granularity", "block", "--remove", "2", "--repair", "none")),
    CommandJob("vit_b", 32, ("prune", "--granularity", "block", "--remove", "2", "--repair", "refit")),
    CommandJob("vit_b", 32, ("onnxsim_blocks.py", "2"), peer="script"),
    CommandJob("vit_b", 32, ("replaceme_like.py", "2"), peer="script"),
)
THREADS: tuple[tuple[CommandJob, CommandJob], ...] = (
    (_DIGITS, replace(_DIGITS, busy=True)),
    *(
        (CommandJob(*job, threads=1), CommandJob(*job, threads=2))
        for job in (("resnet56", 768, _RESNET56), ("resnet50", 64, _REFIT))
    ),
)
"""Pairs of the same command: alone and beside other work, and with one thread and two."""


def own_jobs(folder: Path) -> tuple[CommandJob, ...]:
    """Default `prune` of each network NAME.onnx in a folder, on the N samples of NAME-N.npz beside it."""
    found = []
    for model in sorted(folder.glob("*.onnx")):
        for data in sorted(folder.glob(f"{model.stem}-*.npz")):
            samples = data.stem.removeprefix(f"{model.stem}-")
            if samples.isdecimal():
                found.append(CommandJob(model.stem, int(samples), ("prune",)))
    return tuple(found)


def run_commands(
    folder: Path,
    networks: list[str],
    threads: int,
    repeats: int,
    peers: Path | None,
    own: Path | None = None,
) -> Figures:
    """Figures of all commands on some networks.

    Args:
        folder: for models and samples.
        networks: which ones, by name.
        threads: of each command.
        repeats: runs of each; medians are kept.
        peers: python of the peers' environment.
        own: a folder with networks of the user's, see `own_jobs`.
    """
    found: Figures = {}
    theirs = own_jobs(own) if own else ()
    for job in (*COMMANDS, *(job for pair in THREADS for job in pair), *theirs):
        if (job.network not in networks and job not in theirs) or (job.peer and peers is None):
            continue
        model, data = _files(job, own if own and job in theirs else folder)
        count = threads if job.threads is None else job.threads
        forward = _forward(model, data, job, threads) if data and not job.imports else None
        with busy(_CORES if job.busy else 0):
            command = _command(job, model, data, folder, count, peers)
            runs = [_run(command, count) for _ in range(repeats)]
        found[job.title] = {name: median(run[name] for run in runs) for name in runs[0]} | {
            "forward_s": forward,
            "file_bytes": model.stat().st_size,
            "samples": job.samples,
        }
        print(f"{job.title}: {found[job.title]['cpu_s']:.2f} s", file=sys.stderr, flush=True)
    return found


def _files(job: CommandJob, folder: Path) -> tuple[Path, Path | None]:
    if job.network == "digits":
        digits = ROOT / "models" / "digits.npz" if job.samples else None
        return ROOT / "models" / "resnet_digits.onnx", digits
    model, data = folder / f"{job.network}.onnx", folder / f"{job.network}-{job.samples}.npz"
    if not model.exists():
        NETWORKS[job.network](model)
    if job.samples and not data.exists():
        samples(job.network, data, job.samples)
    return model, data if job.samples else None


def _command(
    job: CommandJob, model: Path, data: Path | None, folder: Path, threads: int, peers: Path | None
) -> list[str]:
    command, *options = job.arguments
    written = str(folder / "pruned.onnx")
    if job.peer == "module":
        return [str(peers), "-m", command, *options, str(model)]
    if job.peer == "script":
        files = [str(model), *([str(data), written] if data else [])]
        return [str(peers), str(_PEERS / command), *files, *options]
    made = ["-o", written, "--force"] if command == "prune" else []
    given = ["--data", str(data)] if data else []
    ours = [command, str(model), "-q", *(["--threads", str(threads)] if threads else [])]
    ours += [*options, *given, *made]
    if job.imports:
        listing = [sys.executable, str(_IMPORTS), str(folder / "imports.json")]
        subprocess.run([*listing, *ours], stdout=subprocess.DEVNULL, cwd=ROOT, check=True)
        return listing
    return [sys.executable, "-m", "redtest_onnx", *ours]


def _run(command: list[str], threads: int) -> Figures:
    """CPU seconds, wall time and peak memory of a process, as the system counts them."""
    pools = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    environment = {name: value for name, value in os.environ.items() if name not in pools}
    environment |= dict.fromkeys(pools, str(threads)) if threads else {}
    launcher = [sys.executable, "-S", "-c", _LAUNCH, *command]
    result = subprocess.run(
        launcher, stdout=subprocess.PIPE, env=environment, cwd=ROOT, check=True, text=True
    )
    found = json.loads(result.stdout)
    if found.pop("code") not in (0, 1):
        raise RuntimeError(f"{' '.join(command)} failed")
    return {name: float(value) for name, value in found.items()}


def _forward(model: Path, data: Path, job: CommandJob, threads: int) -> float:
    """CPU seconds of one pass over the samples."""
    name = "calibration/input" if job.network == "digits" else ""  # else that of the model's input
    arguments = [str(model), str(data), str(threads), name]
    result = subprocess.run(
        [sys.executable, "-c", _FORWARD, *arguments], stdout=subprocess.PIPE, check=True, text=True
    )
    return float(result.stdout)


def table(figures: Figures) -> str:
    """The figures as Markdown."""
    lines = [
        "| command | CPU s | forward pass s | x forward | peak memory MB | x file |",
        "|---|---|---|---|---|---|",
    ]
    in_pairs = {job.title for pair in THREADS for job in pair}
    ours = [job.title for job in COMMANDS if job.title in figures]
    theirs = [title for title in figures if title not in in_pairs and title not in ours]
    for title in (*ours, *theirs):
        found = figures[title]
        forward = found["forward_s"]
        times = [f"{forward:.2f}", f"{found['cpu_s'] / forward:.1f}"] if forward else ["", ""]
        peak = found["peak_bytes"]
        memory = [f"{peak / 1e6:.0f}", f"{peak / found['file_bytes']:.1f}"]
        lines.append(f"| `{title}` | {found['cpu_s']:.1f} | {' | '.join([*times, *memory])} |")
    return "\n".join(lines)


def threads_table(figures: Figures) -> str:
    """Pairs of the same command as Markdown."""
    lines = ["| command | CPU s | wall s | x CPU | x wall |", "|---|---|---|---|---|"]
    for pair in THREADS:
        found = [figures.get(job.title) for job in pair]
        if None in found:
            continue
        for job, one in zip(pair, found, strict=True):
            ratios = [f"{one[what] / found[0][what]:.2f}" for what in ("cpu_s", "wall_s")]
            lines.append(
                f"| `{job.title}` | {one['cpu_s']:.1f} | {one['wall_s']:.1f} | {' | '.join(ratios)} |"
            )
    return "\n".join(lines)
