"""Check the CUDA path on a machine with an NVIDIA GPU, and write a report with figures.

    python tools/gpu_check.py                       # everything; writes docs/gpu-check.md
    python tools/gpu_check.py --only matrix stdout
    python tools/gpu_check.py --models FOLDER       # further .onnx files to measure on both devices
    python tools/gpu_check.py --device cpu          # a rehearsal without a GPU

Needs the extra `gpu` or `gpu-cuda12`, and `dev` for the tests; `torch` for fine-tuning. The exit code is 1 if
a check fails.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
from gpu_models import write_models

import redtest_onnx as rt
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analyze import AnalysisSettings, analyze
from redtest_onnx.similarity.compare import compare

ROOT = Path(__file__).parents[1]
MODELS = ROOT / "models"
RESNET, VIT, DATA = MODELS / "resnet_digits.onnx", MODELS / "vit_digits.onnx", MODELS / "digits.npz"
TOLERANCE = 1e-5
_TESTS = ("tests/metrics", "tests/runtime", "tests/similarity", "tests/training")
_PACKAGES = ("onnxruntime-gpu", "onnxruntime", "cupy-cuda13x", "cupy-cuda12x", "torch", "numpy", "onnx")


@dataclass
class Context:
    """What the checks share."""

    folder: Path
    device: str
    models: Path | None
    figures: dict[str, Any] = field(default_factory=dict)

    def cli(
        self, *arguments: object, prelude: str = "", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run the command line in a process of its own."""
        code = f"import sys\n{prelude}\nfrom redtest_onnx.cli.main import main\nmain(sys.argv[1:])"
        return subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment},
            check=False,
        )

    def analysis(self, *arguments: object, **options: str) -> tuple[dict[str, Any], str]:
        """The JSON document of `analyze --json -`, and what stood on stderr."""
        result = self.cli("analyze", *arguments, "--json", "-", **options)
        assert result.returncode == 0, f"exit {result.returncode}: {result.stderr[-600:]}"
        return json.loads(result.stdout), result.stderr


def check_tests(context: Context) -> str:
    """`pytest -m gpu`: none fails, none is skipped."""
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-rs", "-p", "no:cacheprovider", *_TESTS],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    last = result.stdout.strip().splitlines()[-1]
    assert result.returncode == 0, result.stdout[-1500:]
    assert "skipped" not in last, result.stdout[-1500:]
    return last.strip("= ")


def check_matrix(context: Context) -> str:
    """CPU and GPU agree for every pooling, kernel and estimator."""
    largest, runs, where = 0.0, 0, ""
    ways = product(
        (RESNET, VIT),
        ("mean", "none", "cls", "token"),
        ("linear", "rbf"),
        ("minibatch", "paper", "biased", "exact"),
    )
    for path, pooling, kernel, estimator in ways:
        if (kernel, estimator) == ("rbf", "exact"):
            continue
        settings = AnalysisSettings(
            pooling=pooling,
            kernel=kernel,
            estimator=estimator,
            samples=64,
            batches=2,  # type: ignore[arg-type]
        )
        difference = _difference(path, DATA, settings, context.device)
        runs += 1
        if difference >= largest:
            largest, where = difference, f"{path.stem}, {pooling}, {kernel}, {estimator}"
    context.figures["matrix"] = {"largest_difference": largest, "combinations": runs, "where": where}
    assert largest < TOLERANCE, f"{largest:.1e} ({where})"
    return f"{runs} combinations, largest difference {largest:.1e} ({where})"


def check_kinds(context: Context) -> str:
    """Models of other kinds: fixed batch, recurrent, If, float16, integers, and those of --models."""
    files = write_models(context.folder, RESNET)
    if context.models:
        files |= {path.stem: path for path in sorted(context.models.rglob("*.onnx"))}
    found = {}
    for name, path in files.items():
        settings = AnalysisSettings(layers="all", samples=32, batches=2)
        found[name] = _difference(path, None, settings, context.device)
    context.figures["kinds"] = found
    # Half precision differs in its third digit between any two machines.
    worst = {name: value for name, value in found.items() if value >= (1e-2 if "16" in name else 1e-4)}
    assert not worst, worst
    return ", ".join(f"{name} {value:.1e}" for name, value in found.items())


def check_compare(context: Context) -> str:
    """Two models compared on both devices."""
    models = [rt.load(path) for path in (RESNET, VIT)]
    largest = 0.0
    for estimator in ("minibatch", "exact"):
        settings = AnalysisSettings(samples=64, batches=2, estimator=estimator)  # type: ignore[arg-type]
        one, two = (
            compare(*(_bench(model, DATA, device) for model in models), settings).similarity
            for device in (context.device, "cpu")
        )
        largest = max(largest, float(np.nanmax(np.abs(one - two))))
    assert largest < TOLERANCE, f"{largest:.1e}"
    return f"largest difference {largest:.1e}"


def check_repeats(context: Context) -> str:
    """Three runs give the same numbers."""
    model = rt.load(RESNET)
    largest = 0.0
    for pooling in ("mean", "none"):
        settings = AnalysisSettings(pooling=pooling, samples=64, batches=2)  # type: ignore[arg-type]
        first, *others = (analyze(_bench(model, DATA, context.device), settings).similarity for _ in range(3))
        largest = max(largest, *(float(np.nanmax(np.abs(first - other))) for other in others))
    assert largest < 1e-6, f"{largest:.1e}"
    return "to the bit" if largest == 0 else f"largest difference {largest:.1e}"


def check_stdout(context: Context) -> str:
    """JSON and SARIF on stdout are alone there, with the GPU and with the GPU hidden."""
    few = ("--data", DATA, "--samples", 32)
    for hidden in ({}, {"CUDA_VISIBLE_DEVICES": ""}):
        context.analysis(RESNET, *few, **hidden)
        sarif = context.cli("audit", RESNET, "--format", "sarif", **hidden)
        assert sarif.returncode in (0, 1), sarif.stderr
        json.loads(sarif.stdout)
    _, said = context.analysis(RESNET, *few, "-q", CUDA_VISIBLE_DEVICES="")
    assert not said.strip(), said
    return "clean; nothing on stderr with -q"


def check_hidden(context: Context) -> str:
    """Without a visible GPU auto takes the CPU, and --device cuda is one message and exit 2."""
    few = ("--data", DATA, "--samples", 32)
    result = context.cli("analyze", RESNET, *few, "--device", "cuda", CUDA_VISIBLE_DEVICES="")
    assert result.returncode == 2, f"exit {result.returncode}: {result.stderr}"
    assert "Traceback" not in result.stderr
    hidden, said = context.analysis(RESNET, *few, "--device", "auto", CUDA_VISIBLE_DEVICES="")
    cpu, _ = context.analysis(RESNET, *few, "--device", "cpu")
    assert hidden["cka"] == cpu["cka"], "auto without a GPU differs from cpu"
    return f"exit 2: {result.stderr.strip().splitlines()[0]} (auto: {len(said.splitlines())} lines on stderr)"


def check_without_cupy(context: Context) -> str:
    """Without CuPy similarities are computed on the CPU, with a warning."""
    common = (RESNET, "--data", DATA, "--samples", 32, "--device", context.device)
    with_cupy, _ = context.analysis(*common)
    without, said = context.analysis(*common, prelude="sys.modules['cupy'] = None")
    assert context.device == "cpu" or "CuPy can't be used" in said, said
    return f"difference {_apart(with_cupy, without):.1e}"


def check_without_dlpack(context: Context) -> str:
    """Values of an ONNX Runtime before 1.26, which has no DLPack, are read by their address."""
    common = (RESNET, "--data", DATA, "--samples", 32, "--device", context.device)
    hide = "import onnxruntime\ndel onnxruntime.OrtValue.__dlpack__"
    usual, _ = context.analysis(*common)
    old, said = context.analysis(*common, prelude=hide)
    difference = _apart(usual, old)
    assert difference < 1e-6, f"{difference:.1e} {said}"
    return f"difference {difference:.1e}"


def check_tf32(context: Context) -> str:
    """CUPY_TF32=1 changes nothing."""
    common = (VIT, "--data", DATA, "--samples", 64, "--device", context.device)
    usual, _ = context.analysis(*common)
    asked, _ = context.analysis(*common, CUPY_TF32="1")
    difference = _apart(usual, asked)
    assert difference < 1e-6, f"{difference:.1e}"
    return f"difference {difference:.1e}"


def check_prune(context: Context) -> str:
    """Prune with repair, fine-tune with verification against ONNX Runtime."""
    small, tuned = context.folder / "small.onnx", context.folder / "tuned.onnx"
    common = ("--device", context.device, "--json", "-")
    pruned = context.cli(
        "prune", RESNET, "--data", DATA, "--samples", 64, "--remove", 8, "-o", small, *common
    )
    assert pruned.returncode == 0, pruned.stderr[-800:]
    result = json.loads(pruned.stdout)
    before, after = (result[part]["accuracy"] for part in ("before", "after"))
    done = context.cli(
        "finetune", small, "--data", DATA, "--teacher", RESNET, "--epochs", 2, "-o", tuned, *common
    )
    assert done.returncode == 0, done.stderr[-800:]
    json.loads(done.stdout)
    context.figures["prune"] = {"accuracy_before": before, "accuracy_after": after}
    return f"8 layers removed, accuracy {before:.1%} -> {after:.1%}; fine-tuned and verified"


def check_memory(context: Context) -> str:
    """Too many samples at once are one message and exit 2."""
    path = context.folder / "many.npy"
    spec = rt.load(RESNET).inputs[0]
    size = [dim if isinstance(dim, int) else 1 for dim in (spec.shape or ())[1:]]
    for samples in (20_000, 60_000):
        np.save(path, np.random.default_rng(0).normal(size=(samples, *size)).astype(np.float32))
        few = ("--samples", samples, "--batches", 1, "--pooling", "none", "--device", context.device)
        result = context.cli("analyze", RESNET, "--data", path, *few)
        if result.returncode:
            break
    assert result.returncode == 2, f"exit {result.returncode}: {result.stderr[-800:]}"
    assert "out of memory" in result.stderr, result.stderr
    message = next(line for line in result.stderr.splitlines() if "out of memory" in line)
    return f"{samples:,} samples, exit 2: {message[:160]}"


def _bench(model: rt.Model, data: Path | None, device: str) -> Workbench:
    return Workbench(model, rt.open_data(data, model), rt.RunOptions(device))


def _difference(path: Path, data: Path | None, settings: AnalysisSettings, device: str) -> float:
    """Largest difference of the similarities that the device and the CPU give."""
    model = rt.load(path)
    one, two = (analyze(_bench(model, data, place), settings).similarity for place in (device, "cpu"))
    assert np.array_equal(np.isnan(one), np.isnan(two)), "different layers are undefined"
    return float(np.nanmax(np.abs(one - two)))


def _apart(one: dict[str, Any], two: dict[str, Any]) -> float:
    first, second = (np.array(each["cka"], float) for each in (one, two))
    return float(np.nanmax(np.abs(first - second)))


CHECKS: dict[str, Callable[[Context], str]] = {
    name.removeprefix("check_").replace("_", "-"): function
    for name, function in list(globals().items())
    if name.startswith("check_")
}


def main() -> None:
    """Run the checks and write the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=list(CHECKS), default=list(CHECKS))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--models", type=Path)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "gpu-check.md")
    arguments = parser.parse_args()
    rows, failed = [], 0
    with TemporaryDirectory(prefix="redtest-onnx-") as folder:
        context = Context(Path(folder), arguments.device, arguments.models)
        for name in arguments.only:
            begin = perf_counter()
            try:
                outcome, passed = CHECKS[name](context), "yes"
            except Exception as error:
                print(traceback.format_exc(), file=sys.stderr)
                outcome, passed = str(error).strip() or type(error).__name__, "NO"
                failed += 1
            seconds = perf_counter() - begin
            print(f"{passed:4} {name:16} {seconds:6.1f} s  {outcome[:300]}", flush=True)
            rows.append((passed, name, (CHECKS[name].__doc__ or "").strip(), outcome, seconds))
            arguments.output.write_text(_report(arguments.device, rows), encoding="utf-8")
    figures = arguments.output.with_suffix(".json")
    figures.write_text(json.dumps(context.figures, indent=1) + "\n")
    sys.exit(1 if failed else 0)


def _report(device: str, rows: list[tuple[str, str, str, str, float]]) -> str:
    lines = [
        "# The CUDA path, checked",
        "",
        "Written by `python tools/gpu_check.py`.",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, {_hardware(device)}, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}; {_versions()}.",
        "",
        "| passed | check | what is asked | what was found | seconds |",
        "|---|---|---|---|---|",
    ]
    for passed, name, asked, outcome, seconds in rows:
        said = " ".join(outcome.split()).replace("|", "\\|").replace(str(ROOT), ".")[:400]
        lines.append(f"| {passed} | {name} | {asked} | {said} | {seconds:.1f} |")
    return "\n".join(lines) + "\n"


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


if __name__ == "__main__":
    main()
