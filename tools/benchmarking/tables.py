"""The figures of the benchmark as Markdown."""

from __future__ import annotations

from statistics import median
from typing import Any

Figures = dict[str, Any]

PLAIN = "plain forward"
OURS = "ours, flattened"


def render(results: dict[str, Figures]) -> str:
    """All jobs, each with its date, machine and table.

    Args:
        results: per job what `benchmark.py` stored.
    """
    return "\n".join([_HEAD, *(_job(result) for result in results.values()), ""])


_HEAD = """# Benchmark

Made by `python tools/benchmark.py` (Linux); its `--help` says how to install the peers. Each measurement is
a process of its own, the contenders take turns, and ratios are of CPU seconds within one turn, so that load
on the machine strikes all alike; they are given as median (smallest-largest). The networks have random
weights and no batch normalisation left, so that all contenders do the same work on the same tensors. Times
are those of one call with the model loaded, the second one where there are two (contenders marked * get
one); memory is what the calls add to the loaded model at their peak. "Error" is the largest difference from
a matrix computed in float64 behind the same network.

* *plain forward*: ONNX Runtime alone with all its optimisations
* *ours*: all of `analyze`'s measuring with its statistics, pooled (mean over positions) or flattened
* *keep everything*: forward hooks, then one Gram a layer and one HSIC a pair, in PyTorch
* *per pair*: both Grams and three HSICs for every pair, as the reference implementation of RedTest does
"""


def _job(result: Figures) -> str:
    runs: dict[str, list[Figures]] = result["runs"]
    head = (
        f"\n## {result['title']}: {result['layers']} layers, {result['samples']} images\n\n"
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
    added = median(run["added_bytes"] for run in measured) / 1e6
    error = result["errors"].get(name)
    mark = " *" if name in result["once"] else ""
    ratios = [_ratios(measured, runs.get(base)) for base in (PLAIN, OURS)]
    shown = f"{error:.1e}" if error is not None else ""
    return f"| {name}{mark} | {cpu} | {wall} | {ratios[0]} | {ratios[1]} | {added:.0f} | {shown} |"


def _ratios(measured: list[Figures], base: list[Figures] | None) -> str:
    """Ratios of CPU seconds, turn by turn."""
    if not base:
        return ""
    pairs = zip(measured, base, strict=False)
    return _spread([mine["cpu_s"] / theirs["cpu_s"] for mine, theirs in pairs], ".2f")


def _spread(values: list[float], form: str) -> str:
    if len(values) == 1:
        return format(values[0], form)
    return f"{median(values):{form}} ({min(values):{form}}-{max(values):{form}})"


def _metric_share(runs: dict[str, list[Figures]]) -> str:
    shares = [run["metric_share"] for run in runs.get(OURS, ())]
    if not shares:
        return "\n"
    share = _spread([100 * share for share in shares], ".1f")
    return f"\n\nSimilarities and statistics take {share} % of the time of ours, flattened.\n"
