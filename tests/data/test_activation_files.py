"""Activations go to disk batch by batch and come back as they were."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from redtest_onnx.data.activation_files import INDEX, open_writer
from redtest_onnx.data.arrays import load_arrays
from redtest_onnx.errors import InputError

RNG = np.random.default_rng(0)
VALUES = {
    "/a/b:0": RNG.normal(size=(7, 3, 2)).astype(np.float32),
    "ids": RNG.integers(0, 9, size=(7,)),
    "half": RNG.normal(size=(7, 4)).astype(np.float16),
}


def write(path: Path, values: dict[str, np.ndarray], cuts: tuple[int, ...] = (3, 6)) -> None:
    with open_writer(path, len(next(iter(values.values())))) as writer:
        for part in zip(*(np.split(v, cuts) for v in values.values()), strict=True):
            writer.write(dict(zip(values, part, strict=True)), len(part[0]))


def test_npz_and_folder_hold_what_was_written(tmp_path: Path) -> None:
    write(tmp_path / "values.npz", VALUES)
    write(tmp_path / "folder", VALUES)
    files = json.loads((tmp_path / "folder" / INDEX).read_text(encoding="utf-8"))
    with np.load(tmp_path / "values.npz") as archive:
        for name, expected in VALUES.items():
            np.testing.assert_array_equal(archive[name], expected)
            np.testing.assert_array_equal(np.load(tmp_path / "folder" / files[name]), expected)
    assert sorted(load_arrays(tmp_path / "values.npz")) == sorted(VALUES)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "values.npz"]


def test_parquet_has_a_row_per_sample(tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow: the extra data")
    write(tmp_path / "values.parquet", VALUES)
    table = pq.read_table(tmp_path / "values.parquet")
    assert table.num_rows == 7
    column = np.array(table["/a/b:0"].to_pylist(), np.float32)
    shape = json.loads(table.schema.field("/a/b:0").metadata[b"shape"])
    np.testing.assert_array_equal(column.reshape(7, *shape), VALUES["/a/b:0"])


def test_a_tensor_without_samples_is_kept_once(tmp_path: Path) -> None:
    table = np.eye(3)
    with open_writer(tmp_path / "v.npz", 4) as writer:
        writer.write({"x": np.zeros((2, 1)), "table": table}, 2)
        writer.write({"x": np.ones((2, 1)), "table": table}, 2)
    with np.load(tmp_path / "v.npz") as archive:
        np.testing.assert_array_equal(archive["table"], table)


@pytest.mark.parametrize("name", ["v.npz", "folder"])
def test_what_fails_leaves_nothing(tmp_path: Path, name: str) -> None:
    def write_both(first: np.ndarray, second: np.ndarray) -> None:
        with open_writer(tmp_path / name, 4) as writer:
            writer.write({"x": first}, 2)
            writer.write({"x": second}, 2)

    with pytest.raises(InputError, match="sizes"):
        write_both(np.zeros((2, 3)), np.zeros((2, 5)))
    with pytest.raises(InputError, match="differs"):
        write_both(np.zeros((3, 3)), np.ones((3, 3)))
    assert list(tmp_path.iterdir()) == []


def test_other_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unsupported format"):
        open_writer(tmp_path / "values.csv", 3)
