"""The page that tools/gpu_check.py writes."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = ("onnxruntime-gpu", "onnxruntime", "cupy-cuda13x", "cupy-cuda12x", "torch", "numpy", "onnx")


def report(checks: dict[str, dict[str, Any]]) -> str:
    """The page: a row per check, and where each was run.

    Args:
        checks: by name what was asked, what was found, whether it passed, seconds and the machine.
    """
    machines = list(dict.fromkeys(check["where"] for check in checks.values()))
    lines = [
        "# The CUDA path, checked",
        "",
        "Written by `python tools/gpu_check.py`; figures are in gpu-check.json.",
        "",
        *(f"{k + 1}. {where}" for k, where in enumerate(machines)),
        "",
        "| passed | check | what is asked | what was found | seconds | run on |",
        "|---|---|---|---|---|---|",
    ]
    for name, check in checks.items():
        said = " ".join(str(check["outcome"]).split()).replace("|", "\\|")
        said = said.replace(str(Path(__file__).parents[1]), ".")[:400]
        row = ("yes" if check["passed"] else "NO", name, check["asked"], said, check["seconds"])
        lines.append(f"| {' | '.join(map(str, row))} | {machines.index(check['where']) + 1} |")
    return "\n".join(lines) + "\n"


def machine(device: str) -> str:
    """Date, hardware and versions."""
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {_hardware(device)}, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}; {_versions()}"
    )


def _hardware(device: str) -> str:
    if device == "cpu":
        return "a rehearsal on the CPU"
    asked = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip().splitlines()[0]


def _versions() -> str:
    found = []
    for package in _PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)
