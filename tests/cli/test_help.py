"""Help in sections that fit a screen, the right word for a wrong one, completion."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys

import click
import pytest

from redtest_onnx.cli.help import SECTIONS, Command
from redtest_onnx.cli.main import COMMANDS, cli, run


def help_of(
    name: str, option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    monkeypatch.setenv("COLUMNS", "80")
    assert run([name, option]) == 0
    return capsys.readouterr().out


def command_of(name: str) -> Command:
    command = cli.get_command(click.Context(cli), name)  # type: ignore[attr-defined]
    assert isinstance(command, Command)
    return command


@pytest.mark.parametrize("name", COMMANDS)
def test_all_options_are_in_the_whole_help_and_few_in_the_short_one(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = help_of(name, "--help-all", monkeypatch, capsys)
    short = help_of(name, "--help", monkeypatch, capsys)
    flags = {o.opts[-1] for o in command_of(name).params if isinstance(o, click.Option)}
    assert {flag for flag in flags if flag in whole} == flags
    if name == "prune":
        assert len(short.splitlines()) < 45
    if len(flags) > 20:
        assert "more options" in short
    assert len(command_of(name).examples) == 3


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_are_accepted(name: str) -> None:
    """Every option of an example exists; what it names need not be there."""
    for example in command_of(name).examples:
        words = shlex.split(example, comments=True)
        start = next((i for i, word in enumerate(words) if word == name), None)
        if start is None:
            continue
        command = command_of(name)
        known = {flag for o in command.get_params(click.Context(command)) for flag in o.opts}
        assert all(word in known for word in words[start:] if word.startswith("-") and word != "-"), example


def test_sections_name_parameters_that_exist() -> None:
    names = {p.name for name in COMMANDS for p in command_of(name).params}
    assert all(parameter in names for section in SECTIONS.values() for parameter in section)
    for name in COMMANDS:
        command = command_of(name)
        own = {p.name for p in command.params}
        assert {*command.rare, *(p for s in command.sections.values() for p in s)} <= own


def test_a_wrong_command_is_answered_with_the_right_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["prnue", "model.onnx"]) == 2
    assert "Did you mean 'prune'?" in capsys.readouterr().err
    assert run(["frobnicate"]) == 2
    assert "Commands are inspect" in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_printed(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    assert "_REDTEST_ONNX_COMPLETE" in capsys.readouterr().out


def test_completion_knows_commands() -> None:
    code = "from redtest_onnx.cli.main import main; main()"
    words = {"COMP_WORDS": "redtest-onnx pr", "COMP_CWORD": "1", "_REDTEST_ONNX_COMPLETE": "bash_complete"}
    found = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **words}, capture_output=True, text=True, check=False
    )
    assert "prune" in found.stdout
