"""Feed the command line broken models: only exit codes 0, 1 and 2, no traceback, bounded time and memory.

    python tools/fuzz.py --count 2000 --seed 0

Half of the inputs are valid models of models/ with parts of their graph changed (nodes dropped, doubled,
rewired, renamed; shapes, types, attributes and weights changed), the others have bytes changed, cut or made
up. Each runs in a worker process, so that a crash of a native library is found, too. Failing inputs are kept
in --keep.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing as mp
import random
import resource
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from time import perf_counter, process_time

import onnx

ROOT = Path(__file__).parents[1]
SEEDS = sorted((ROOT / "models").glob("*.onnx"))
LIMIT_S = 10.0
LIMIT_MIB = 2048


def drop(graph: onnx.GraphProto, rng: random.Random) -> None:
    """A node is missing."""
    del graph.node[rng.randrange(len(graph.node))]


def double(graph: onnx.GraphProto, rng: random.Random) -> None:
    """A node stands twice."""
    graph.node.append(rng.choice(graph.node))


def rewire(graph: onnx.GraphProto, rng: random.Random) -> None:
    """A node reads any tensor, perhaps its own."""
    node = rng.choice(graph.node)
    if node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice(rng.choice(graph.node).output)


def rename(graph: onnx.GraphProto, rng: random.Random) -> None:
    """An operator, a domain or a tensor is called otherwise."""
    node = rng.choice(graph.node)
    where = rng.randrange(3)
    if where == 0:
        node.op_type = rng.choice(["Relu", "Add", "Conv", "MatMul", "If", "Loop", "Shape", "Nonsense", ""])
    elif where == 1:
        node.domain = rng.choice(["com.microsoft", "ai.onnx.ml", "nowhere", "\n"])
    else:
        node.output[0] = rng.choice(["", "x\x00y", "input", "logits", "é" * 300])


def reshape(graph: onnx.GraphProto, rng: random.Random) -> None:
    """A weight or an input has other dimensions."""
    size = rng.choice([0, -1, 1, 3, 2**31, 2**62])
    if rng.random() < 0.5:
        tensor = rng.choice(graph.initializer)
        if tensor.dims:
            tensor.dims[rng.randrange(len(tensor.dims))] = size
    else:
        dims = rng.choice([*graph.input, *graph.output]).type.tensor_type.shape.dim
        rng.choice(dims).dim_value = size


def retype(graph: onnx.GraphProto, rng: random.Random) -> None:
    """A weight, an input or an output has another type."""
    kind = rng.randrange(25)
    if rng.random() < 0.5:
        rng.choice(graph.initializer).data_type = kind
    else:
        rng.choice([*graph.input, *graph.output]).type.tensor_type.elem_type = kind


def attribute(graph: onnx.GraphProto, rng: random.Random) -> None:
    """An attribute is gone or holds something else."""
    nodes = [node for node in graph.node if node.attribute]
    node = rng.choice(nodes)
    k = rng.randrange(len(node.attribute))
    if rng.random() < 0.5:
        del node.attribute[k]
    else:
        item = node.attribute[k]
        item.ints[:] = [rng.choice([-(2**62), -1, 0, 1, 7, 2**40]) for _ in range(rng.randrange(6))]
        item.i = rng.choice([-1, 0, 2, 2**40])


PLACES = ["../../etc/passwd", "/etc/passwd", "gone", "", "."]


def outside(graph: onnx.GraphProto, rng: random.Random) -> None:
    """A weight lies in another file."""
    tensor = rng.choice(graph.initializer)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=rng.choice(PLACES))
    tensor.external_data.add(key="offset", value=rng.choice(["0", "-5", "x", "9" * 30]))


def nest(graph: onnx.GraphProto, rng: random.Random) -> None:
    """Branches within branches."""
    for depth in range(rng.choice([2, 12])):
        inner = onnx.helper.make_graph([], f"g{depth}", [], [])
        node = onnx.helper.make_node("If", ["input"], [f"if{depth}"], then_branch=inner, else_branch=inner)
        if rng.random() < 0.9 and len(graph.node):
            node.attribute[0].g.node.append(graph.node[-1])
        graph.node.append(node)


MUTATIONS: tuple[Callable[[onnx.GraphProto, random.Random], None], ...] = (
    *(drop, double, rewire, rename, reshape, retype, attribute, outside, nest),
)


def make(number: int, seed: int) -> bytes:
    """The bytes of one broken model."""
    rng = random.Random(f"{seed}/{number}")
    data = rng.choice(SEEDS).read_bytes()
    if rng.random() < 0.5:
        proto = onnx.ModelProto.FromString(data)
        for _ in range(rng.choice([1, 1, 2, 5])):
            rng.choice(MUTATIONS)(proto.graph, rng)
        if rng.random() < 0.1:
            proto.opset_import[0].version = rng.choice([-1, 0, 1, 6, 99, 2**40])
        return bytes(proto.SerializeToString())
    kind = rng.random()
    if kind < 0.2:
        return rng.randbytes(rng.randrange(1, 3000))
    if kind < 0.5:
        return data[: rng.randrange(len(data))]
    changed = bytearray(data)
    for _ in range(rng.choice([1, 3, 30, 1000])):
        changed[rng.randrange(min(len(changed), rng.choice([200, 20_000, len(changed)])))] = rng.randrange(
            256
        )
    return bytes(changed)


Answer = tuple[int, str, float, int]
"""Exit code, output, seconds of processor time, and the largest memory of the worker so far in MiB."""


def attempt(path: Path) -> Answer:
    """One call of the command line."""
    from redtest_onnx.cli.main import run

    begin = process_time()  # other work on the machine is none of ours
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(out):
        code = run(
            ["prune", str(path), "--samples", "8", "--batches", "1", "--remove", "1", "--threads", "1"]
        )
        path.with_suffix(".pruned.onnx").unlink(missing_ok=True)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    return code, out.getvalue(), process_time() - begin, memory


def worker(requests: mp.SimpleQueue[Path], answers: mp.SimpleQueue[Answer]) -> None:
    """Answer requests for ever."""
    from redtest_onnx.runtime import latency

    latency._FEWEST = latency._ENOUGH = latency._MOST = 1  # nobody wants to know how fast broken models are
    while True:
        answers.put(attempt(requests.get()))


def main() -> None:
    """Run the fuzzer and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for inputs that fail")
    options = parser.parse_args()
    context = mp.get_context("spawn")
    codes: Counter[int | str] = Counter()
    slowest, largest = 0.0, 0
    process: mp.process.BaseProcess | None = None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        for number in range(options.start, options.start + options.count):
            content = make(number, options.seed)
            path.write_bytes(content)
            if process is None or not process.is_alive():
                requests, answers = context.SimpleQueue(), context.SimpleQueue()
                process = context.Process(target=worker, args=(requests, answers), daemon=True)
                process.start()
            requests.put(path)
            begin = perf_counter()
            while answers.empty() and process.is_alive() and perf_counter() - begin < 20 * LIMIT_S:
                process.join(0.002)
            if answers.empty():
                code: int | str = "crashed" if not process.is_alive() else "hung"
                text, seconds, memory = f"exit code {process.exitcode}", perf_counter() - begin, 0
                process.kill()
                process = None
            else:
                code, text, seconds, memory = answers.get()
            codes[code] += 1
            slowest, largest = max(slowest, seconds), max(largest, memory)
            if memory > LIMIT_MIB and process is not None:
                process.kill()  # the next input starts with a clean count
                process = None
            if code not in (0, 1, 2) or "Traceback" in text or seconds > LIMIT_S or memory > LIMIT_MIB:
                print(
                    f"{number}: {code} after {seconds:.1f} s and {memory} MiB: {text.strip()[-600:]}",
                    flush=True,
                )
                if options.keep:
                    options.keep.mkdir(exist_ok=True)
                    (options.keep / f"{options.seed}-{number}.onnx").write_bytes(content)
            if (number + 1) % 1000 == 0:
                print(f"{number + 1}: exit codes {dict(codes)}", flush=True)
    print(f"exit codes {dict(codes)}, slowest {slowest:.1f} s, at most {largest} MiB")


if __name__ == "__main__":
    main()
