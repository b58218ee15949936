"""A Ray cluster of two nodes on loopback: workers and drivers die, the table stays right."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from many_models import write_models
from search.toy import ChainWork, run, table

from redtest_onnx.engines.run import EngineOptions
from redtest_onnx.errors import InputError
from redtest_onnx.search.store import Store

pytest.importorskip("ray", reason="needs Ray: pip install 'redtest-onnx[nas]'")

from ray.cluster_utils import Cluster

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="several nodes on one machine are for Linux"),
    # Ray leaves sockets and children to the interpreter's end.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

TESTS = Path(__file__).parents[1]
PATHS = os.pathsep.join([str(TESTS), str(TESTS.parent)])
EVALUATIONS = 14
PATIENCE = 300  # seconds, for machines that have much else to do


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A head and a second node, one core each."""
    node = {"num_cpus": 1, "object_store_memory": 80 << 20}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", PATHS)
        cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
        cluster.add_node(**node)
    yield cluster.address
    cluster.shutdown()


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[object, ...]]:
    path = tmp_path_factory.mktemp("ray") / "local.sqlite"
    with Store.create(path, {}) as store:
        run(store, EVALUATIONS, EngineOptions(), ChainWork())
    return table(path)


@contextmanager
def driver(path: Path, address: str) -> Iterator[subprocess.Popen[bytes]]:
    """A search in a process of its own, which does not outlive the block."""
    process = subprocess.Popen(
        [sys.executable, TESTS / "search" / "toy.py", path, str(EVALUATIONS), "ray", "1", address],
        env={**os.environ, "PYTHONPATH": PATHS},
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def workers(path: Path) -> list[int]:
    """Process of each result so far."""
    if not path.exists():
        return []
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as connection:
        try:
            rows = connection.execute("SELECT worker FROM results WHERE error IS NULL").fetchall()
        except sqlite3.OperationalError:
            return []  # not created yet
    return [int(row[0]) for row in rows]


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)


def test_killed_workers_and_drivers_change_nothing(
    tmp_path: Path, address: str, expected: list[tuple[object, ...]]
) -> None:
    path = tmp_path / "run.sqlite"
    with driver(path, address) as first:
        wait_for(lambda: len(workers(path)) >= 3, first)
        killed = workers(path)[-1]
        os.kill(killed, signal.SIGKILL)  # it is at the next candidate already
        before = workers(path).count(killed)
        wait_for(lambda: len(workers(path)) >= 6, first)
    done = table(path)
    assert 6 <= len(done) < EVALUATIONS
    with driver(path, address) as second:
        assert second.wait(PATIENCE) == 0
    assert table(path) == expected
    assert len({row[0] for row in expected}) == EVALUATIONS
    assert workers(path).count(killed) == before


@pytest.mark.parametrize("series", [False, True], ids=["analyze", "prune --curve"])
def test_many_models_give_the_same_on_two_nodes(tmp_path: Path, address: str, series: bool) -> None:
    data = write_models(tmp_path / "models")
    options = ["--data", str(data), "--threads", "1", "--samples", "16", "-q", "--json"]

    def documents(name: str, *engine: str) -> list[dict[str, Any]]:
        found = tmp_path / f"{name}.json"
        what = ["prune", "--repair", "none", "--curve", name] if series else ["analyze"]
        subprocess.run(
            [sys.executable, "-m", "redtest_onnx", what[0], "models", *what[1:], *options, found, *engine],
            env={**os.environ, "PYTHONPATH": PATHS},
            cwd=tmp_path,
            check=True,
            timeout=PATIENCE,
        )
        document = json.loads(found.read_text(encoding="utf-8"))
        assert [Path(item["path"]).name for item in document["failed"]] == ["broken.onnx"]
        models: list[dict[str, Any]] = document["models"]
        return models

    here, there = documents("here"), documents("there", "--engine", "ray", "--address", address)
    assert [item["model"] for item in there] == [item["model"] for item in here]
    assert len(there) == 3
    for ours, theirs in zip(here, there, strict=True):
        if series:
            plans = [[point["plan"] for point in side["points"]] for side in (ours, theirs)]
            assert plans[0] == plans[1]
            for point in theirs["points"]:
                other = tmp_path / point["output"].replace("there", "here", 1)
                assert (tmp_path / point["output"]).read_bytes() == other.read_bytes()
        else:
            changing = {"timing", "memory"}
            assert {key: ours[key] for key in ours.keys() - changing} == {
                key: theirs[key] for key in theirs.keys() - changing
            }


def test_a_fit_over_files_gives_the_same_on_two_nodes(tmp_path: Path, address: str) -> None:
    data = write_models(tmp_path / "models")
    shards = [tmp_path / f"shard{k}.npz" for k in range(3)]
    for k, shard in enumerate(shards):
        np.savez(shard, x=np.random.default_rng(k).normal(size=(40 + 8 * k, 6)).astype(np.float32))
    files = [word for shard in shards for word in ("--fit-data", shard.name)]

    def written(name: str, *engine: str) -> bytes:
        call = ["prune", "models/b.onnx", "--data", str(data), "--remove", "1", "--repair", "refit", *files]
        subprocess.run(
            [sys.executable, "-m", "redtest_onnx", *call, "--threads", "1", "-q", "-o", name, *engine],
            env={**os.environ, "PYTHONPATH": PATHS},
            cwd=tmp_path,
            check=True,
            timeout=PATIENCE,
        )
        return (tmp_path / name).read_bytes()

    assert written("there.onnx", "--engine", "ray", "--address", address) == written("here.onnx")
    assert not list(tmp_path.glob("redtest-onnx-fit-*"))


def test_an_unreachable_cluster_is_a_users_error() -> None:
    with (
        pytest.raises(InputError, match="no Ray cluster"),
        EngineOptions("ray", 1, "127.0.0.1:1").open(str.upper),
    ):
        pass
