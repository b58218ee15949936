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

from benchmarking.contenders import CONTENDERS, REFERENCES
from benchmarking.prepared import Prepared


def main() -> None:
    """Prepare, run once for the memory and to warm up, run again for the time."""
    name, path = sys.argv[1], Path(sys.argv[2])
    told = json.loads(path.read_text())
    chosen = {key: told[key] for key in ("network", "modules", "tensors", "threads", "device")}
    job = Prepared(path.parent, **chosen)
    memory = _DeviceMemory() if job.device == "cuda" else _Memory()
    start = _cpu_seconds()
    call = CONTENDERS[name](job)
    prepared = _cpu_seconds() - start
    memory.start()
    result = None if name in told["once"] or name in REFERENCES.values() else call()
    memory.see()
    started, wall = _cpu_seconds(), perf_counter()
    result = call()  # ends with a copy to the host: nothing is still running on a device
    figures = {
        "cpu_s": _cpu_seconds() - started,
        "wall_s": perf_counter() - wall,
        "prepare_cpu_s": prepared,
        "before_bytes": memory.before,
        "added_bytes": memory.see() - memory.before,
        "metric_share": getattr(call, "metric_share", None),
    }
    if result is not None:
        np.save(path.with_name(f"{path.stem}.{name.replace(' ', '-')}.npy"), result)
    print(json.dumps(figures))


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class _Memory:
    """Peak of the resident memory."""

    def __init__(self) -> None:
        self.before = self._peak = 0

    def start(self) -> None:
        """Look at what is there, and start the high-water mark anew."""
        Path("/proc/self/clear_refs").write_text("5")
        self.before = _status("VmRSS")

    def see(self) -> int:
        """The highest since the start."""
        self._peak = max(self._peak, self._now())
        return self._peak

    def _now(self) -> int:
        return _status("VmHWM")


class _DeviceMemory(_Memory):
    """Peak of what a device's memory holds: allocators keep what they have taken."""

    def start(self) -> None:
        """Look at what is there."""
        self.before = self._now()

    def _now(self) -> int:
        import torch

        free, total = torch.cuda.mem_get_info()
        return total - free


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


if __name__ == "__main__":
    main()
