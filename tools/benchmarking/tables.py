"""The figures of the benchmark as Markdown."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from statistics import median
from typing import Any

from benchmarking.commands import table, threads_table

Figures = dict[str, Any]

PLAIN = "plain forward"
OURS = "ours, flattened"
PEERS = ("pytorch-cka", "pytorch-cka, folded", "pytorch-cka, channels last", "pytorch-cka, bfloat16")


def render(results: dict[str, Figures]) -> str:
    """A summary, then all jobs, each with its date, machine and table.

    Args:
        results: per job what `benchmark.py` stored.
    """
    commands = results.get(COMMANDS_KEY)
    jobs = [result for name, result in results.items() if name != COMMANDS_KEY]
    ordered = sorted(jobs, key=lambda result: (result["device"] == "cuda", result["threads"], result["load"]))
    first = [_commands(commands)] if commands else []
    return "\n".join([*first, _HEAD, *_summaries(ordered), *map(_job, ordered), ""])


COMMANDS_KEY = "whole commands"


def _commands(known: Figures) -> str:
    """What people wait for."""
    return f"""# Benchmark

## What people wait for

Whole commands, from start to end with all imports, each in a process of its own: CPU seconds and peak
memory as the system counts them, beside the CPU seconds of one plain ONNX Runtime pass over the same samples.
Made by `python tools/benchmark.py --jobs --repeats 1 --peers-python PYTHON --commands NAME ...`
(`digits` with `--repeats 5`, the networks up to 200 blocks with 3),
{known["date"]}, {known["machine"]}, {known["threads"]} thread(s). The networks have random weights, except
for `digits`, the one of the README, and `resnet56_cifar10`, a ResNet56 that was trained on CIFAR-10 (not in
the repository: `--own FOLDER` runs any network); `blocksN` are residual networks of N blocks on 16x16
images, `encoder` is as large as a BERT-base (436 MB), `minilm` an encoder of six layers and 22.6 million
values, `vit_b` a vision transformer of ViT-B's sizes (346 MB). Passes are over 397 samples of `digits`, 48 of
`blocksN` (or as many as said), 64 of `encoder`, 384 of `minilm` (32 tokens each), 768 of both ResNet56 (32 x
32 pixels), 32 of `vit_b`, and 64 of `resnet50` (256 for `prune` alone), both 224 x 224 pixels. Eight layers
of `resnet56` go after repairs, which take most of its time; of the trained one none goes, as is told soon.

Beside ours: onnxslim's summary, onnx-tool's profile, onnxsim 0.8 (`onnxsim_blocks.py`: it drops blocks of
transformers by 8 samples, its default, and leaves their weights in the file; its refit of single layers was
not done after four minutes), and one linear map in place of blocks as ReplaceMe has it (`replaceme_like.py`,
ours in NumPy). None of these measures the similarity of all layers, verifies what it writes, or times it.

{table(known["figures"])}

Threads: the README's command as it stands, alone and beside one busy process per core; repairs with one
thread and with two on the same two cores. "x" is the ratio to the line above.

{threads_table(known["figures"])}

The machine may have been busy: compare columns, not runs.
"""


_HEAD = """## Measuring similarity

Made by `python tools/benchmark.py` (Linux); its `--help` says how to install the peers. Each measurement is
a process of its own, the contenders take turns, and ratios are of CPU seconds (on a GPU: wall time) within
one turn, so that load on the machine strikes all alike; they are given as median (smallest-largest). The
networks have random weights. All contenders measure the same tensors: in PyTorch the ResNets keep their batch
normalisation, as users have them, in the ONNX files the exporter has folded it into the convolutions. Times
are those of one call with the model loaded, the second one where there are two (contenders marked * get one);
memory is what the calls add to the loaded model at their peak, in MB and in parts of what the plain forward
pass adds. "Error" is the largest difference from a matrix computed in float64 behind the same forward pass:
two runtimes, or two ways to normalise, round differently, and in a network of 1,202 layers that is more.

* *plain forward*: ONNX Runtime alone with all its optimisations
* *plain, less memory*: the same without the block of memory that ONNX Runtime plans after a first run and
  keeps beside the buffers of that run; the measurement goes without it, too
* *ours*: all of `analyze`'s measuring with its statistics, pooled (mean over positions) or flattened
* *pytorch-cka, folded*: for a user who folds the batch normalisation first (`fuse_conv_bn_eval`)
* *pytorch-cka, channels last* and *bfloat16*: folded, and images with channels last; then under autocast,
  too, which is faster than ours where similarities of deep layers may be off by a quarter and more
* *keep everything*: forward hooks, then one Gram a layer and one HSIC a pair, in PyTorch
* *per pair*: both Grams and three HSICs for every pair, as the reference implementation of RedTest does
"""


def _summaries(results: list[Figures]) -> Iterable[str]:
    """What most readers want to know, for the jobs on one thread of an unloaded machine."""
    for device in ("cpu", "cuda"):
        plain = [result for result in results if result["threads"] == 1 and not result["load"]]
        chosen = [result for result in plain if result["device"] == device]
        if not chosen:
            continue
        lines = [
            f"\n## In short: {'CPU' if device == 'cpu' else 'GPU'}\n",
            'Medians; "x faster": ours, flattened, than pytorch-cka; "folded": than that on a network whose '
            "batch normalisation was folded first, as it is where there is none; then with channels last "
            "besides, and under autocast to bfloat16, whose error stands below.\n",
            "| job | pooled, x plain | flattened, x plain | memory, x plain | x faster | folded "
            "| channels last | bfloat16 | error |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        speeds: dict[str, list[float]] = {peer: [] for peer in PEERS}
        for result in chosen:
            runs = result["runs"]
            cost = [_middle(runs.get(name), runs[PLAIN], _time(result)) for name in ("ours, pooled", OURS)]
            memory = _middle(runs.get(OURS), runs[PLAIN], "added_bytes")
            faster = {peer: _middle(runs.get(peer), runs.get(OURS), _time(result)) for peer in PEERS}
            faster[PEERS[1]] = faster[PEERS[1]] or faster[PEERS[0]]
            for peer, speed in faster.items():
                speeds[peer] += [speed] if speed else []
            error = result["errors"].get(OURS)
            cells = [f"{value:.2f}" if value else "" for value in (*cost, memory, *faster.values())]
            lines.append(f"| {' | '.join([result['title'], *cells, f'{error:.0e}' if error else ''])} |")
        means = [f"{prod(some) ** (1 / len(some)):.2f}" if some else "" for some in speeds.values()]
        if any(means):
            lines.append(f"| geometric mean | | | | {' | '.join(means)} | |")
        yield "\n".join(lines)


def _job(result: Figures) -> str:
    runs: dict[str, list[Figures]] = result["runs"]
    load = f", beside {result['load']} busy processes" if result["load"] else ""
    head = (
        f"\n## {result['title']}: {result['layers']} layers, {result['samples']} images{load}\n\n"
        f"{result['date']}, {result['machine']}, {result['threads']} thread(s), "
        f"turns: {result['repeats']}\n\n"
        "| contender | CPU s | wall s | x plain forward | x ours, flattened | memory added MB | error |\n"
        "|---|---|---|---|---|---|---|\n"
    )
    rows = [_row(name, measured, runs, result) for name, measured in runs.items()]
    missing = [f"| {name} | not installed | | | | | |" for name in result["missing"]]
    return head + "\n".join([*rows, *missing]) + _metric_share(runs)


def _row(name: str, measured: list[Figures], runs: dict[str, list[Figures]], result: Figures) -> str:
    cpu = _spread([run["cpu_s"] for run in measured], ".2f")
    wall = _spread([run["wall_s"] for run in measured], ".2f")
    added = f"{median(run['added_bytes'] for run in measured) / 1e6:.0f}"
    memory = _middle(measured, runs.get(PLAIN), "added_bytes")
    error = result["errors"].get(name)
    mark = " *" if name in result["once"] else ""
    ratios = [_ratios(measured, runs.get(base), _time(result)) for base in (PLAIN, OURS)]
    shown = [f"{added} ({memory:.2f} x)" if memory else added, f"{error:.1e}" if error is not None else ""]
    return f"| {' | '.join([name + mark, cpu, wall, *map(_shown, ratios), *shown])} |"


def _time(result: Figures) -> str:
    """What counts as time: wall time of a device, else CPU seconds, which other load changes less."""
    return "wall_s" if result["device"] == "cuda" else "cpu_s"


def _ratios(measured: list[Figures] | None, base: list[Figures] | None, what: str) -> list[float]:
    """Ratios of a figure, turn by turn."""
    pairs = zip(measured or (), base or (), strict=False)
    return [mine[what] / theirs[what] for mine, theirs in pairs if theirs[what]]


def _middle(measured: list[Figures] | None, base: list[Figures] | None, what: str) -> float | None:
    ratios = _ratios(measured, base, what)
    return median(ratios) if ratios else None


def _shown(ratios: list[float]) -> str:
    return _spread(ratios, ".2f") if ratios else ""


def _spread(values: list[float], form: str) -> str:
    if len(values) == 1:
        return format(values[0], form)
    return f"{median(values):{form}} ({min(values):{form}}-{max(values):{form}})"


def _metric_share(runs: dict[str, list[Figures]]) -> str:
    shares = [run["metric_share"] for run in runs.get(OURS, ())]
    if not shares:
        return ""
    share = _spread([100 * share for share in shares], ".1f")
    return f"\n\nSimilarities and statistics take {share} % of the time of ours, flattened."
