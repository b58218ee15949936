"""Latency told by a command of the user, for devices without Python: anything that prints a number."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

from redtest_onnx.errors import InputError
from redtest_onnx.graph.files import save
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.scratch import scratch_folder

_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_SECONDS = 600
_PLACE = "{model}"


def command_words(command: str) -> list[str]:
    """The program and its arguments, among them the place of the model's file.

    Raises:
        InputError: it has no such place, or there is no such program.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise InputError(f"latency command {command!r}: {error}") from error
    if not any(_PLACE in word for word in words):
        raise InputError(
            f"latency command {command!r} has no {_PLACE}",
            hint=f"write {_PLACE} where the file's name belongs",
        )
    if shutil.which(words[0]) is None:
        raise InputError(f"latency command: there is no program {words[0]!r}", hint="check its path")
    return words


def run_latency_command(command: str, model: Model) -> float:
    """Milliseconds that a command tells for a model: the last number it prints on stdout.

    Args:
        command: a program with its arguments, without a shell; {model} stands for the file, which may be a
            temporary one.
        model: the model.

    Raises:
        InputError: the command lacks {model}, can't be run, fails, or prints no number.
    """
    words = command_words(command)
    with scratch_folder() as folder:
        path = model.path or save(model, Path(folder) / "model.onnx").path
        arguments = [word.replace(_PLACE, os.fspath(path or "")) for word in words]
        try:
            result = subprocess.run(
                arguments,
                capture_output=True,
                text=True,
                timeout=_SECONDS,
                check=False,
                stdin=subprocess.DEVNULL,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise InputError(f"latency command can't be run: {error}", hint="try it in a terminal") from error
    if result.returncode:
        said = (result.stderr.strip() or result.stdout.strip() or "it prints nothing").splitlines()[-1]
        raise InputError(
            f"latency command fails with exit code {result.returncode}: {said}",
            hint="try it in a terminal",
        )
    numbers = _NUMBER.findall(result.stdout)
    if not numbers or not float(numbers[-1]) > 0:
        raise InputError(
            f"latency command prints no number: {result.stdout.strip()[-200:]!r}",
            hint="its last number is taken as milliseconds",
        )
    return float(numbers[-1])
