"""Does measuring more samples take more memory? Peak of `analyze` with 1,000 and with 10,000 samples.

    python tools/memory_of_samples.py [--model models/resnet_digits.onnx]

Each number of samples is measured in a process of its own, on synthetic inputs in an .npy file that is read
as it is needed, and for both poolings. Needs Linux or macOS.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import redtest_onnx as rt

ROOT = Path(__file__).parents[1]
BATCH = 100


def main() -> None:
    """Print the peaks and their ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "resnet_digits.onnx")
    model = parser.parse_args().model
    shape = rt.load(model).inputs[0].shape or ()
    with TemporaryDirectory(prefix="redtest-onnx-") as folder:
        data = Path(folder) / "inputs.npy"
        rng = np.random.default_rng(0)
        np.save(data, rng.standard_normal((10_000, *map(int, shape[1:])), dtype=np.float32))  # type: ignore[arg-type]
        for pooling in ("mean", "none"):
            peaks = {count: peak(model, data, count, pooling) for count in (1_000, 10_000)}
            ratio = peaks[10_000] / peaks[1_000]
            figures = ", ".join(f"{count:,} samples {peaks[count] / 1e6:.0f} MB" for count in peaks)
            print(f"pooling {pooling}: {figures}, ratio {ratio:.3f}")


def peak(model: Path, data: Path, samples: int, pooling: str) -> int:
    """Peak resident memory of one `analyze`, in bytes."""
    command = [sys.executable, "-m", "redtest_onnx", "analyze", str(model), "--data", str(data)]
    command += ["--samples", str(BATCH), "--batches", str(samples // BATCH), "--pooling", pooling]
    result = subprocess.run([*command, "--json", "-"], capture_output=True, text=True, check=True)
    document = json.loads(result.stdout)
    assert document["data"]["batches"] * BATCH == samples
    return int(document["memory"]["peak_rss_bytes"])


if __name__ == "__main__":
    main()
