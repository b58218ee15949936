"""Table for docs/transformers.md: blocks removed from a sentence encoder, by choice and repair.

    python tools/experiments/transformers.py MODEL_FOLDER SENTENCES.txt [--fit 400] [--test 300]

MODEL_FOLDER holds model.onnx, whose first output is [texts, tokens, channels], and tokenizer.json;
SENTENCES.txt one sentence per line. Sentences after the first `--fit` judge: each is embedded by the mean
over its tokens, and compared with the original's embeddings by the mean cosine, by Spearman's correlation
of the similarities of all pairs, and by the share of texts with the same nearest neighbour.

Windows of consecutive blocks are chosen as ShortGPT and its followers do, by the angle between what enters
and what leaves them over real tokens; the linear map in a window's place is that of ReplaceMe.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

from redtest_onnx.data.text import Texts, open_texts
from redtest_onnx.graph.files import load
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.probe.taps import expose
from redtest_onnx.layers.layer import Layer
from redtest_onnx.pruning.budget import Budget
from redtest_onnx.pruning.plan import Plan, Step
from redtest_onnx.pruning.prune import PruneSettings, plan, rewrite
from redtest_onnx.pruning.repair.repair import Method
from redtest_onnx.runtime.latency import measure_latency
from redtest_onnx.runtime.session import RunOptions, Session
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analyze import AnalysisSettings

Floats = npt.NDArray[np.float64]
CPU = RunOptions("cpu", 1)
BATCH = 32


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


def quality(before: Floats, after: Floats) -> tuple[float, float, float]:
    """Mean cosine, Spearman's correlation of all pairs' similarities, share of same nearest neighbours."""
    pairs = np.triu_indices(len(before), 1)
    own, other = before @ before.T, after @ after.T
    rank = float(spearmanr(own[pairs], other[pairs]).statistic)
    for similarity in (own, other):
        np.fill_diagonal(similarity, -np.inf)
    same = float(np.mean(own.argmax(1) == other.argmax(1)))
    return float(np.mean((before * after).sum(1))), rank, same


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


def plans(bench: Workbench, most: int) -> Iterator[tuple[int, str, Plan]]:
    """Plans by number of blocks and by what chose them."""
    similarity = AnalysisSettings(granularity="block", batches=1)
    blocks = [layer for layer in bench.layers("block") if layer.removable]
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
    parser.add_argument("--most", type=int, default=2)
    arguments = parser.parse_args()
    model = load(arguments.model)
    lines = arguments.sentences.read_text(encoding="utf-8").splitlines()
    with TemporaryDirectory() as folder:
        sides = []
        parts = (lines[: arguments.fit], lines[arguments.fit : arguments.fit + arguments.test])
        for name, part in zip(("fit", "test"), parts, strict=True):
            path = Path(folder) / f"{name}.txt"
            path.write_text("\n".join(part), encoding="utf-8")
            sides.append(open_texts(path, model))
        fit, test = sides
        bench = Workbench(model, fit, CPU)
        reference = embed(model, test)
        print("| blocks | chosen by | repair | cosine | Spearman | same neighbour | latency | parameters |")
        print("|---|---|---|---|---|---|---|---|")
        methods: tuple[Method, ...] = ("none", "adapter", "refit")
        for count, criterion, chosen in plans(bench, arguments.most):
            for method in methods:
                pruned, _ = rewrite(bench, chosen, PruneSettings(repair=method))
                figures = quality(reference, embed(pruned.model, test))
                before, after = measure_latency([bench, pruned])
                numbers = " | ".join(f"{figure:.3f}" for figure in figures)
                share = pruned.cost.parameters / bench.cost.parameters
                speed = f"{after.p50 / before.p50:.2f}"
                print(f"| {count} | {criterion} | {method} | {numbers} | {speed} | {share:.3f} |", flush=True)


if __name__ == "__main__":
    main()
