"""Remove blocks from decoders of other exporters and let their own runtimes generate from what is written.

    python tools/tiny_transformers.py genai OUT          # in an environment with onnxruntime-genai's builder
    python tools/decoder_check.py OUT --torch BUILDER/bin/python --genai BUILDER/bin/python

    python tools/tiny_transformers.py optimum OUT        # in an environment with Optimum
    python tools/decoder_check.py OUT --torch OPTIMUM/bin/python --optimum OPTIMUM/bin/python

Each decoder in OUT loses every block, every pair of blocks and, where it is a layer of its own, one attention
alone; `redtest-onnx` writes the folders. `--genai` and `--optimum` name interpreters with onnxruntime-genai
and with Optimum's `ORTModelForCausalLM`, and may be repeated; they generate greedily from each folder, and
fp32 tokens are held against PyTorch's without these blocks (`--torch`). Our own loop decodes each folder with
caches and without. The table says in how many of the removals all agree.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import cast

import redtest_onnx as rt
from redtest_onnx.layers.blocks import block_number
from redtest_onnx.layers.layer import Layer
from redtest_onnx.pruning.folder import save_pruned
from redtest_onnx.pruning.plan import Plan, Step
from redtest_onnx.pruning.prune import Pruning, rewrite
from redtest_onnx.runtime.generate import generate
from redtest_onnx.runtime.session import Session

CPU = rt.RunOptions("cpu", 1)
PROMPT = [1, 20, 33, 47, 60]
LENGTH = 20
PLAIN = rt.PruneSettings(repair="none")

TORCH = """
import json, sys, torch
from transformers import AutoModelForCausalLM
jobs, prompt, length = json.load(sys.stdin)
for source, gone in jobs:
    model = AutoModelForCausalLM.from_pretrained(source).eval()
    holder, name = (model.transformer, "h") if hasattr(model, "transformer") else (model.model, "layers")
    left = [layer for k, layer in enumerate(getattr(holder, name)) if k not in gone]
    setattr(holder, name, torch.nn.ModuleList(left))
    model.config.num_hidden_layers = len(left)
    tokens = list(prompt)
    with torch.no_grad():
        while len(tokens) < length:
            scores = model(torch.tensor([tokens]), use_cache=False).logits[0, -1]
            tokens.append(int(scores.argmax()))
    print("TOKENS", json.dumps(tokens), flush=True)
"""
GENAI = """
import json, sys
import onnxruntime_genai as og
folders, prompt, length = json.load(sys.stdin)
for folder in folders:
    try:
        model = og.Model(folder)
        params = og.GeneratorParams(model)
        params.set_search_options(max_length=length, min_length=length, do_sample=False)
        generator = og.Generator(model, params)
        generator.append_tokens(prompt)
        while not generator.is_done():
            generator.generate_next_token()
        print("TOKENS", json.dumps([int(token) for token in generator.get_sequence(0)]), flush=True)
    except Exception as error:
        print("TOKENS", json.dumps(str(error)[:200]), flush=True)
"""
OPTIMUM = """
import json, sys, torch
from optimum.onnxruntime import ORTModelForCausalLM
folders, prompt, length = json.load(sys.stdin)
for folder in folders:
    try:
        model = ORTModelForCausalLM.from_pretrained(folder)
        ids = torch.tensor([prompt])
        found = model.generate(ids, attention_mask=torch.ones_like(ids), max_length=length, min_length=length,
                               do_sample=False)
        print("TOKENS", json.dumps(found[0].tolist()), flush=True)
    except Exception as error:
        print("TOKENS", json.dumps(str(error)[:200]), flush=True)
"""


@dataclass(frozen=True)
class Removal:
    """One way to shorten a decoder.

    Attributes:
        kind: "block", "pair" or "attention".
        layers: what goes.
        blocks: numbers of the blocks that go as a whole.
    """

    kind: str
    layers: tuple[Layer, ...]
    blocks: tuple[int, ...]


def removals(bench: rt.Workbench) -> Iterator[Removal]:
    """Every block, every pair of blocks and one attention alone."""
    blocks = {
        number: layer for layer in bench.layers("block") if (number := block_number(layer.name)) is not None
    }
    for count, kind in ((1, "block"), (2, "pair")):
        for chosen in combinations(sorted(blocks), count):
            yield Removal(kind, tuple(blocks[k] for k in chosen), chosen)
    attention = [
        layer for layer in bench.layers() if layer.kind == "attention" and layer not in blocks.values()
    ]
    if attention:
        yield Removal("attention", (attention[1],), ())


def write(source: Path, removal: Removal, bench: rt.Workbench, target: Path) -> bool:
    """Write the shortened folder; whether our own loop decodes it alike with caches and without."""
    plan = Plan("named", bench.digest, tuple(map(Step.of, removal.layers)))
    pruned, _ = rewrite(bench, plan, PLAIN)
    analysis = SimpleNamespace(layers=bench.layers())  # of which no similarity is needed
    result = SimpleNamespace(model=pruned.model, plan=plan, analysis=analysis)
    save_pruned(bench, cast(Pruning, result), source, target)
    return generate(Session(rt.load(target), CPU), tuple(PROMPT), LENGTH - len(PROMPT)).agree


def answers(python: str, script: str, jobs: object) -> list[list[int] | str]:
    """What a script of another environment says of each job: tokens, or what went wrong."""
    given = json.dumps([jobs, PROMPT, LENGTH])
    run = subprocess.run([python, "-c", script], input=given, capture_output=True, text=True, check=False)
    if run.returncode:
        raise SystemExit(f"{python}: {run.stderr[-800:]}")
    return [json.loads(line[7:]) for line in run.stdout.splitlines() if line.startswith("TOKENS ")]


def check(source: Path, folder: Path, arguments: argparse.Namespace) -> Iterator[tuple[str, ...]]:
    """The rows of one decoder."""
    exported = "genai" if "-genai" in source.name else "optimum"
    name, exact = source.name.split("-")[0], "int4" not in source.name
    with rt.open_workbench(rt.load(source), options=CPU) as bench:
        todo = list(removals(bench))
        targets = [folder / f"{source.name}-{k}" for k in range(len(todo))]
        alike = [write(source, removal, bench, target) for removal, target in zip(todo, targets, strict=True)]
    wanted: list[list[int] | str] = []
    if exact and arguments.torch:
        origin = str(source.with_name(f"{name}-torch"))
        wanted = answers(arguments.torch, TORCH, [(origin, removal.blocks) for removal in todo])
    runtimes = [
        (python, GENAI if exported == "genai" else OPTIMUM) for python in getattr(arguments, exported)
    ]
    found = [answers(python, script, list(map(str, targets))) for python, script in runtimes]
    for kind in ("block", "pair", "attention"):
        which = [k for k, removal in enumerate(todo) if removal.kind == kind]
        if not which:
            continue
        cells = [f"{sum(alike[k] for k in which)} of {len(which)}"]
        for tokens in found:
            errors = [said for k in which if isinstance(said := tokens[k], str)]
            generated = sum(isinstance(tokens[k], list) for k in which)
            cell = f"{generated} of {len(which)} generate"
            if wanted and kind != "attention":
                cell += f", {sum(tokens[k] == wanted[k] for k in which)} as PyTorch"
            cells.append(cell + (f" ({errors[0]})" if errors else ""))
        yield (source.name, kind, *cells)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="what tools/tiny_transformers.py wrote")
    parser.add_argument("--torch", metavar="PYTHON", help="an interpreter with PyTorch and transformers")
    parser.add_argument("--genai", metavar="PYTHON", action="append", default=[])
    parser.add_argument("--optimum", metavar="PYTHON", action="append", default=[])
    parser.add_argument("--only", metavar="TEXT", default="", help="folders whose names hold this")
    arguments = parser.parse_args()
    out: Path = arguments.out.resolve()
    folders = [*out.glob("*-genai-*"), *out.glob("llama-optimum*"), *out.glob("gpt2-optimum*")]
    runtimes = arguments.genai or arguments.optimum
    print("| model | removed | our loop |", " | ".join(f"runtime {k + 1}" for k in range(len(runtimes))), "|")
    print("|---" * (3 + len(runtimes)) + "|", flush=True)
    for source in sorted(folder for folder in folders if arguments.only in folder.name):
        with TemporaryDirectory(prefix="redtest-onnx-") as name:
            for row in check(source, Path(name), arguments):
                print("|", " | ".join(row), "|", flush=True)


if __name__ == "__main__":
    main()
