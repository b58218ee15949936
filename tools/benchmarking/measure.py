"""Measure one contender on one job, in a process of its own: prints one line of JSON.

python tools/benchmarking/measure.py CONTENDER JOB.json
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from time import perf_counter

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarking.contenders import CONTENDERS, Job


def main() -> None:
    """Prepare, run once for the memory and to warm up, run again for the time."""
    name, path = sys.argv[1], Path(sys.argv[2])
    told = json.loads(path.read_text())
    job = Job(path.parent, told["network"], told["modules"], told["tensors"], told["threads"])
    start = _cpu_seconds()
    call = CONTENDERS[name](job)
    prepared = _cpu_seconds() - start
    before = _reset_peak()
    result = None if name in told["once"] else call()
    warm_peak = _status("VmHWM")
    started, wall = _cpu_seconds(), perf_counter()
    result = call()
    figures = {
        "cpu_s": _cpu_seconds() - started,
        "wall_s": perf_counter() - wall,
        "prepare_cpu_s": prepared,
        "before_bytes": before,
        "added_bytes": max(warm_peak, _status("VmHWM")) - before,
        "metric_share": getattr(call, "metric_share", None),
    }
    if result is not None:
        np.save(path.with_name(f"{path.stem}.{name.replace(' ', '-')}.npy"), result)
    print(json.dumps(figures))


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _reset_peak() -> int:
    """Start the high-water mark of resident memory anew; what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


if __name__ == "__main__":
    main()
