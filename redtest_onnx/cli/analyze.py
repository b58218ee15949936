"""`redtest-onnx analyze`."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Any

import click

from redtest_onnx.cli import options, ranking_options
from redtest_onnx.cli.analyze_folder import FolderAnalysis, analyze_folder
from redtest_onnx.cli.analyze_saved import SavedOutputs, analyze_saved, is_saved_analysis
from redtest_onnx.cli.console import Screen
from redtest_onnx.cli.help import Command
from redtest_onnx.cli.outputs import Outputs
from redtest_onnx.cli.pages import provenance
from redtest_onnx.data.saved_activations import holds_activations
from redtest_onnx.documents.base import write_json
from redtest_onnx.errors import InputError
from redtest_onnx.graph.files import load
from redtest_onnx.graph.model_folder import is_model_folder
from redtest_onnx.report.cautions import cautions, redundancy_words
from redtest_onnx.report.feature_maps import save_feature_maps
from redtest_onnx.report.figures import check_figure
from redtest_onnx.report.heatmap import save_heatmap
from redtest_onnx.report.model_explorer import explorer_files, write_explorer
from redtest_onnx.report.page.layers import analysis_page
from redtest_onnx.report.page.render import save_page
from redtest_onnx.report.table_formats import TableFormat
from redtest_onnx.report.tables import layer_table
from redtest_onnx.runtime.activation_model import activation_workbench
from redtest_onnx.runtime.latency import measure_layers
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analyze import Analysis, AnalysisSettings, analyze
from redtest_onnx.similarity.documents import analyze_document
from redtest_onnx.similarity.feature_maps import feature_map_pairs


@click.command(
    "analyze",
    cls=Command,
    examples=(
        "redtest-onnx analyze model.onnx --data calibration.npz --html report.html",
        "redtest-onnx analyze models/ --data images.zip --workers 4",
        "redtest-onnx analyze saved.json --threshold 0.9 --alpha inf",
    ),
)
@click.argument("model", type=options.FilePath)
@options.measure_options
@click.option(
    "--threshold", type=float, help="Similarity of a redundant pair. [default: 0.8 with skips, else 0.7]"
)
@click.option("--gate", is_flag=True, help="Count only pairs above the threshold, as RedTest's Algorithm 1.")
@click.option("--html", type=options.FilePath, help="Write a page with the heat map and all layers.")
@click.option("--png", type=options.FilePath, help="Write the heat map as a picture (.png, .svg, .pdf).")
@click.option(
    "--feature-maps",
    type=options.FilePath,
    help="Write feature maps of the most similar layers side by side, for models of images.",
)
@ranking_options.engine_options
@options.data_options
@options.run_options
@options.latency_option
@options.explorer_option
@options.format_option
@options.output_options
@click.pass_context
def command(
    context: click.Context,
    /,
    model: Path,
    html: Path | None,
    png: Path | None,
    feature_maps: Path | None,
    layer_latency: bool,
    explorer: Path | None,
    form: TableFormat,
    json_path: str | None,
    force: bool,
    verbose: int,
    quiet: bool,
    **values: Any,
) -> None:
    """Measure the similarity of all layers of MODEL and its redundancy score (MSRS).

    A folder stands for all .onnx files in it; they are analysed on the engine. What --json wrote before
    stands for the model it was measured on, and is scored anew with --threshold, --alpha and --gate. What
    `expose --save` wrote (.npz, .parquet or a folder of arrays) is measured tensor by tensor.
    """
    begin = perf_counter()
    options.configure_logging(verbose, quiet)
    screen = Screen(quiet=quiet, json_on_stdout=json_path == "-", form=form)
    check_figure(png)
    check_figure(feature_maps)
    named = {"--html": html, "--png": png, "--feature-maps": feature_maps, "--json": json_path}
    explored = {f"--model-explorer ({file.name})": file for file in explorer_files(explorer)}
    outputs = Outputs.of({**named, **explored}, force=force)
    if is_saved_analysis(model):
        outputs.spare(model)
        saved, notes = analyze_saved(context, model, SavedOutputs(png, explorer, json_path))
        screen.show(layer_table(saved.layers, [None, *saved.adjacent]), *_summary(saved), *notes)
        return
    engine = ranking_options.engine_options_of(values)
    run = options.run_options_of(values)
    given = options.data_options_of(values)
    outputs.spare(*given.reads(model))
    outputs.spare_models(model)
    if holds_activations(model):
        if given.data or values["layers"] not in ("auto", "all"):
            raise InputError(
                "saved activations are samples of all their tensors: --data and --layers are for models",
                where=str(model),
                hint="leave these options out",
            )
        bench = activation_workbench(model, run, values["seed"])
        values["layers"] = "all"
    elif model.is_dir() and not is_model_folder(model):
        if html or png or explorer or feature_maps:
            raise InputError(
                "--html, --png, --feature-maps and --model-explorer are for one model",
                where=str(model),
                hint="use --json",
            )
        work = FolderAnalysis(given, AnalysisSettings(**values), run)
        analyze_folder(model, work, engine, screen, json_path)
        return
    else:
        loaded = load(model)
        bench = Workbench(loaded, given.open(loaded), run, seed=values["seed"])
        screen.warn_synthetic(bench.data)
    settings = AnalysisSettings(**values)
    with screen.progress() as progress:
        analysis = analyze(bench, settings, progress)
    latency = measure_layers(bench, analysis.layers) if layer_latency else None
    table = layer_table(analysis.layers, [None, *analysis.adjacent], latency_ms=latency)
    screen.show(table, *_summary(analysis))
    if html:
        page = analysis_page(bench.model, bench.cost, analysis, provenance(), latency_ms=latency)
        save_page(page, html)
    if explorer:
        write_explorer(explorer, analysis.layers, analysis.adjacent)
    if png:
        save_heatmap(analysis, model.name, png)
    if feature_maps:
        pairs = feature_map_pairs(bench, analysis)
        title = f"{model.name}: the most similar neighbours, then the least; channels by number"
        save_feature_maps(pairs, title, feature_maps)
    if json_path:
        write_json(analyze_document(bench.model, bench.cost, analysis, perf_counter() - begin), json_path)


def _summary(analysis: Analysis) -> list[str]:
    """The result in words."""
    redundancy = analysis.redundancy
    spread = f" ± {redundancy.std:.1f} over batches" if redundancy.std is not None else ""
    lines = [
        f"{redundancy_words(redundancy, spread)}.",
        f"Measured on {analysis.batches} x {analysis.samples} samples of {analysis.source}, "
        f"pooling {analysis.settings.pooling}.",
        *(f"The layers are those of {branch}." for branch in analysis.branches),
    ]
    similar = [
        layer
        for layer, value in zip(analysis.layers[1:], analysis.adjacent, strict=True)
        if layer.removable and value >= redundancy.threshold
    ]
    if similar:
        lines.append(
            f"{len(similar)} removable layers are that similar to the one before: see `redtest-onnx prune`."
        )
    return [*lines, *cautions(analysis)]
