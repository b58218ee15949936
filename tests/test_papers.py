"""docs/papers.md: each row is made by a command that runs and prints what the row says, or names why not."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from redtest_onnx.cli.main import run

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "papers.md"
EXPERIMENTS = ROOT / "tools" / "experiments"
ROW = re.compile(r"^\| (.+?) \| (.+?) \| (.+?) \|$", re.MULTILINE)
# Commands that ran in this process keep scripts' folders out of the path of those that it starts.
SHELL = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
SPAN = re.compile(r"`([^`]+)`")


def rows() -> list[tuple[str, str, str]]:
    """What a paper or the card says, how it is made, what that prints."""
    found = ROW.findall(PAGE.read_text(encoding="utf-8"))
    return [row for row in found if not row[0].startswith(("---", "what "))]


def commands() -> list[tuple[str, list[str]]]:
    """Commands of the page in their order, each with the texts it must print."""
    return [
        (made[0], SPAN.findall(prints))
        for _, how, prints in rows()
        if (made := SPAN.findall(how)) and made[0].startswith(("redtest-onnx ", "python "))
    ]


@pytest.mark.parametrize(("command", "prints"), commands(), ids=[command for command, _ in commands()])
def test_each_command_prints_what_its_row_says(
    command: str,
    prints: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for package in ("torch", "matplotlib", "PIL"):
        pytest.importorskip(package)
    for name in ("models", "tools", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "240")
    shown = ""
    for part in command.split(" && "):
        words = shlex.split(part)
        if words[0] == "redtest-onnx":
            assert run(words[1:]) == 0
            shown += capsys.readouterr().out
        else:
            call = [sys.executable, *words[1:]]
            done = subprocess.run(call, capture_output=True, text=True, env=SHELL)
            assert done.returncode == 0, done.stderr
            shown += done.stdout
    for text in prints:
        if re.fullmatch(r"[\w-]+\.(png|svg|onnx|json|md)", text):
            assert (tmp_path / text).stat().st_size > 0, text
        else:
            assert text in shown, text


def test_rows_are_checked_or_say_why_not() -> None:
    assert len(rows()) > 25
    for what, how, prints in rows():
        made = SPAN.findall(how)
        if made and made[0].startswith(("redtest-onnx ", "python ")):
            assert SPAN.findall(prints), f"{what}: what is printed is not checked"
        elif made and "::" in made[0]:
            for test in made:
                file, _, name = test.partition("::")
                assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), test
        else:
            assert prints.startswith(("lost", "not ")), f"{what}: no command and no reason"


def test_every_figure_table_algorithm_and_equation_has_a_row() -> None:
    named = " ".join(what for what, *_ in rows())
    singles = [
        "Fig. 1",
        "Fig. 2",
        "Fig. 3",
        "Fig. 4, 5",
        "Fig. 6, E5",
        "Fig. E2",
        "Fig. E3",
        "Fig. E4, E6, E7",
    ]
    singles += ["Table 1", "Tables E2-E6", "Algorithm 1", "Algorithm 2", "Algorithm 3", "Eq. 1-8"]
    assert [name for name in singles if name not in named] == []


def test_the_published_table_is_that_of_the_published_results() -> None:
    sys.path.insert(0, str(EXPERIMENTS))
    try:
        from table1_report import table
    finally:
        sys.path.remove(str(EXPERIMENTS))
    lines = (ROOT / "docs" / "table1-results.jsonl").read_text(encoding="utf-8").splitlines()
    results = [json.loads(line) for line in lines]
    page = (ROOT / "docs" / "table1.md").read_text(encoding="utf-8")
    scales = dict.fromkeys(row["scale"] for row in results)
    assert "digits" in scales
    for scale in scales:
        assert table(results, scale) in page, scale


def test_no_tool_writes_into_the_documentation_unless_asked() -> None:
    generators = {"generate_docs.py", "bridge_operators.py"}  # whose whole purpose that is; both can --check
    for path in (ROOT / "tools").rglob("*.py"):
        for default in re.findall(r"default=([^\n]*)", path.read_text(encoding="utf-8")):
            assert path.name in generators or "docs" not in default, f"{path.name}: {default}"
