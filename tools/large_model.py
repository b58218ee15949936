"""Analyze and prune a model far beyond 2 GB: a decoder-only transformer with 1.2 billion float32 parameters.

    python tools/large_model.py [--layers 24] [--width 2048] [--caches [--genai PYTHON]]

The model is written node by node with its weights in external data (about 5 GB) to a temporary folder, which
is removed at the end. Each step is a process of its own, whose peak of resident memory is printed beside the
size of the model. With `--caches` it is a folder in onnxruntime-genai's layout, GroupQueryAttention with a
cache per layer; all of `prune` is run on it, its checks and the comparison of both models included, and what
was written is decoded greedily. Needs Linux or macOS and 10 GB of disk, the pruned model included.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

MICROSOFT = "com.microsoft"
HEAD = 128
WORDS = 4096
TOKENS = 16
SAMPLES = 8


Shape = Sequence[str | int]


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

    def add(self, op: str, inputs: list[str], output: str, *more: str, **attributes: object) -> str:
        """One node; `more` are its further outputs."""
        self.nodes.append(helper.make_node(op, inputs, [output, *more], output, **attributes))
        return output

    def save(self, inputs: Mapping[str, Shape], outputs: Mapping[str, Shape]) -> Path:
        """Write the graph; the weights lie beside it. Inputs are int64 but for caches, outputs float32."""
        self._data.close()
        integers = {name: TensorProto.INT64 for name in inputs if not name.startswith("past")}
        values = [
            [
                helper.make_tensor_value_info(name, integers.get(name, TensorProto.FLOAT), shape)
                for name, shape in side.items()
            ]
            for side in (inputs, outputs)
        ]
        graph = helper.make_graph(self.nodes, "decoder", *values, self.initializers)
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid(MICROSOFT, 1)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), self.path)
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
    return net.save({"tokens": ["n", TOKENS]}, {"logits": ["n", TOKENS, WORDS]}), net.parameters


def write_folder(folder: Path, layers: int, width: int) -> tuple[Path, int]:
    """A folder of a decoder with caches, and its number of parameters."""
    net = Writer(folder)
    net.constant("gain", np.ones(width), np.float32)
    net.constant("one", 1)
    net.constant("axis", [1])
    net.add("ReduceSum", ["attention_mask", "axis"], "lengths", keepdims=0)
    net.add("Cast", [net.add("Sub", ["lengths", "one"], "last")], "seqlens_k", to=TensorProto.INT32)
    size = net.add("Gather", [net.add("Shape", ["attention_mask"], "mask_shape"), "one"], "positions")
    net.add("Cast", [size], "total_sequence_length", to=TensorProto.INT32)
    x = net.add("Gather", [net.weight("embedding", WORDS, width, scale=1), "input_ids"], "embedded")
    past, present = {}, {}
    for k in range(layers):
        x = _cached_attention(net, k, x, width, layers)
        x = _feed_forward(net, f"layers.{k}.mlp", x, width, layers)
        shape = ["n", width // HEAD, "past", HEAD]
        past |= {f"past_key_values.{k}.{what}": shape for what in ("key", "value")}
        present |= {f"present.{k}.{what}": [*shape[:2], "total", HEAD] for what in ("key", "value")}
    x = net.add("LayerNormalization", [x, "gain"], "norm", axis=-1)
    net.add("MatMul", [x, net.weight("head", width, WORDS)], "logits")
    inputs = {"input_ids": ["n", "tokens"], "attention_mask": ["n", "total"], **past}
    net.save(inputs, {"logits": ["n", "tokens", WORDS], **present})
    decoder = {
        "filename": net.path.name,
        "num_hidden_layers": layers,
        "num_attention_heads": width // HEAD,
        "num_key_value_heads": width // HEAD,
        "head_size": HEAD,
        "hidden_size": width,
        "inputs": {
            "input_ids": "input_ids",
            "attention_mask": "attention_mask",
            "past_key_names": "past_key_values.%d.key",
            "past_value_names": "past_key_values.%d.value",
        },
        "outputs": {
            "logits": "logits",
            "present_key_names": "present.%d.key",
            "present_value_names": "present.%d.value",
        },
    }
    tokens = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    about = {"type": "llama", "vocab_size": WORDS, "context_length": 64, "decoder": decoder, **tokens}
    search = {"max_length": 64, "past_present_share_buffer": True}
    config = {"model": about, "search": search}
    (folder / "genai_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder, net.parameters


def _cached_attention(net: Writer, k: int, x: str, width: int, layers: int) -> str:
    name = f"layers.{k}.attention"
    y = net.add("LayerNormalization", [x, "gain"], f"{name}/norm", axis=-1)
    parts = [
        net.add("MatMul", [y, net.weight(f"{name}.{part}", width, width)], f"{name}/{part}") for part in "qkv"
    ]
    past = [f"past_key_values.{k}.{what}" for what in ("key", "value")]
    mixed = net.add(
        "GroupQueryAttention",
        [*parts, *past, "seqlens_k", "total_sequence_length"],
        f"{name}/mixed",
        *(f"present.{k}.{what}" for what in ("key", "value")),
        domain=MICROSOFT,
        num_heads=width // HEAD,
        kv_num_heads=width // HEAD,
    )
    small = (2 * layers * width) ** -0.5
    out = net.add("MatMul", [mixed, net.weight(f"{name}.out", width, width, scale=small)], f"{name}/out")
    return net.add("Add", [x, out], f"{name}/add")


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
plan = load_plan(__import__("pathlib").Path(sys.argv[2]), model, bench.layers("block"))
rt.save(apply_plan(bench, plan), sys.argv[3])
"""


# What was written is loaded anew and decodes, with its caches and without.
DECODE = """
import sys
import json
from pathlib import Path

import redtest_onnx as rt
from redtest_onnx.runtime.generate import generate
from redtest_onnx.runtime.session import RunOptions, Session

prompt = (3, 17, 8, 41)
found = generate(Session(rt.load(sys.argv[1]), RunOptions("cpu", 1)), prompt, 8)
print(found.with_cache, "the same without caches" if found.agree else f"but {found.without_cache} without")
Path(sys.argv[2]).write_text(json.dumps([*prompt, *map(int, found.with_cache)]))
sys.exit(not found.agree)
"""


# onnxruntime-genai generates from the folder that was written; its tokens are held against ours.
GENERATE = """
import json
import sys
from pathlib import Path

import onnxruntime_genai as og

wanted = json.loads(Path(sys.argv[2]).read_text())
model = og.Model(sys.argv[1])
params = og.GeneratorParams(model)
params.set_search_options(max_length=len(wanted), do_sample=False)
generator = og.Generator(model, params)
generator.append_tokens(wanted[:4])
while not generator.is_done():
    generator.generate_next_token()
found = [int(token) for token in generator.get_sequence(0)]
print(f"onnxruntime-genai {og.__version__}:", found, "the same" if found == wanted else f"not {wanted}")
sys.exit(found != wanted)
"""


def folder_steps(model: Path, folder: Path, genai: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """What is measured of a folder, and the command that does it; `genai` are interpreters that have it."""
    output = folder / "pruned"
    few = ["--samples", str(SAMPLES), "--batches", "1", "--threads", "1", "--quiet"]
    how = ["--remove", "4", "--repair", "none", "--output", str(output)]
    shapes = ["--input-shape", f"input_ids:1,{TOKENS}", "--input-shape", f"attention_mask:1,{TOKENS}"]
    yield (
        "prune by four blocks, checked and compared",
        [sys.executable, "-m", "redtest_onnx", "prune", str(model), *how, *few, *shapes],
    )
    tokens = str(folder / "tokens.json")
    yield "decode with what was written", [sys.executable, "-c", DECODE, str(output), tokens]
    for python in genai:
        yield "generate with onnxruntime-genai", [python, "-c", GENERATE, str(output), tokens]


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
    how = ["--remove", "4", "--repair", "none", "--output", str(pruned), "--force", "--threads", "1"]
    yield "prune by four blocks, checked and compared", [*tool, "prune", str(model), *data, *how]


def main() -> None:
    """Write the model, run the steps, print their peaks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--caches", action="store_true", help="a folder of a decoder with caches")
    parser.add_argument(
        "--genai",
        action="append",
        default=[],
        metavar="PYTHON",
        help="interpreter of an environment with onnxruntime-genai that generates from what was written; may "
        "be repeated",
    )
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    arguments = parser.parse_args()
    with TemporaryDirectory(prefix="redtest-onnx-", dir=arguments.folder) as name:
        folder = Path(name)
        source = folder / "decoder"
        source.mkdir()
        write = write_folder if arguments.caches else write_model
        model, parameters = write(source, arguments.layers, arguments.width)
        inputs = folder / "inputs.npy"
        np.save(inputs, np.random.default_rng(0).integers(0, WORDS, (SAMPLES, TOKENS)))
        size = sum(path.stat().st_size for path in source.iterdir())
        print(f"{parameters / 1e9:.2f} B parameters, {size / 1e9:.2f} GB", flush=True)
        todo = (
            folder_steps(model, folder, arguments.genai) if arguments.caches else steps(model, inputs, folder)
        )
        for what, command in todo:
            peak = peak_bytes(command)
            print(f"{what}: peak {peak / 1e9:.2f} GB, {peak / size:.2f} x the model", flush=True)
        written = (path for path in sorted(folder.rglob("*")) if path.is_file())
        print(json.dumps({str(path.relative_to(folder)): path.stat().st_size for path in written}))


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
