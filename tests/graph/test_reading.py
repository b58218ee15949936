"""Documents from anywhere: of any depth, size and kind."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from redtest_onnx.errors import InputError
from redtest_onnx.graph import reading
from redtest_onnx.graph.reading import copy_part, read_json


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"a": ' * 100_000, "nested too deeply"),
        ("9" * 10_000, "is not JSON"),
        ("{", "is not JSON"),
        ("", "is not JSON"),
    ],
    ids=["lists", "objects", "digits", "cut", "empty"],
)
def test_what_is_no_json_of_a_sane_depth(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "d.json").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_json(tmp_path / "d.json")
    assert caught.value.where == str(tmp_path / "d.json")


def test_what_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "d.json").open("wb") as file:
        file.truncate((256 << 20) + 1)  # takes no room on the disk
    with pytest.raises(InputError, match="MiB"):
        read_json(tmp_path / "d.json")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")
def test_what_never_ends_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(InputError, match="is a device, a pipe or a socket"):
            read_json(path)


@pytest.mark.parametrize("inside", [True, False], ids=["by the system", "through memory"])
@pytest.mark.parametrize(("offset", "length"), [(0, 5), (4097, 700_000), (999_990, 10), (7, 0)])
def test_parts_of_files_follow_each_other(
    inside: bool, offset: int, length: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not inside:
        monkeypatch.setattr(reading, "_copy_inside", lambda source, offset, length, sink: 0)
    content = os.urandom(1_000_000)
    (tmp_path / "source").write_bytes(content)
    with (tmp_path / "source").open("rb") as source, (tmp_path / "sink").open("wb") as sink:
        sink.write(b"before")
        copy_part(source, offset, length, sink)
        assert sink.tell() == 6 + length
        sink.write(b"between")
        copy_part(source, 1, 2, sink)
    wanted = b"before" + content[offset : offset + length] + b"between" + content[1:3]
    assert (tmp_path / "sink").read_bytes() == wanted


def test_a_part_ends_where_its_file_does(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"12345")
    with (tmp_path / "source").open("rb") as source, (tmp_path / "sink").open("wb") as sink:
        copy_part(source, 3, 100, sink)
    assert (tmp_path / "sink").read_bytes() == b"45"
