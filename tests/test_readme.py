"""What the README promises is there."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from redtest_onnx.cli.main import COMMANDS, cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_command_is_documented() -> None:
    for name in COMMANDS:
        assert f"redtest-onnx {name}" in README


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_help_and_the_command_a_text(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.help
    described = [p for p in command.params if isinstance(p, click.Option) and (p.help or p.name == "layout")]
    plain = {"layout", "batches", "device"}
    missing = [p.name for p in command.params if isinstance(p, click.Option) and p not in described]
    assert set(missing) <= plain


def test_options_in_the_readme_exist() -> None:
    options: set[str] = set()
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        options.update(flag for p in command.params for flag in p.opts)
    for flag in re.findall(r"`(--[a-z-]+)", README):
        assert flag in options, flag


def test_library_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert code is not None
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").symlink_to(ROOT / "models")
    exec(compile(code.group(1), "README.md", "exec"), {})
    assert (tmp_path / "smaller.onnx").exists()


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
