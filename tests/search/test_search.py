"""A search tells its strategy in order, stores once, and ends the same however it was interrupted."""

from __future__ import annotations

import sqlite3
from collections import Counter
from pathlib import Path

import pytest
from search.toy import ChainSpace, ChainWork, evolution, run, table

from redtest_onnx.engines.run import EngineOptions
from redtest_onnx.errors import InputError, OutputError
from redtest_onnx.ranking.candidate import MeasuredCandidate
from redtest_onnx.search.search import SearchBudget, SearchProblem, search
from redtest_onnx.search.store import Failure, Store
from redtest_onnx.search.strategies import RandomSearch, RegularisedEvolution, TreeParzen

INLINE = EngineOptions()


class DriverDiedError(Exception):
    """The driver dies."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("search") / "whole.sqlite"
    with Store.create(path, {}) as store:
        assert run(store, 30, INLINE, ChainWork()).reason == "evaluations"
    return path


def test_each_architecture_is_there_once(whole: Path) -> None:
    names = [row[0] for row in table(whole)]
    assert len(names) == len(set(names)) == 30


def test_evolution_improves(whole: Path) -> None:
    scores = [row[1] for row in table(whole) if isinstance(row[1], float)]
    assert sum(scores[-10:]) > sum(scores[:6]) / 6 * 10 * 1.1


@pytest.mark.parametrize("stop", [1, 7, 19])
def test_an_interrupted_search_ends_the_same(whole: Path, tmp_path: Path, stop: int) -> None:
    path = tmp_path / "run.sqlite"
    calls = Counter[str]()

    def work(architecture: str) -> MeasuredCandidate:
        if len(calls) == stop:
            raise DriverDiedError
        calls[architecture] += 1
        return ChainWork()(architecture)

    problem = SearchProblem(ChainSpace(), evolution(), lambda c: c.accuracy, window=4)
    with Store.create(path, {}) as store, pytest.raises(DriverDiedError):
        search(work, problem, store, SearchBudget(30))
    assert len(table(path)) == len(calls) == stop
    with Store.open(path) as store:
        assert run(store, 30, INLINE, ChainWork()).evaluated == 30 - stop
    assert table(path) == table(whole)


def test_workers_do_not_change_what_is_found(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.sqlite"
    with Store.create(path, {}) as store:
        run(store, 30, EngineOptions(workers=2), ChainWork())
    assert table(path) == table(whole)


def test_a_larger_budget_goes_on(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.sqlite"
    for budget in (9, 30):
        with Store.open(path) if path.exists() else Store.create(path, {}) as store:
            run(store, budget, INLINE, ChainWork())
    assert table(path) == table(whole)


def test_failures_are_stored_with_their_reason(tmp_path: Path) -> None:
    path = tmp_path / "run.sqlite"

    class Narrow:
        def ask(self) -> str:
            return "1-1-1-1"

        def tell(self, architecture: str, fitness: float | None) -> None:
            assert fitness is None

    with Store.create(path, {}) as store:
        problem = SearchProblem(ChainSpace(), Narrow(), lambda c: c.accuracy)
        found = search(ChainWork(), problem, store, SearchBudget(5))
    assert found.reason == "space"
    (failure,) = found.outcomes
    assert failure == Failure("1-1-1-1", "1-1-1-1", "is too narrow")


def test_time_ends_a_search(tmp_path: Path) -> None:
    with Store.create(tmp_path / "run.sqlite", {}) as store:
        space = ChainSpace()
        found = search(
            ChainWork(seconds=0.1),
            SearchProblem(space, RandomSearch(space, 0), lambda c: c.accuracy),
            store,
            SearchBudget(1000, seconds=0.5),
        )
    assert found.reason == "seconds"
    assert 1 <= len(found.outcomes) <= 6


def test_the_table_can_be_read_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "run.sqlite"
    seen: list[int] = []

    def work(architecture: str) -> MeasuredCandidate:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as reader:
            seen.append(reader.execute("SELECT count(*) FROM results").fetchone()[0])
        reader.close()
        return ChainWork()(architecture)

    with Store.create(path, {"space": "chain"}) as store:
        assert store.settings == {"space": "chain"}
        problem = SearchProblem(ChainSpace(), evolution(), lambda c: c.accuracy, window=1)
        search(work, problem, store, SearchBudget(5))
    assert seen == [0, 1, 2, 3, 4]


def test_a_result_is_stored_once(tmp_path: Path) -> None:
    first, second = ChainWork()("2-2-2-2"), ChainWork()("2-2-2-2")
    with Store.create(tmp_path / "run.sqlite", {}) as store:
        store.add(0, first)
        store.add(0, second)
        store.add(7, second)
        assert list(store.outcomes().values()) == [first]
        with pytest.raises(sqlite3.IntegrityError):
            store.add(0, ChainWork()("3-3-3-3"))  # two proposals of one number: a bug, not a repetition


def test_files_that_are_no_search_are_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.sqlite"
    other.write_text("no database")
    with pytest.raises(InputError, match="holds no results of a search"):
        Store.open(other)
    with pytest.raises(InputError, match="no such file"):
        Store.open(tmp_path / "none.sqlite")
    with pytest.raises(OutputError, match="exists already"):
        Store.create(other, {})
    Store.create(other, {}, force=True).__exit__()


def test_evolution_takes_parents_from_the_living() -> None:
    space = ChainSpace()
    strategy = RegularisedEvolution(space, 0, population=3, tournament=30)
    for fitness in (9.0, 1.0, 2.0):
        strategy.tell(strategy.ask(), fitness)
    strategy.tell("6-6-6-6", 3.0)  # the oldest, which was the best, has left
    for _ in range(10):
        child = space.parse(strategy.ask())
        assert list(child.values()).count("6") >= 3


def test_optuna_proposes_and_repeats_itself() -> None:
    pytest.importorskip("optuna", reason="needs Optuna: pip install 'redtest-onnx[nas]'")

    def proposals() -> list[str]:
        strategy, found = TreeParzen(ChainSpace(), 0), []
        for k in range(25):
            found.append(strategy.ask())
            score = sum(map(int, found[-1].split("-")))
            strategy.tell(found[-1], None if k == 3 else score)
        return found

    one = proposals()
    assert one == proposals()
    assert sum(len(set(name.split("-")) & {"5", "6"}) for name in one[-8:]) >= 8


def test_a_search_that_is_done_says_so_however_long_it_took(tmp_path: Path) -> None:
    with Store.create(tmp_path / "run.sqlite", {}) as store:
        space = ChainSpace()
        problem = SearchProblem(space, RandomSearch(space, 0), lambda c: c.accuracy)
        found = search(ChainWork(seconds=0.2), problem, store, SearchBudget(1, seconds=0.1))
    assert (found.reason, len(found.outcomes)) == ("evaluations", 1)
