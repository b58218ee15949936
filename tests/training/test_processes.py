from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

TRAINING = """
import contextlib, os, pathlib, torch
from redtest_onnx.training.processes import processes

def train(group):
    module = torch.nn.Linear(3, 1)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    wrapped = group.wrap(module)
    wrapped(torch.ones(2, 3)).sum().backward()
    optimizer.step()

def threads():
    names = set()
    for path in pathlib.Path("/proc/self/task").glob("*/comm"):
        with contextlib.suppress(OSError):  # a thread that has just ended
            names.add(path.read_text().strip())
    return {name for name in names if not name.startswith("cuda")}  # the driver's stay

torch.set_num_threads(1)
before = threads()
with processes("cpu") as group:
    train(group)
    during = threads()
name = f"{__file__}.{os.environ['RANK']}"
pathlib.Path(name).write_text(f"{len(during - before) > 0} {sorted(threads() - before)}")
"""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this PyTorch has no torch.distributed")
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are read from Linux's /proc")
def test_no_thread_of_the_group_outlives_it(tmp_path: Path) -> None:
    # One that does can abort a process that has done its work, now and then.
    script = tmp_path / "train.py"
    script.write_text(TRAINING)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, str(script)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert [Path(f"{script}.{rank}").read_text() for rank in range(2)] == ["True []", "True []"]
