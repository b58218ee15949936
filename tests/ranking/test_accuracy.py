"""Tables and benchmarks that know accuracy."""

from __future__ import annotations

from pathlib import Path

import pytest

from redtest_onnx.errors import InputError
from redtest_onnx.ranking.accuracy import NatsBench
from redtest_onnx.ranking.table import AccuracyTable

SAMPLE = Path(__file__).parents[3] / "shared" / "data" / "nats_sample"
FIRST = "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|"


def write(path: Path, text: str) -> AccuracyTable:
    path.write_text(text, encoding="utf-8")
    return AccuracyTable.read(path)


def test_a_table_knows_its_rows(tmp_path: Path) -> None:
    table = write(
        tmp_path / "t.csv", "architecture,accuracy,msrs,macs,comment\na,0.5,3.5,100,x\nb,0.25,,,\nc,,1,1,\n"
    )
    assert table.look_up("a") == {"accuracy": 0.5, "msrs": 3.5, "macs": 100}
    assert table.look_up("b") == {"accuracy": 0.25}
    for unknown in ("c", "d"):
        with pytest.raises(InputError, match=f"has no accuracy for '{unknown}'"):
            table.look_up(unknown)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("accuracy\n0.5\n", "no column of names"),
        ("", "no column of names"),
        ("name,accuracy\na,0.5\na,0.6\n", "line 3: 'a' is there twice"),
        ("name,accuracy\na,good\n", "line 2: accuracy is 'good', no number"),
        ("name,accuracy\na,94.2\n", "no share of 1"),
    ],
)
def test_tables_with_mistakes_are_refused(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(InputError) as error:
        write(tmp_path / "t.csv", text).look_up("a")
    assert why in error.value.what


def test_a_missing_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        AccuracyTable.read(tmp_path / "none.csv")


def test_the_benchmarks_files_are_read() -> None:
    pytest.importorskip("nats_bench", reason="needs the package nats_bench")
    if not SAMPLE.is_dir():
        pytest.skip("the benchmark's sample records are not here")
    found = NatsBench(SAMPLE).look_up(FIRST)
    assert found["parameters"] == 129_306
    assert found["macs"] == 15_647_370
    assert found["accuracy"] == pytest.approx(0.63364, abs=1e-5)
    assert found["test_accuracy"] == pytest.approx(0.858633, abs=1e-5)
    with pytest.raises(InputError, match=r"record \d{6}.pickle.pbz2 is missing"):
        NatsBench(SAMPLE).look_up(FIRST.replace("avg_pool_3x3", "none"))


def test_a_folder_that_is_no_benchmark_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nats_bench|no meta"):
        NatsBench(tmp_path).look_up(FIRST)
