"""Local processes: as much as they are worth, and nothing lost when one dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep

import pytest
from search.pieces import die_once, meet, raise_bug
from search.toy import ChainWork, table

from redtest_onnx.engines.run import EngineOptions, run_all
from redtest_onnx.errors import InputError
from redtest_onnx.ranking.candidate import MeasuredCandidate
from redtest_onnx.search.store import Store

NAMES = [f"{a}-{b}-3-3" for a in (2, 3) for b in (2, 3, 4, 5)]


@pytest.mark.parametrize("workers", [1, 2])
def test_all_work_is_done_once(workers: int) -> None:
    names = [*NAMES, "1-1-1-1"]
    finished = list(run_all(ChainWork(), names, EngineOptions(workers=workers)))
    assert sorted(item.piece for item in finished) == sorted(names)
    errors = {item.piece: item.error for item in finished if item.error}
    assert errors == {"1-1-1-1": "is too narrow"}
    assert all(
        item.value is not None and item.value.name == item.piece for item in finished if not item.error
    )


def test_an_address_without_its_engine_is_refused() -> None:
    with pytest.raises(InputError, match="that of a Ray cluster"):
        list(run_all(ChainWork(), NAMES, EngineOptions(address="auto")))


def test_two_workers_work_at_the_same_time(tmp_path: Path) -> None:
    names = [str(tmp_path / name) for name in ("a", "b")]
    finished = run_all(meet, names, EngineOptions(workers=2))
    assert len({item.value for item in finished}) == 2


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kills processes as POSIX does")
def test_a_dead_process_loses_nothing(tmp_path: Path) -> None:
    names = ["a", str(tmp_path / "b.dies"), "c", "d", str(tmp_path / "e.dies"), "f"]
    finished = list(run_all(die_once, names, EngineOptions(workers=2)))
    assert sorted(item.piece for item in finished) == sorted(names)
    assert all(item.value == item.piece.upper() for item in finished)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kills processes as POSIX does")
def test_work_that_kills_its_process_each_time_is_given_up() -> None:
    finished = {
        item.piece: item for item in run_all(die_once, ["a", "b.always", "c"], EngineOptions(workers=2))
    }
    assert "its process died 3 times" in (finished["b.always"].error or "")
    assert set(finished) == {"a", "b.always", "c"}


@pytest.mark.skipif(sys.platform != "linux", reason="looks processes up as Linux does")
def test_workers_end_with_their_driver(tmp_path: Path) -> None:
    path = tmp_path / "run.sqlite"
    tests = Path(__file__).parents[1]
    paths = os.pathsep.join([str(tests), str(tests.parent)])
    driver = subprocess.Popen(
        [sys.executable, tests / "search" / "toy.py", path, "200", "local", "2"],
        env={**os.environ, "PYTHONPATH": paths},
    )
    end = monotonic() + 60
    while count(path) < 3:
        assert monotonic() < end
        sleep(0.1)
    driver.kill()
    driver.wait()
    with Store.open(path) as store:
        workers = {int(o.worker) for o in store.outcomes().values() if isinstance(o, MeasuredCandidate)}
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert monotonic() < end
        sleep(0.1)


def count(path: Path) -> int:
    """Results so far; none before the file has its tables."""
    try:
        return len(table(path))
    except InputError:
        return 0


def test_a_bug_is_not_swallowed() -> None:
    for workers in (1, 2):
        with pytest.raises(ValueError, match="no bug"):
            list(run_all(raise_bug, ["a", "b"], EngineOptions(workers=workers)))


@pytest.mark.skipif(os.name != "posix", reason="a terminal of POSIX sends Ctrl-C to a group")
def test_workers_that_still_import_answer_ctrl_c_without_a_word(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    (tmp_path / "slow_work.py").write_text(
        "import pathlib, sys, time\n"
        "if 'driver' not in sys.argv:\n"
        f"    pathlib.Path({str(begun)!r}).touch()\n"
        "    time.sleep(30)\n"
        "def work(name):\n    return name\n"
    )
    driver = tmp_path / "driver.py"
    driver.write_text(
        "import signal, sys\n"
        "if __name__ == '__main__':\n"
        "    signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "    sys.argv.append('driver')\n"
        "    from slow_work import work\n"
        "    sys.argv.pop()\n"
        "    from redtest_onnx.engines.run import EngineOptions, run_all\n"
        "    try:\n"
        "        list(run_all(work, ['a', 'b'], EngineOptions(workers=2)))\n"
        "    except KeyboardInterrupt:\n"
        "        sys.exit('interrupted')\n"
    )
    root = str(Path(__file__).parents[2])
    with subprocess.Popen(
        [sys.executable, str(driver)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), root])},
    ) as process:
        end = monotonic() + 60
        while not begun.exists() and monotonic() < end:
            sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        said = process.communicate(timeout=60)[1]
    assert said == "interrupted\n"
