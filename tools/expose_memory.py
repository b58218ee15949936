"""How much memory `expose --save` takes for activations that are far larger.

    python tools/expose_memory.py --gigabytes 10        # needs as much free disk in the temporary folder

Generates a convolutional network of ten tensors, 5 MiB of activations a sample, writes those of as many
synthetic samples as it takes into a folder, and prints the size of the folder and the peak memory of the
process. Works where the system tells the memory of a child, that is not on Windows.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

TENSORS, CHANNELS, SIZE = 10, 32, 64
SAMPLE = TENSORS * CHANNELS * SIZE * SIZE * 4


def network(path: Path) -> None:
    """Write a chain of convolutions and ReLUs."""
    rng = np.random.default_rng(0)
    nodes, weights = [], []
    x, channels = "input", 3
    for k in range(TENSORS // 2):
        scale = (2 / (9 * channels)) ** 0.5
        kernel = rng.normal(scale=scale, size=(CHANNELS, channels, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(kernel, f"w{k}"))
        nodes.append(helper.make_node("Conv", [x, f"w{k}"], [f"conv{k}"], f"conv{k}", pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"conv{k}"], [f"relu{k}"], f"relu{k}"))
        x, channels = f"relu{k}", CHANNELS
    nodes.append(helper.make_node("GlobalAveragePool", [x], ["output"], "output"))
    given = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, SIZE, SIZE])
    made = helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", CHANNELS, 1, 1])
    graph = helper.make_graph(nodes, "chain", [given], [made], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)


def main() -> None:
    """Print one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=10)
    options = parser.parse_args()
    samples = -(-int(options.gigabytes * 1e9) // SAMPLE)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        network(folder / "model.onnx")
        np.save(folder / "input.npy", np.random.default_rng(0).random((64, 3, SIZE, SIZE), np.float32))
        data = np.lib.format.open_memmap(folder / "data.npy", "w+", np.float32, (samples, 3, SIZE, SIZE))
        data[:] = np.resize(np.load(folder / "input.npy"), data.shape)
        data.flush()
        command = [sys.executable, "-m", "redtest_onnx", "expose", str(folder / "model.onnx"), "-q"]
        command += ["--data", str(folder / "data.npy"), "--save", str(folder / "values")]
        begin = perf_counter()
        subprocess.run(command, check=True)
        seconds = perf_counter() - begin
        written = sum(file.stat().st_size for file in (folder / "values").glob("*.npy"))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(
        f"{samples:,} samples, {written / 1e9:.1f} GB of activations in {seconds:.0f} s, "
        f"peak memory {peak / 1e9:.2f} GB"
    )


if __name__ == "__main__":
    main()
