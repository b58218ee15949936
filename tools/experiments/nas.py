"""Redundancy-aware choice of architectures on candidates of our own: tables and figure of the documentation.

    python tools/experiments/nas.py --train topology --run topology.sqlite --count 300   # resumable
    python tools/experiments/nas.py --train size --run size.sqlite --count 24
    python tools/experiments/nas.py --train longer --run longer.sqlite --count 23
    python tools/experiments/nas.py --export topology.sqlite tools/experiments/nas_topology.csv
    python tools/experiments/nas.py --export size.sqlite tools/experiments/nas_size.csv
    python tools/experiments/nas.py --export longer.sqlite tools/experiments/nas_longer.csv
    python tools/experiments/nas.py --figure docs/images/architecture-search.png > results.md

--train trains random architectures on the digits of models/digits.npz with one thread; the last reads
the committed CSV files and takes seconds.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, get_type_hints

from redtest_onnx.data.images import ImageOptions
from redtest_onnx.ranking.candidate import COSTS, Candidate, CostName, MeasuredCandidate
from redtest_onnx.ranking.correlation import correlations
from redtest_onnx.ranking.expected import fit_expected
from redtest_onnx.ranking.rank import RankingSettings, rank_candidates
from redtest_onnx.ranking.score import SCORES
from redtest_onnx.search.evaluate import CandidateEvaluation
from redtest_onnx.search.recipe import Recipe
from redtest_onnx.search.search import SearchBudget, SearchProblem, search
from redtest_onnx.search.size import SizeSpace
from redtest_onnx.search.space import Space
from redtest_onnx.search.store import Store
from redtest_onnx.search.strategies import RandomSearch
from redtest_onnx.search.topology import TopologySpace

ROOT = Path(__file__).parents[2]
SHORT = Recipe(epochs=6, batch=100)
FAMILIES: dict[str, tuple[Space, Recipe]] = {
    "topology": (TopologySpace(width=8, cells=3), SHORT),
    "size": (SizeSpace(widths=(8,)), SHORT),
    "longer": (TopologySpace(width=8, cells=1), Recipe(epochs=8, batch=50)),
}
TABLES = {name: ROOT / "tools" / "experiments" / f"nas_{name}.csv" for name in FAMILIES}
TOP = 10
BETAS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
AXES = {"latency": (1.0, "latency (ms)"), "parameters": (1e3, "parameters (k)"), "macs": (1e3, "MACs (k)")}
DROPPED = ("key", "worker")


def train(name: str, path: Path, count: int) -> None:
    """Train random architectures of a family, going on from what the file holds."""
    space, recipe = FAMILIES[name]
    work = CandidateEvaluation(space, ROOT / "models" / "digits.npz", ImageOptions(), recipe)
    settings = {"space": space.name, **asdict(recipe), "seed": 0}

    def show(done: int, total: int, what: str) -> None:
        print(f"{done} of {total}", file=sys.stderr)

    with Store.open(path) if path.exists() else Store.create(path, settings) as store:
        search(
            work,
            SearchProblem(space, RandomSearch(space, 0), lambda c: c.accuracy),
            store,
            SearchBudget(count),
            progress=show,
        )


def export(run: Path, table: Path) -> None:
    """Write the results of a run as CSV."""
    with Store.open(run) as store, table.open("w", encoding="utf-8", newline="") as file:
        columns = [field.name for field in fields(MeasuredCandidate) if field.name not in DROPPED]
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for outcome in store.outcomes().values():
            assert isinstance(outcome, MeasuredCandidate), outcome
            writer.writerow({k: _short(v) for k, v in asdict(outcome).items()})


def read(table: Path) -> list[MeasuredCandidate]:
    """The candidates of a CSV."""
    kinds = get_type_hints(MeasuredCandidate)
    with table.open(encoding="utf-8", newline="") as file:
        return [
            MeasuredCandidate(key=row["name"], **{k: _parsed(v, kinds[k]) for k, v in row.items()})
            for row in csv.DictReader(file)
        ]


def report(
    topology: Sequence[MeasuredCandidate],
    size: Sequence[MeasuredCandidate],
    longer: Sequence[MeasuredCandidate],
) -> Iterator[str]:
    """All tables as Markdown."""
    accuracies = sorted(c.accuracy or 0.0 for c in topology)
    undefined = sum(c.msrs is None for c in topology)
    yield (
        f"{len(topology)} unique cells; accuracy from {accuracies[0]:.1%} over a median of "
        f"{accuracies[len(topology) // 2]:.1%} to {accuracies[-1]:.1%}; {undefined} without a defined MSRS."
    )
    yield from ("", "## Top candidates", "")
    yield from _table(
        ("cost", "score", "accuracy", "test accuracy", "latency (ms)", "parameters", "MACs", "MSRS"),
        [
            (cost if score == "S1" else "", score, *_means(_top(topology, cost, score)))
            for cost in COSTS
            for score in SCORES
        ],
    )
    yield from ("", "## Weight of redundancy", "")
    yield from _table(
        ("cost", "beta", "accuracy", "test accuracy", "latency (ms)", "parameters", "MACs", "MSRS"),
        [
            (cost if not beta else "", f"{beta:g}", *_means(_top(topology, cost, "S3", beta)))
            for cost in COSTS
            for beta in BETAS
        ],
    )
    yield from ("", "## Rank correlations with accuracy", "")
    tests = {item.proxy: item for item in correlations(topology, "test_accuracy")}
    others = {item.proxy: item for item in correlations(longer)}
    yield from _table(
        ("measure", "Spearman", "Kendall", "Spearman, test", "cells", "Spearman, trained longer", "cells"),
        [
            (
                *(i.proxy, f"{i.spearman:+.3f}", f"{i.kendall:+.3f}"),
                *(f"{tests[i.proxy].spearman:+.3f}", i.points),
                *(f"{others[i.proxy].spearman:+.3f}", others[i.proxy].points),
            )
            for i in correlations(topology)
        ],
    )
    yield from ("", "## Expected MSRS", "")
    rows = []
    for name, family in (("cells", topology), ("residual networks", size)):
        fit = fit_expected(family)
        rows.append((name, fit.points, f"{fit.depths[0]} to {fit.depths[1]}", str(fit), f"{fit.r2:.2f}"))
    yield from _table(("family", "candidates", "layers L", "M(L)", "r2"), rows)


def figure(candidates: Sequence[MeasuredCandidate], size: Sequence[MeasuredCandidate], path: Path) -> None:
    """Accuracy over each cost with the choices of S2 and S3; MSRS over depth with the fit."""
    from matplotlib.figure import Figure

    picture = Figure(figsize=(11, 8), layout="constrained")
    panels = picture.subplots(2, 2).flat
    for panel, cost in zip(panels, COSTS, strict=False):
        unit, name = AXES[cost]
        points = panel.scatter(
            [(c.cost(cost) or 0) / unit for c in candidates],
            [c.accuracy for c in candidates],
            c=[float("nan") if c.msrs is None else c.msrs for c in candidates],
            cmap="viridis_r",
            s=14,
        )
        for score, marker in (("S2", "s"), ("S3", "o")):
            chosen = _top(candidates, cost, score)
            panel.scatter(
                [(c.cost(cost) or 0) / unit for c in chosen],
                [c.accuracy for c in chosen],
                s=70,
                marker=marker,
                facecolors="none",
                edgecolors={"S2": "tab:blue", "S3": "tab:red"}[score],
                label=f"top {TOP} by {score}",
            )
        panel.set_xlabel(name)
        panel.set_ylabel("accuracy")
        panel.legend(fontsize=8, frameon=False, loc="lower right")
    picture.colorbar(points, ax=panels[2], label="MSRS")
    last = panels[3]
    fit = fit_expected(size)
    last.scatter([c.layers for c in size], [c.msrs for c in size], s=14, color="0.4")
    depths = range(fit.depths[0], fit.depths[1] + 1)
    last.plot(depths, [fit(depth) for depth in depths], color="tab:red", label=f"M(L) = {fit}")
    last.set_xlabel("layers of residual networks")
    last.set_ylabel("MSRS")
    last.legend(fontsize=8, frameon=False)
    picture.savefig(path, dpi=110)


def _top(
    candidates: Sequence[MeasuredCandidate], cost: CostName, score: Any, beta: float | None = None
) -> list[MeasuredCandidate]:
    ranking = rank_candidates(candidates, RankingSettings(cost, score, beta=beta))
    return [_evaluated(row.candidate) for row in ranking.rows[:TOP]]


def _evaluated(candidate: Candidate) -> MeasuredCandidate:
    assert isinstance(candidate, MeasuredCandidate)
    return candidate


def _means(chosen: Sequence[MeasuredCandidate]) -> tuple[str, ...]:
    """Means, with the standard error of the accuracies."""
    spread = [f" ± {stdev(values) / len(values) ** 0.5:.2%}" for values in _accuracies(chosen)]
    validation, test = (fmean(values) for values in _accuracies(chosen))
    return (
        f"{validation:.2%}{spread[0]}",
        f"{test:.2%}{spread[1]}",
        f"{fmean(c.latency_ms or 0 for c in chosen):.3f}",
        f"{fmean(c.parameters for c in chosen) / 1e3:.1f} k",
        f"{fmean(c.macs or 0 for c in chosen) / 1e3:.0f} k",
        f"{fmean(c.msrs or 0 for c in chosen):.1f}",
    )


def _accuracies(chosen: Sequence[MeasuredCandidate]) -> tuple[list[float], list[float]]:
    return [c.accuracy or 0.0 for c in chosen], [c.test_accuracy or 0.0 for c in chosen]


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'|'.join(['---'] + ['---:'] * (len(head) - 1))}|"
    for row in rows:
        yield f"| {' | '.join(map(str, row))} |"


def _short(value: object) -> object:
    return f"{value:.6g}" if isinstance(value, float) else value


def _parsed(text: str, kind: Any) -> Any:
    if text == "":
        return None
    return next(make for make in (str, int, float) if kind in (make, make | None))(text)


def main() -> None:
    """Train, export, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--train", choices=sorted(FAMILIES))
    parser.add_argument("--run", type=Path, help="SQLite file of --train")
    parser.add_argument("--count", type=int, default=400, help="architectures of --train")
    parser.add_argument("--export", type=Path, nargs=2, metavar=("RUN", "TABLE"))
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    if options.train:
        train(options.train, options.run, options.count)
    elif options.export:
        export(*options.export)
    else:
        topology, size, longer = (read(TABLES[name]) for name in ("topology", "size", "longer"))
        print("\n".join(report(topology, size, longer)))
        if options.figure:
            figure(topology, size, options.figure)


if __name__ == "__main__":
    main()
