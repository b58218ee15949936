"""Run the main job with the lowest versions that pyproject.toml declares, in an environment of its own.

    python tools/lowest_versions.py [--folder .venv-lowest] [--only-list]

Every dependency, and what the extra `cpu` adds, is installed in the lowest version that its bound allows.
Then an analysis, a pruning with data and repair, a comparison and an audit of an embedded model run with it,
each in a process of its own; the first that fails ends this with its exit code.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tomllib
import venv
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
MODEL, DATA = ROOT / "models" / "resnet_digits.onnx", ROOT / "models" / "digits.npz"


def main() -> None:
    """Make the environment, unless it is there, and run the commands in it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=ROOT / ".venv-lowest")
    parser.add_argument("--only-list", action="store_true", help="print what would be installed")
    arguments = parser.parse_args()
    packages = lowest()
    print(*packages, flush=True)
    if arguments.only_list:
        return
    python = arguments.folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        venv.create(arguments.folder, with_pip=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    with TemporaryDirectory() as folder:
        pruned = str(Path(folder, "pruned.onnx"))
        data = ["--data", str(DATA), "--threads", "1"]
        for command in (
            ["analyze", str(MODEL), *data],
            ["prune", str(MODEL), *data, "--remove", "4", "-o", pruned],
            ["compare", str(MODEL), pruned, *data],
            ["audit", pruned, "--no-latency"],
        ):
            print("redtest-onnx", *command, flush=True)
            done = subprocess.run([python, "-m", "redtest_onnx", *command], cwd=ROOT, check=False)
            if done.returncode not in (0, 1):  # 1 is a verdict on the model
                sys.exit(done.returncode)


def lowest() -> list[str]:
    """Every requirement with its lower bound as the version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = []
    for requirement in (*project["dependencies"], *project["optional-dependencies"]["cpu"]):
        name, bound = requirement.split(">=")
        found.append(f"{name}=={bound.split(',')[0]}")
    return found


if __name__ == "__main__":
    main()
