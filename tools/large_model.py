"""Analyze and prune a model far beyond 2 GB: a decoder-only transformer with 1.2 billion float32 parameters.

    python tools/large_model.py [--layers 24] [--width 2048]

The model is written node by node with its weights in external data (about 5 GB) to a temporary folder, which
is removed at the end. Each step is a process of its own, whose peak of resident memory is printed beside the
size of the model. Needs Linux or macOS and 10 GB of disk, the pruned model included.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HEAD = 128
WORDS = 4096
TOKENS = 16
SAMPLES = 8


class Writer:
    """Nodes, and weights that go to the data file as soon as they are made."""

    def __init__(self, folder: Path) -> None:
        self._data = (folder / "decoder.data").open("wb")
        self._rng = np.random.default_rng(0)
        self.path = folder / "decoder.onnx"
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.parameters = 0

    def weight(self, name: str, *shape: int, scale: float | None = None) -> str:
        """A random matrix in the data file."""
        scale = shape[0] ** -0.5 if scale is None else scale
        values = self._rng.standard_normal(shape, dtype=np.float32) * np.float32(scale)
        self.parameters += values.size
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
        tensor.data_location = TensorProto.EXTERNAL
        place = {"location": "decoder.data", "offset": self._data.tell(), "length": values.nbytes}
        for key, value in place.items():
            tensor.external_data.add(key=key, value=str(value))
        values.tofile(self._data)
        self.initializers.append(tensor)
        return name

    def constant(self, name: str, values: object, dtype: type = np.int64) -> str:
        """A small tensor inside the model."""
        self.initializers.append(numpy_helper.from_array(np.array(values, dtype), name))
        return name

    def add(self, op: str, inputs: list[str], output: str, **attributes: object) -> str:
        """One node."""
        self.nodes.append(helper.make_node(op, inputs, [output], output, **attributes))
        return output

    def save(self) -> Path:
        """Write the graph; the weights lie beside it."""
        self._data.close()
        value = helper.make_tensor_value_info
        inputs = [value("tokens", TensorProto.INT64, ["n", TOKENS])]
        outputs = [value("logits", TensorProto.FLOAT, ["n", TOKENS, WORDS])]
        graph = helper.make_graph(self.nodes, "decoder", inputs, outputs, self.initializers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.save(model, self.path)
        return self.path


def write_model(folder: Path, layers: int, width: int) -> tuple[Path, int]:
    """The model's path and its number of parameters."""
    net = Writer(folder)
    net.constant("split", [0, 0, width // HEAD, HEAD])
    net.constant("merged", [0, 0, width])
    net.constant("scale", HEAD**-0.5, np.float32)
    net.constant("mask", np.triu(np.full((TOKENS, TOKENS), -1e9), 1), np.float32)
    net.constant("gain", np.ones(width), np.float32)
    x = net.add("Gather", [net.weight("embedding", WORDS, width, scale=1), "tokens"], "embedded")
    for k in range(layers):
        x = _attention(net, f"layers.{k}.attention", x, width, layers)
        x = _feed_forward(net, f"layers.{k}.mlp", x, width, layers)
    x = net.add("LayerNormalization", [x, "gain"], "norm", axis=-1)
    net.add("MatMul", [x, net.weight("head", width, WORDS)], "logits")
    return net.save(), net.parameters


def _attention(net: Writer, name: str, x: str, width: int, layers: int) -> str:
    y = net.add("LayerNormalization", [x, "gain"], f"{name}/norm", axis=-1)
    heads = {}
    for part in ("q", "k", "v"):
        flat = net.add("MatMul", [y, net.weight(f"{name}.{part}", width, width)], f"{name}/{part}/flat")
        split = net.add("Reshape", [flat, "split"], f"{name}/{part}/split")
        order = [0, 2, 3, 1] if part == "k" else [0, 2, 1, 3]
        heads[part] = net.add("Transpose", [split], f"{name}/{part}", perm=order)
    scores = net.add("MatMul", [heads["q"], heads["k"]], f"{name}/scores")
    scores = net.add("Mul", [scores, "scale"], f"{name}/scaled")
    scores = net.add("Add", [scores, "mask"], f"{name}/masked")
    mixed = net.add("MatMul", [net.add("Softmax", [scores], f"{name}/softmax"), heads["v"]], f"{name}/mixed")
    joined = net.add("Transpose", [mixed], f"{name}/joined", perm=[0, 2, 1, 3])
    joined = net.add("Reshape", [joined, "merged"], f"{name}/merged")
    small = (2 * layers * width) ** -0.5
    out = net.add("MatMul", [joined, net.weight(f"{name}.out", width, width, scale=small)], f"{name}/out")
    return net.add("Add", [x, out], f"{name}/add")


def _feed_forward(net: Writer, name: str, x: str, width: int, layers: int) -> str:
    y = net.add("LayerNormalization", [x, "gain"], f"{name}/norm", axis=-1)
    y = net.add("MatMul", [y, net.weight(f"{name}.up", width, 4 * width)], f"{name}/up")
    y = net.add("Relu", [y], f"{name}/relu")
    small = (2 * layers * 4 * width) ** -0.5
    y = net.add("MatMul", [y, net.weight(f"{name}.down", 4 * width, width, scale=small)], f"{name}/down")
    return net.add("Add", [x, y], f"{name}/add")


# What the rewrite itself takes: the plan is applied and the result saved, nothing is run.
REWRITE = """
import sys
import redtest_onnx as rt
from redtest_onnx.pruning.apply import apply_plan
from redtest_onnx.pruning.plan import load_plan

model = rt.load(sys.argv[1])
bench = rt.open_workbench(model, shapes={"tokens": (1, int(sys.argv[4]))})
plan = load_plan(__import__("pathlib").Path(sys.argv[2]), model, bench.layers())
rt.save(apply_plan(bench, plan), sys.argv[3])
"""


def steps(model: Path, inputs: Path, folder: Path) -> Iterator[tuple[str, list[str]]]:
    """What is measured, and the command that does it."""
    tool = [sys.executable, "-m", "redtest_onnx"]
    data = ["--data", str(inputs), "--samples", str(SAMPLES), "--batches", "1", "--quiet"]
    analysis, plan = folder / "analysis.json", folder / "plan.json"
    yield "analyze", [*tool, "analyze", str(model), *data, "--json", str(analysis)]
    choose = ["--analysis", str(analysis), "--remove", "4", "--dry-run", "--plan", str(plan)]
    yield "plan on the saved analysis", [*tool, "prune", str(model), *data, *choose]
    pruned = folder / "pruned.onnx"
    rewrite = [str(model), str(plan), str(pruned), str(TOKENS)]
    yield "rewrite and save", [sys.executable, "-c", REWRITE, *rewrite]
    yield "inspect the pruned model", [*tool, "inspect", str(pruned), "--quiet"]


def main() -> None:
    """Write the model, run the steps, print their peaks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    arguments = parser.parse_args()
    with TemporaryDirectory(prefix="redtest-onnx-", dir=arguments.folder) as name:
        folder = Path(name)
        model, parameters = write_model(folder, arguments.layers, arguments.width)
        inputs = folder / "inputs.npy"
        np.save(inputs, np.random.default_rng(0).integers(0, WORDS, (SAMPLES, TOKENS)))
        size = sum(path.stat().st_size for path in (model, folder / "decoder.data"))
        print(f"{parameters / 1e9:.2f} B parameters, {size / 1e9:.2f} GB", flush=True)
        for what, command in steps(model, inputs, folder):
            peak = peak_bytes(command)
            print(f"{what}: peak {peak / 1e9:.2f} GB, {peak / size:.2f} x the model", flush=True)
        print(json.dumps({path.name: path.stat().st_size for path in sorted(folder.iterdir())}))


def peak_bytes(command: list[str]) -> int:
    """Peak resident memory of a process; memory-mapped weights count as far as they are resident."""
    process = subprocess.Popen(command)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"failed: {' '.join(command)}")
    return used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main()
