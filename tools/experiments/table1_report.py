"""The table and the picture of the experiment `table1.py`, from its results alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from redtest_onnx.report.figures import save_figure

Row = dict[str, Any]


def table(results: Sequence[Row], scale: str) -> str:
    """Mean and standard deviation over seeds of the rows of one scale, as Markdown."""
    lines = [
        "| data | net | layers chosen by | repair | seeds | layers | parameters | MACs | MSRS "
        "| accuracy before | without training | fine-tuned |",
        "|---|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for own in groups(results, scale):
        first = own[0]
        before, after = ([r[side] for r in own] for side in ("msrs", "msrs_after"))
        cells = [first["data"], first["net"], first["criterion"], first["repair"], str(len(own))]
        cells.append(_numbers([len(r["removed"]) for r in own]))
        cells += [f"{mean(r[what] for r in own):+.1%}" for what in ("parameters", "macs")]
        cells.append(f"{_decimals(before)} -> {_decimals(after)}")
        cells += [_shares([r[what] for r in own]) for what in ("base", "repaired", "tuned")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def groups(results: Iterable[Row], scale: str) -> list[list[Row]]:
    """Rows of one scale that differ in their seed only."""
    found: dict[tuple[str, ...], list[Row]] = {}
    for row in results:
        if row["scale"] == scale:
            key = tuple(row[part] for part in ("data", "net", "criterion", "repair"))
            found.setdefault(key, []).append(row)
    return list(found.values())


def draw(results: Sequence[Row], scale: str, path: Path) -> None:
    """MSRS before and after per method (RedTest's Fig. E2), a panel per network, a bar per method."""
    from matplotlib.figure import Figure

    found = groups(results, scale)
    nets = list(dict.fromkeys((own[0]["data"], own[0]["net"]) for own in found))
    rows = max(sum((g[0]["data"], g[0]["net"]) == net for g in found) for net in nets)
    figure = Figure(figsize=(5.2 * len(nets), 1.4 + 0.34 * rows), layout="constrained")
    for axes, net in zip(figure.subplots(1, len(nets), squeeze=False)[0], nets, strict=True):
        own = [g for g in found if (g[0]["data"], g[0]["net"]) == net]
        places = range(len(own))
        axes.barh(places, [_mean(g, "msrs_after") for g in own], color="#0072b2", height=0.6, label="after")
        axes.axvline(_mean(own[0], "msrs"), color="#d55e00", label="before")
        for place, g in enumerate(own):
            values = [r["msrs_after"] for r in g if r["msrs_after"] is not None]
            if len(values) > 1:
                axes.errorbar(mean(values), place, xerr=stdev(values), color="black", linewidth=1)
        axes.set_yticks(places, labels=[_method(g[0]) for g in own], fontsize=8)
        axes.invert_yaxis()
        axes.set_title(f"{net[1]} ({net[0]})", fontsize=10)
        axes.set_xlabel("MSRS")
        axes.set_xlim(left=0)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower right", ncols=2, fontsize=8)
    save_figure(figure, path)


def _method(row: Row) -> str:
    return row["criterion"] if row["repair"] == "-" else f"{row['criterion']}, {row['repair']}"


def _mean(own: Sequence[Row], key: str) -> float:
    return mean(r[key] or 0.0 for r in own)


def _shares(values: Sequence[float]) -> str:
    return f"{mean(values):.2%}" + (f" ± {100 * stdev(values):.2f}" if len(values) > 1 else "")


def _decimals(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    return f"{mean(known):.1f}" + (f" ± {stdev(known):.1f}" if len(known) > 1 else "")


def _numbers(values: Sequence[int]) -> str:
    return "-".join(map(str, sorted({min(values), max(values)})))
