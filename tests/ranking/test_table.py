"""Tables of measures: what their columns may hold, and their rows as candidates."""

from __future__ import annotations

from pathlib import Path

import pytest

from redtest_onnx.errors import InputError
from redtest_onnx.ranking.rank import RankingSettings, rank_candidates
from redtest_onnx.ranking.table import AccuracyTable


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_every_measure_of_a_candidate_is_read(tmp_path: Path) -> None:
    path = written(
        tmp_path / "t.csv",
        "name,accuracy,parameters,macs,latency_ms,msrs,layers,undefined,depth,test_accuracy,synflow,jacob_cov,"
        "naswot,comment\na,0.9,10,2e3,0.5,3.5,12,1,5,0.8,1.1e21,-134996,nan,x\nb,0.5,,,,,,,,,,,,\n",
    )
    first, second = AccuracyTable.read(path).candidates()
    assert (first.parameters, first.macs, first.layers, first.undefined, first.depth) == (10, 2000, 12, 1, 5)
    assert (first.synflow, first.jacob_cov, first.naswot) == (1.1e21, -134996.0, None)
    assert (first.msrs, first.msrs_from, first.test_accuracy) == (3.5, "table", 0.8)
    assert (second.parameters, second.msrs, second.msrs_from) == (None, None, None)


@pytest.mark.parametrize(
    ("column", "value", "why"),
    [
        ("msrs", "-1", "no size"),
        ("jacob_cov", "inf", "no finite number"),
        ("accuracy", "-0.1", "no share of 1"),
    ],
)
def test_values_that_can_not_be_are_refused(tmp_path: Path, column: str, value: str, why: str) -> None:
    path = written(tmp_path / "t.csv", f"name,{column}\na,{value}\n")
    with pytest.raises(InputError) as error:
        AccuracyTable.read(path)
    assert why in error.value.what


def test_a_table_says_what_it_lacks(tmp_path: Path) -> None:
    table = AccuracyTable.read(
        written(tmp_path / "t.csv", "name,accuracy,macs,msrs\na,0.5,1,\nb,0.6,2,3\nc,,,\n")
    )
    assert table.names == ("a", "b", "c")
    assert table.has_all(("macs",))  # c is no candidate
    assert not table.has_all(("macs", "msrs"))
    assert table.has_any("msrs")
    assert not table.has_any("latency_ms")


def test_rows_without_parameters_are_ranked(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", "name,accuracy,latency_ms,msrs\na,0.5,1,9\nb,0.6,1,9\n")
    ranking = rank_candidates(AccuracyTable.read(path).candidates(), RankingSettings("latency"))
    assert [row.candidate.name for row in ranking.rows] == ["b", "a"]
    with pytest.raises(InputError, match="its macs is unknown: `metrics` with a column macs"):
        rank_candidates(AccuracyTable.read(path).candidates(), RankingSettings())


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    """By its path a table was known for good, and with it what a caller had written into a row."""
    path = tmp_path / "t.csv"
    first = AccuracyTable.read(written(path, "name,accuracy\na,0.5\n"))
    second = AccuracyTable.read(written(path, "name,accuracy\na,0.75\n"))
    assert (first.look_up("a"), second.look_up("a")) == ({"accuracy": 0.5}, {"accuracy": 0.75})
