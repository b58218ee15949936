"""Tables and sounds give what the same samples in an .npz give, to the bit."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_samples import (
    COUNT,
    IMAGES,
    LABELS,
    RNG,
    VECTORS,
    assert_same,
    images_net,
    png,
    signals_net,
    similarity,
    vectors_net,
)

import redtest_onnx as rt


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".feather", ".jsonl", ".csv"])
@pytest.mark.parametrize("form", ["columns", "lists"])
def test_tables_of_numbers(suffix: str, form: str, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow: the extra data")
    if (suffix, form) == (".csv", "lists"):
        pytest.skip("CSV has no lists")
    columns: dict[str, Any] = {f"f{k}": VECTORS[:, k] for k in range(6)}
    if form == "lists":
        columns = {"x": VECTORS.tolist()}
    path = tmp_path / f"rows{suffix}"
    write_table(pyarrow, {**columns, "label": LABELS}, path)
    assert_same(vectors_net(), path, {"x": VECTORS}, tmp_path)


@pytest.mark.parametrize("form", ["bytes", "paths", "struct"])
def test_tables_of_images(form: str, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow: the extra data")
    contents = [png(k) for k in range(COUNT)]
    column: list[Any] = list(contents)
    if form == "struct":
        column = [{"bytes": content, "path": None} for content in contents]
    if form == "paths":
        (tmp_path / "files").mkdir()
        column = [f"files/{k}.png" for k in range(COUNT)]
        for name, content in zip(column, contents, strict=True):
            (tmp_path / name).write_bytes(content)
    path = tmp_path / "rows.parquet"
    write_table(pyarrow, {"image": column, "label": LABELS}, path)
    assert_same(images_net(), path, {"x": IMAGES}, tmp_path)


def write_table(pyarrow: Any, columns: dict[str, Any], path: Path) -> None:
    import pyarrow.csv
    import pyarrow.feather
    import pyarrow.parquet

    table = pyarrow.table(columns)
    match path.suffix:
        case ".parquet":
            pyarrow.parquet.write_table(table, path, row_group_size=5)
        case ".csv":
            pyarrow.csv.write_csv(table, path)
        case ".feather":
            pyarrow.feather.write_feather(table, str(path))
        case ".arrow":  # a stream, as Hugging Face's data sets are stored
            with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_stream(file, table.schema) as out:
                out.write_table(table)
        case _:
            import json

            path.write_text("\n".join(json.dumps(row) for row in table.to_pylist()))


def test_words_in_a_table_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="needs pyarrow: the extra data")
    (tmp_path / "rows.csv").write_text("text,label\n" + "good day,1\n" * 8)
    with pytest.raises(rt.InputError, match="holds no numbers"):
        rt.open_data(tmp_path / "rows.csv", vectors_net()).inputs([0])


def test_sounds(tmp_path: Path) -> None:
    pytest.importorskip("soundfile", reason="needs soundfile: the extra sound")
    values = RNG.integers(-(2**15), 2**15, (COUNT, 40)).astype(np.int16)
    folder = tmp_path / "sounds"
    order = np.argsort(LABELS, kind="stable")
    for k in order:
        (folder / f"c{LABELS[k]}").mkdir(parents=True, exist_ok=True)
        with wave.open(str(folder / f"c{LABELS[k]}" / f"{k:03}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8000)
            file.writeframes(values[k].tobytes())
    np.savez(tmp_path / "expected.npz", x=values[order].astype(np.float32) / 2**15, labels=LABELS[order])
    expected, _ = similarity(signals_net(), tmp_path / "expected.npz")
    found, labels = similarity(signals_net(), folder)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(labels, LABELS[order])
    slower = rt.open_data(folder, signals_net(), sample_rate=4000)
    assert slower.inputs([0])["x"].shape == (1, 40)
    assert not slower.inputs([0])["x"][0, 20:].any()
    with pytest.raises(rt.InputError, match="sounds feed one input"):
        rt.open_data(folder, images_net())
