"""`redtest-onnx sparsity`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import click

from redtest_onnx.cli import file_names, options
from redtest_onnx.cli.groups import OutputOptions, grouped
from redtest_onnx.cli.help import Command
from redtest_onnx.cli.outputs import Outputs
from redtest_onnx.cli.pages import provenance
from redtest_onnx.cli.parameters import Numbers
from redtest_onnx.cli.prune_weights import prune_weights
from redtest_onnx.cli.sparsity_options import Request, pruning_options, refuse_unused
from redtest_onnx.documents.base import write_json
from redtest_onnx.errors import InputError
from redtest_onnx.graph.declared import declared_cost
from redtest_onnx.graph.files import load
from redtest_onnx.report.figures import save_figure
from redtest_onnx.report.iterations import draw_iterations
from redtest_onnx.report.page.others import sparsity_page
from redtest_onnx.report.page.render import save_page
from redtest_onnx.report.sparsity import draw_sparsity, sparsity_table, sparsity_words
from redtest_onnx.report.table import Table
from redtest_onnx.weight_sparsity.documents import sparsity_document
from redtest_onnx.weight_sparsity.iterative.records import Method
from redtest_onnx.weight_sparsity.measure import PAIRS, Pair, measure_sparsity


@dataclass(frozen=True)
class SparsityOptions:
    """What is measured or zeroed, and how that is shown.

    Attributes:
        pq: exponents of the PQ Index.
        eta: how much the bound lets be removed, see `metrics.pqi.retained`.
        figure: the picture.
        html: the page.
        method: how weights are zeroed; None to measure only.
        output: the model with zeros.
    """

    pq: tuple[tuple[float, ...], ...]
    eta: float
    figure: Path | None
    html: Path | None
    method: Method | None
    output: Path | None


@click.command(
    "sparsity",
    cls=Command,
    examples=(
        "redtest-onnx sparsity model.onnx",
        "redtest-onnx sparsity model.onnx --method one-shot --amount 0.3 --data d.npz",
        "redtest-onnx sparsity model.onnx --method sap --data train.npz",
    ),
)
@click.argument("model", type=options.FilePath)
@click.option(
    "--pq",
    type=Numbers(),
    multiple=True,
    metavar="P,Q",
    help="Exponents of the PQ Index; may be repeated. [default: 0.5,1 and 1,2]",
)
@click.option(
    "--eta",
    type=float,
    default=0.0,
    show_default=True,
    help="How much may be removed by the bound: sum of |w|^p of removed weights over that of kept ones.",
)
@click.option(
    "--figure",
    type=file_names.PICTURE,
    help="Write a figure (.png, .svg, .pdf); with --method and training, of its iterations.",
)
@click.option("--html", type=file_names.PAGE, help="Write a page with the figure and all tensors.")
@pruning_options
@options.data_options
@options.run_options
@options.format_option
@options.output_options
@grouped(asked=SparsityOptions, given=OutputOptions)
def command(model: Path, asked: SparsityOptions, given: OutputOptions, **values: Any) -> None:
    """Measure how sparse the weights of MODEL are in effect, and how many of them it needs.

    With --method weights are set to zero: one-shot takes the smallest of the model as it is; sap and lottery
    train in between.
    """
    begin = perf_counter()
    given.start_log()
    screen = given.screen()
    pairs, method, figure, html = _pairs(asked.pq), asked.method, asked.figure, asked.html
    stages: tuple[Table, ...] = ()
    chosen = None if method is None else asked.output or model.with_suffix(".sparse.onnx")
    named = {"--figure": figure, "--html": html, "--json": given.json_path, "--output": chosen}
    reads = (*options.data_options_of({**values}).reads(model), values["eval_data"])
    outputs = Outputs.of(named, force=given.force, reads=reads, models=(model,))
    if method is None or chosen is None:
        refuse_unused({**values, "output": asked.output}, None)
        loaded = load(model)
    else:
        request = Request.of(method, chosen, pairs, {**values, "eta": asked.eta})
        refuse_unused(values, request)
        pruned = prune_weights(screen, model, request, values, outputs, given)
        loaded, stages = pruned.model, pruned.tables
        if figure and pruned.run:
            title = f"{method} of {model.name}, scope {request.scope}"
            save_figure(draw_iterations(pruned.run, request.pairs, title), figure)
            figure = None
        if not (figure or html):
            return
    with screen.progress() as progress:
        sparsity = measure_sparsity(loaded, pairs or PAIRS, eta=asked.eta, progress=progress)
    if method is None:
        screen.show(sparsity_table(sparsity), *sparsity_words(sparsity))
    title = f"Weights of {(loaded.path or model).name}"
    if figure:
        save_figure(draw_sparsity(sparsity, title), figure)
    if html:
        save_page(sparsity_page(loaded, sparsity, provenance(), stages), html)
    if given.json_path and method is None:
        total = perf_counter() - begin
        write_json(sparsity_document(loaded, declared_cost(loaded), sparsity, total), given.json_path)


def _pairs(given: tuple[tuple[float, ...], ...]) -> tuple[Pair, ...]:
    for numbers in given:
        if len(numbers) != 2:
            raise InputError(f"--pq takes two numbers, got {len(numbers)}", hint="such as --pq 0.5,1")
    return tuple((p, q) for p, q in given)
