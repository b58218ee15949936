"""How long `search` and `rank` take on tables that know every number.

    python tools/table_search.py            # 300 and 11,715 rows, as many as RedTest ranks for CIFAR-10

Generates tables of cells of NATS-Bench's topology space with random measures, runs both commands on them
with picture, page and JSON, and prints seconds of the processor and of the clock, start-up included.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
from os import times
from pathlib import Path
from time import perf_counter

from redtest_onnx.search.topology import TopologySpace


def write_table(path: Path, rows: int, seed: int = 0) -> None:
    """Write a table of random cells with random measures.

    Args:
        path: where.
        rows: number of cells.
        seed: of cells and measures.
    """
    rng = random.Random(seed)
    lines = ["architecture,accuracy,parameters,macs,latency_ms,msrs,test_accuracy"]
    for name in rng.sample(list(TopologySpace()), rows):
        size, accuracy = rng.uniform(0.05, 1.5), rng.betavariate(8, 2)
        costs = f"{size * 1e6:.0f},{size * 1.4e8:.0f},{size * 10:.4f}"
        lines.append(f"{name},{accuracy:.5f},{costs},{rng.uniform(2, 120):.4f},{accuracy * 0.99:.5f}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def seconds_of(arguments: list[str]) -> tuple[float, float]:
    """Seconds of the processor and of the clock that a command takes."""
    before, begin = times(), perf_counter()
    subprocess.run([sys.executable, "-m", "redtest_onnx", *arguments], check=True, capture_output=True)
    after = times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return spent, perf_counter() - begin


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[300, 11_715])
    options = parser.parse_args()
    print("| rows | command | processor | clock |\n|---:|---|---:|---:|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for rows in options.rows:
            table = folder / f"{rows}.csv"
            write_table(table, rows)
            for command in ("search", "rank"):
                views = [str(folder / f"{rows}-{command}.{kind}") for kind in ("png", "html", "json")]
                given = ["--metrics", str(table), "--png", views[0], "--html", views[1], "--json", views[2]]
                given += ["--output", str(folder / f"{rows}.sqlite")] if command == "search" else []
                spent, clock = seconds_of([command, *given])
                print(f"| {rows:,} | {command} | {spent:.1f} s | {clock:.1f} s |", flush=True)


if __name__ == "__main__":
    main()
