"""The rows of a table as a space: drawn without repeats, changed into their neighbours, evaluated once."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from redtest_onnx.data.images import ImageOptions
from redtest_onnx.engines.run import EngineOptions
from redtest_onnx.errors import InputError
from redtest_onnx.ranking.table import AccuracyTable
from redtest_onnx.search.evaluate import CandidateEvaluation
from redtest_onnx.search.recipe import Recipe
from redtest_onnx.search.rows import RowArchitectures, RowSpace, row_space
from redtest_onnx.search.search import SearchBudget, SearchProblem, SearchResult, search
from redtest_onnx.search.size import SizeSpace
from redtest_onnx.search.space import ImageTask, Space
from redtest_onnx.search.store import Store
from redtest_onnx.search.strategies import StrategyName, make_strategy
from redtest_onnx.search.topology import TopologySpace

CELLS = tuple(TopologySpace())[::37]
SPACE = row_space(CELLS, None, TopologySpace(), SizeSpace())


def test_rows_find_the_space_they_are_of() -> None:
    assert SPACE.base == TopologySpace()
    assert (
        row_space(("2x16-4x32-1x64", "1x8-1x8-1x8"), None, TopologySpace(), SizeSpace()).base == SizeSpace()
    )
    assert row_space(("resnet20", "vgg19"), None, TopologySpace(), SizeSpace()).base is None
    with pytest.raises(InputError, match="no network of the size space"):
        row_space(("resnet20",), SizeSpace())
    with pytest.raises(InputError, match="no candidate"):
        row_space((), None)


def test_a_row_is_its_own_candidate() -> None:
    """Two cells that compute the same have two rows, and two results in a benchmark."""
    same = "|skip_connect~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|"
    other = "|skip_connect~0|+|none~0|none~1|+|none~0|nor_conv_3x3~1|none~2|"
    assert TopologySpace().key(same) == TopologySpace().key(other)
    rows = row_space((same, other), TopologySpace())
    assert rows.key(same) != rows.key(other)
    assert rows.depth(same) == 20
    assert row_space(("a",), None).depth("a") is None
    with pytest.raises(InputError, match="can't be built"):
        row_space(("a",), None).build("a", ImageTask())


def test_values_mean_the_nearest_row() -> None:
    for name in CELLS[:20]:
        assert SPACE.spell(SPACE.parse(name)) == name
    values = dict.fromkeys(SPACE.choices, "none")
    nearest = SPACE.parse(SPACE.spell(values))
    differences = [sum(v != "none" for v in SPACE.parse(name).values()) for name in CELLS]
    assert sum(v != "none" for v in nearest.values()) == min(differences)


@pytest.mark.parametrize("space", [SPACE, row_space(("a", "b", "c"), None)], ids=["cells", "names"])
def test_mutation_leads_to_another_row(space: RowSpace) -> None:
    rng = np.random.default_rng(0)
    for name in space.names[:20]:
        found = space.mutate(name, rng)
        assert found in space.names
        assert found != name
    assert row_space(("a",), None).mutate("a", rng) == "a"


def test_mutation_prefers_rows_that_differ_in_little() -> None:
    space, rng = row_space(tuple(TopologySpace()), TopologySpace()), np.random.default_rng(0)
    parent = space.names[7777]
    own = space.parse(parent)
    found = [space.parse(space.mutate(parent, rng)) for _ in range(300)]
    changes = Counter(sum(value != own[key] for key, value in other.items()) for other in found)
    assert changes[1] / 300 == pytest.approx(0.78, abs=0.08)
    assert changes[2] / 300 == pytest.approx(0.19, abs=0.08)


def searched(
    path: Path, space: Space, strategy: StrategyName, evaluations: int, *, source: Path | None = None
) -> SearchResult:
    base = space.base if isinstance(space, RowSpace) else None
    work = CandidateEvaluation(
        RowArchitectures(base),
        None,
        ImageOptions(),
        Recipe(),
        source=AccuracyTable.read(source) if source else None,
        wanted=("macs", "msrs"),
    )
    with Store.create(path, {}) as store:
        return search(
            work,
            SearchProblem(
                space,
                make_strategy(strategy, space, 0, population=4, tournament=2),
                lambda candidate: candidate.accuracy,
                window=4 if strategy in ("evolution", "tpe") else None,
            ),
            store,
            SearchBudget(evaluations),
            engine=EngineOptions(),
        )


@pytest.mark.parametrize("strategy", ["all", "random", "evolution"])
def test_every_strategy_finds_rows_and_nothing_else(tmp_path: Path, strategy: StrategyName) -> None:
    table = tmp_path / "t.csv"
    rows = [f"{name},{0.5 + k / 1000},{k + 1},{k % 40}" for k, name in enumerate(CELLS[:60])]
    table.write_text("name,accuracy,macs,msrs\n" + "\n".join(rows) + "\n", encoding="utf-8")
    space = row_space(CELLS[:60], TopologySpace())
    count = 60 if strategy != "evolution" else 30
    found = searched(tmp_path / "s.sqlite", space, strategy, count, source=table)
    names = Counter(outcome.name for outcome in found.outcomes)
    assert set(names.values()) == {1}
    assert len(names) == count
    assert set(names) <= set(space.names)
    assert found.reason == "evaluations"


def test_workers_are_not_sent_the_rows() -> None:
    work = CandidateEvaluation(RowArchitectures(SPACE.base), None, ImageOptions(), Recipe())
    assert len(pickle.dumps(work)) < 2000


def test_all_needs_rows() -> None:
    with pytest.raises(InputError, match="every row of a table"):
        make_strategy("all", TopologySpace(), 0, population=2, tournament=1)
