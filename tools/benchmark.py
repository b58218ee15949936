"""Speed, memory and error of the measurement beside a plain forward pass and other tools.

Writes --output; the documentation's page is made with `--output docs/benchmark.md`.

    python tools/benchmark.py                                   # all jobs: takes an hour
    python tools/benchmark.py --jobs resnet56-blocks resnet56-all --peers-python peers/bin/python
    python tools/benchmark.py --jobs resnet56-blocks --threads 2 --load 2 \\
        --contenders "plain forward" "ours, flattened" pytorch-cka          # beside two busy processes
    python tools/benchmark.py --device cuda
    python tools/benchmark.py --jobs --commands digits blocks24 blocks99 resnet50      # whole commands only

Needs Linux and torch. The peers live in an environment of their own; without it their rows say so:

    python -m venv peers
    peers/bin/pip install torch numpy pytorch-cka==1.1.3 torch_cka==0.21 onnxslim onnxsim==0.8.1 onnx-tool \\
        onnxruntime --extra-index-url https://download.pytorch.org/whl/cpu

Figures are kept beside it (benchmark.json); jobs that are not run again keep theirs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from benchmarking.commands import own_jobs, run_commands
from benchmarking.contenders import CONTENDERS, ON_CPU_ONLY, PEERS, REFERENCES
from benchmarking.jobs import JOBS, Job, write_job, write_network
from benchmarking.load import busy
from benchmarking.onnx_networks import NETWORKS
from benchmarking.tables import COMMANDS_KEY, PLAIN, render

ROOT = Path(__file__).parents[1]
WORKER = Path(__file__).parent / "benchmarking" / "measure.py"


def main() -> None:
    """Run the jobs that were asked for and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", nargs="*", choices=list(JOBS), default=list(JOBS))
    parser.add_argument(
        "--commands",
        nargs="*",
        choices=["digits", *NETWORKS],
        default=[],
        help="networks to run whole commands on",
    )
    parser.add_argument(
        "--own", type=Path, help="a folder: `prune` runs on its NAME.onnx with the N samples of NAME-N.npz"
    )
    parser.add_argument("--contenders", nargs="+", choices=list(CONTENDERS), help="[default: the job's]")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--load", type=int, default=0, help="busy processes beside each measurement")
    parser.add_argument("--peers-python", type=Path, help="python of the peers' environment")
    parser.add_argument("--output", type=Path, default=Path("benchmark.md"))
    arguments = parser.parse_args()
    if arguments.own and not own_jobs(arguments.own):
        parser.error(f"{arguments.own} holds no NAME.onnx with a NAME-N.npz beside it")
    stored = arguments.output.with_suffix(".json")
    results: dict[str, Any] = json.loads(stored.read_text()) if stored.exists() else {}
    with TemporaryDirectory(prefix="redtest-onnx-") as folder:
        if arguments.commands or arguments.own:
            with busy(arguments.load):
                figures = run_commands(
                    Path(folder),
                    arguments.commands,
                    arguments.threads,
                    arguments.repeats,
                    arguments.peers_python,
                    arguments.own,
                )
            known = results.setdefault(COMMANDS_KEY, {"figures": {}})
            known["figures"].update(figures)
            known.update(
                date=datetime.now(UTC).strftime("%Y-%m-%d"),
                machine=_machine("cpu"),
                threads=arguments.threads,
            )
            stored.write_text(json.dumps(results, indent=1) + "\n")
            arguments.output.write_text(render(results))
        for name in arguments.jobs:
            with busy(arguments.load):
                result = run(JOBS[name], Path(folder), arguments)
            results[" ".join((name, *_circumstances(arguments)))] = result
            stored.write_text(json.dumps(results, indent=1) + "\n")
            arguments.output.write_text(render(results))


def _circumstances(arguments: argparse.Namespace) -> list[str]:
    """What tells two runs of the same job apart."""
    threads = [f"{arguments.threads} threads"] if arguments.threads != 1 else []
    load = [f"beside {arguments.load}"] if arguments.load else []
    return [*([] if arguments.device == "cpu" else [arguments.device]), *threads, *load]


def run(job: Job, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """All contenders of one job, taking turns."""
    place = folder / job.network
    if not place.exists():
        write_network(job.network, job.samples, place)
    path = write_job(job, place, arguments.threads, arguments.device)
    asked = dict.fromkeys([PLAIN, *(arguments.contenders or job.contenders)])  # all are compared with it
    fitting = [name for name in asked if arguments.device == "cpu" or name not in ON_CPU_ONLY]
    there = [name for name in fitting if name not in PEERS or arguments.peers_python]
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in there}
    for name in sorted({REFERENCES[name] for name in there if name in REFERENCES}):
        measure(name, path, arguments)
    for turn in range(arguments.repeats):
        for name in there:
            if turn == 0 or name not in job.once or set(there) == set(job.once):
                runs[name].append(measure(name, path, arguments))
    return {
        "title": job.title,
        "device": arguments.device,
        "load": arguments.load,
        "layers": len(json.loads(path.read_text())["modules"]),
        "samples": job.samples,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": _machine(arguments.device),
        "threads": arguments.threads,
        "repeats": arguments.repeats,
        "once": list(job.once),
        "missing": [name for name in fitting if name not in there],
        "errors": _errors(path, there),
        "runs": runs,
    }


def measure(name: str, path: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """One contender in a process of its own."""
    python = arguments.peers_python if name in PEERS else sys.executable
    threads = str(arguments.threads)
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
    result = subprocess.run(
        [str(python), str(WORKER), name, str(path)], stdout=subprocess.PIPE, env=environment, check=True
    )
    figures: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    print(f"{path.parent.name} {path.stem}: {name}: {figures['cpu_s']:.2f} s", file=sys.stderr, flush=True)
    return figures


def _errors(path: Path, names: list[str]) -> dict[str, float]:
    """Largest difference of each contender's matrix from the one in float64 behind the same forward pass."""

    def matrix(name: str) -> np.ndarray:
        return np.load(path.with_name(f"{path.stem}.{name.replace(' ', '-')}.npy"))

    compared = [name for name in names if name in REFERENCES]
    return {name: float(np.nanmax(np.abs(matrix(name) - matrix(REFERENCES[name])))) for name in compared}


def _machine(device: str) -> str:
    if device == "cuda":
        import torch

        return f"{torch.cuda.get_device_name()}, {platform.system()} {platform.machine()}"
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown"
    )
    return f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}"


if __name__ == "__main__":
    main()
