"""Check the CUDA path on a machine with an NVIDIA GPU, and write a report with figures.

    python tools/gpu_check.py                       # everything; writes gpu-check.md
    python tools/gpu_check.py --only matrix stdout  # the others keep what was found before
    python tools/gpu_check.py --models FOLDER       # further .onnx files to measure on both devices
    python tools/gpu_check.py --device cpu          # a rehearsal without a GPU

Needs the extra `gpu` or `gpu-cuda12`, and `dev` for the tests; `torch` for fine-tuning. The exit code is 1 if
a check fails. The documentation's page is made with `--output docs/gpu-check.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
from gpu_models import write_models
from gpu_report import machine, report

import redtest_onnx as rt
from redtest_onnx.graph.probe.taps import expose
from redtest_onnx.runtime.session import Session
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analyze import AnalysisSettings, analyze
from redtest_onnx.similarity.compare import compare

ROOT = Path(__file__).parents[1]
MODELS = ROOT / "models"
RESNET, VIT, DATA = MODELS / "resnet_digits.onnx", MODELS / "vit_digits.onnx", MODELS / "digits.npz"
TOLERANCE = 1e-5
_TESTS = ("tests/metrics", "tests/runtime", "tests/similarity", "tests/training")


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
        found[name], unlike = _difference_where_alike(path, context.device)
        if unlike:
            context.figures.setdefault("unlike", {})[name] = unlike
    context.figures["kinds"] = found
    # Half precision differs in its third digit between any two machines.
    worst = {name: value for name, value in found.items() if value >= (1e-2 if "16" in name else 1e-4)}
    assert not worst, worst
    said = ", ".join(f"{name} {value:.1e}" for name, value in found.items())
    unlike = ", ".join(
        f"{count} activations of {name}" for name, count in context.figures.get("unlike", {}).items()
    )
    return said + (f"; left out, since the devices compute them differently: {unlike}" if unlike else "")


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


def _difference_where_alike(path: Path, device: str) -> tuple[float, int]:
    """As `_difference` with all activations, of those that both devices compute alike; and how many others.

    An operator that subtracts nearly equal numbers gives other values on each device: then similarities
    differ, too, and rightly so.
    """
    model = rt.load(path)
    settings = AnalysisSettings(layers="all", samples=32, batches=2)
    benches = [_bench(model, None, place) for place in (device, "cpu")]
    one, two = (analyze(bench, settings) for bench in benches)
    assert np.array_equal(np.isnan(one.similarity), np.isnan(two.similarity)), "other layers are undefined"
    names = [layer.tensor for layer in one.layers]
    opened = benches[1].opened
    feeds = opened.data.inputs(range(opened.fixed_batch or 32))
    exposed = expose(opened.model, names)
    values, others = (
        Session(exposed, rt.RunOptions(place), level="basic").run(feeds) for place in (device, "cpu")
    )
    alike = [
        float(np.abs(values[name].astype(float) - others[name]).max())
        <= 1e-3 * float(others[name].astype(float).std(axis=0).max())
        for name in names
    ]
    difference = np.abs(one.similarity - two.similarity)[np.ix_(alike, alike)]
    return float(np.nanmax(difference, initial=0)), alike.count(False)


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
    parser.add_argument("--output", type=Path, default=Path("gpu-check.md"))
    arguments = parser.parse_args()
    stored = arguments.output.with_suffix(".json")
    kept: dict[str, Any] = json.loads(stored.read_text()) if stored.exists() else {}
    failed = 0
    with TemporaryDirectory(prefix="redtest-onnx-") as folder:
        context = Context(Path(folder), arguments.device, arguments.models)
        for name in arguments.only:
            begin = perf_counter()
            try:
                outcome, passed = CHECKS[name](context), True
            except Exception as error:
                print(traceback.format_exc(), file=sys.stderr)
                outcome, passed = str(error).strip() or type(error).__name__, False
                failed += 1
            seconds = perf_counter() - begin
            print(f"{'yes' if passed else 'NO':4} {name:16} {seconds:6.1f} s  {outcome[:300]}", flush=True)
            asked = (CHECKS[name].__doc__ or "").strip()
            kept[name] = {"passed": passed, "asked": asked, "outcome": outcome, "seconds": round(seconds, 1)}
            kept[name] |= {"where": machine(arguments.device), "figures": context.figures.get(name)}
            stored.write_text(json.dumps(kept, indent=1) + "\n")
            arguments.output.write_text(report({key: kept[key] for key in CHECKS if key in kept}))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
