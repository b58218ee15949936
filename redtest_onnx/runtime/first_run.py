"""The first run of a model in a process of its own: a crash of ONNX Runtime ends that one, and is told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from redtest_onnx.data.dataset import Feeds
from redtest_onnx.engines.isolation import isolated_command
from redtest_onnx.errors import InputError
from redtest_onnx.graph.files import load, save
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.scratch import scratch_folder
from redtest_onnx.runtime.feeds_file import read_feeds, write_feeds
from redtest_onnx.runtime.providers import Provider
from redtest_onnx.runtime.session import RunOptions, Session, runs_elsewhere

_WINDOWS = 1 << 8  # exit codes beyond are exceptions of the system


def survive_first_run(model: Model, inputs: Iterable[Feeds], options: RunOptions) -> None:
    """Let a process of its own make the sessions that a command makes of a model, and run each once.

    A model that is refused, or doesn't run on any of the inputs, is no matter here: the next run says why.

    Args:
        model: as the user gave it.
        inputs: of the smallest run; the first that the model runs on counts.
        options: device, threads and providers.

    Raises:
        InputError: the process died.
    """
    with scratch_folder() as folder:
        path = model.path or save(model, folder / "model.onnx").path
        assert path is not None
        for k, feeds in enumerate(inputs):
            write_feeds(folder / f"{k:03d}.npz", feeds)
        (folder / "options.json").write_text(json.dumps(_described(options)), encoding="utf-8")
        command = isolated_command(__name__, str(path.resolve()), str(folder))
        result = subprocess.run(
            command, capture_output=True, text=True, errors="replace", cwd=folder, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    if result.returncode == -signal.SIGINT:
        raise KeyboardInterrupt
    if result.returncode < 0 or result.returncode >= _WINDOWS:
        raise _crash(model.label, result)


def _crash(label: str, result: subprocess.CompletedProcess[str]) -> InputError:
    known = {number.value: number.name for number in signal.Signals}
    name = known.get(-result.returncode, f"{result.returncode:#x}")
    said = "".join(f": {line}" for line in result.stderr.strip().splitlines()[-1:])
    if name == "SIGKILL":
        return InputError(
            f"its first run was killed ({name}), as a rule because memory ran out",
            where=label,
            hint="give smaller inputs, or more memory",
        )
    return InputError(
        f"ONNX Runtime crashed in its first run ({name}){said}",
        where=label,
        hint="try another version of onnxruntime, or export the model again; other inputs may do, too",
    )


def _described(options: RunOptions) -> dict[str, Any]:
    """The options that a session depends on."""
    providers = [asdict(provider) for provider in options.providers]
    for provider in providers:
        provider["library"] = provider["library"] and os.path.abspath(provider["library"])
    return {"device": options.device, "threads": options.threads, "providers": providers}


def _options(described: dict[str, Any]) -> RunOptions:
    providers = (
        Provider(one["name"], tuple((key, value) for key, value in one["options"]), one["library"])
        for one in described["providers"]
    )
    return RunOptions(described["device"], described["threads"], tuple(providers))


def _run(path: Path, folder: Path) -> None:
    """In the process of its own: every kind of session, on the first inputs that it takes."""
    options, model = _options(json.loads((folder / "options.json").read_text(encoding="utf-8"))), load(path)
    files = sorted(folder.glob("*.npz"))
    for deployed in (False, True) if runs_elsewhere(options) else (False,):
        for level in ("all",) if deployed else ("basic", "all"):
            session = Session(model, options, level=level, deployed=deployed)  # type: ignore[arg-type]
            for file in files:
                try:
                    session.run(read_feeds(file))
                except InputError:
                    continue
                break


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # at once, also within a run
    try:
        _run(Path(sys.argv[1]), Path(sys.argv[2]))
    except Exception as error:  # the command itself says what is wrong, in its own run
        sys.exit(f"{type(error).__name__}: {error}")
