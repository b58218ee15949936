"""Local processes: as much as they are worth, and nothing lost when one dies."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from time import perf_counter

import pytest
from nas.toy import ChainWork

from redtest_onnx.nas.engines.run import EngineOptions, run_all

NAMES = [f"{a}-{b}-3-3" for a in (2, 3) for b in (2, 3, 4, 5)]


def die_once(name: str) -> str:
    """Kills its own process the first time that it is called with a name that is a path."""
    marker = Path(name)
    if marker.suffix == ".dies" and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if marker.suffix == ".always":
        os.kill(os.getpid(), signal.SIGKILL)
    return name.upper()


@pytest.mark.parametrize("workers", [1, 2])
def test_all_work_is_done_once(workers: int) -> None:
    names = [*NAMES, "1-1-1-1"]
    finished = list(run_all(ChainWork(), names, EngineOptions(workers=workers)))
    assert sorted(item.name for item in finished) == sorted(names)
    errors = {item.name: item.error for item in finished if item.error}
    assert errors == {"1-1-1-1": "is too narrow"}
    assert all(item.value is not None and item.value.name == item.name for item in finished if not item.error)


def test_two_workers_work_at_the_same_time() -> None:
    begin = perf_counter()
    finished = list(run_all(ChainWork(seconds=1.0), NAMES, EngineOptions(workers=2)))
    took = perf_counter() - begin
    assert len({item.value.worker for item in finished if item.value}) == 2
    assert took < sum(item.value.seconds for item in finished if item.value)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kills processes as POSIX does")
def test_a_dead_process_loses_nothing(tmp_path: Path) -> None:
    names = ["a", str(tmp_path / "b.dies"), "c", "d", str(tmp_path / "e.dies"), "f"]
    finished = list(run_all(die_once, names, EngineOptions(workers=2)))
    assert sorted(item.name for item in finished) == sorted(names)
    assert all(item.value == item.name.upper() for item in finished)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kills processes as POSIX does")
def test_work_that_kills_its_process_each_time_is_given_up() -> None:
    finished = {
        item.name: item for item in run_all(die_once, ["a", "b.always", "c"], EngineOptions(workers=2))
    }
    assert "its process died 3 times" in (finished["b.always"].error or "")
    assert set(finished) == {"a", "b.always", "c"}


def test_a_bug_is_not_swallowed() -> None:
    for workers in (1, 2):
        with pytest.raises(ValueError, match="no bug"):
            list(run_all(raise_bug, ["a", "b"], EngineOptions(workers=workers)))


def raise_bug(name: str) -> str:
    raise ValueError("no bug of the user")
