"""One self-contained page a person can read, send and keep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from redtest_onnx.graph.writing import write_atomic
from redtest_onnx.report.cautions import cautions
from redtest_onnx.report.heatmap import heatmap_svg
from redtest_onnx.similarity.analyze import Analysis
from redtest_onnx.text import plain


def save_page(
    analysis: Analysis,
    title: str,
    path: Path,
    *,
    removed: Sequence[str] = (),
    comparison: Sequence[Sequence[str]] = (),
) -> None:
    """Write the page.

    Args:
        analysis: what was measured.
        title: its heading.
        path: the file to write.
        removed: names of layers that were taken out.
        comparison: rows of the table of the original and the pruned model.
    """
    adjacent = [None, *(None if math.isnan(v) else v for v in analysis.adjacent)]
    save_rendered(
        path,
        "page.html.j2",
        title=title,
        analysis=analysis,
        cautions=cautions(analysis),
        heatmap=heatmap_svg(analysis, title),
        rows=list(zip(analysis.layers, adjacent, strict=True)),
        removed=frozenset(removed),
        comparison=comparison,
    )


def save_rendered(path: Path, template: str, **values: object) -> None:
    """Write a page from one of the templates beside this file."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("redtest_onnx.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: plain(value) if type(value) is str else value,
    )
    text = environment.get_template(template).render(**values)
    write_atomic(path, lambda target: target.write_text(text, encoding="utf-8"))
