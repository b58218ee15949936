"""`redtest-onnx analyze`."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Any

import click

from redtest_onnx.cli import file_names, options, ranking_options
from redtest_onnx.cli.analyze_folder import FolderAnalysis, analyze_folder
from redtest_onnx.cli.analyze_job import AnalyzeJob, AnalyzeRequest
from redtest_onnx.cli.analyze_saved import analyze_saved
from redtest_onnx.cli.console import Screen
from redtest_onnx.cli.help import Command
from redtest_onnx.cli.underfitting import is_saved_analysis
from redtest_onnx.data.saved_activations import holds_activations
from redtest_onnx.engines.run import EngineOptions
from redtest_onnx.errors import InputError
from redtest_onnx.graph.files import load
from redtest_onnx.graph.model_folder import is_model_folder
from redtest_onnx.report.table_formats import TableFormat
from redtest_onnx.runtime.activation_model import activation_workbench
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analyze import AnalysisSettings, analyze
from redtest_onnx.similarity.sweep import sweep as vary


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
@click.option("--html", type=file_names.PAGE, help="Write a page with the heat map and all layers.")
@click.option("--png", type=file_names.PICTURE, help="Write the heat map as a picture (.png, .svg, .pdf).")
@click.option(
    "--feature-maps",
    type=file_names.PICTURE,
    help="Write feature maps of the most similar layers side by side, for models of images.",
)
@click.option(
    "--sweep",
    type=file_names.PICTURE,
    help="Draw MSRS over samples per batch, alpha and threshold, with each estimator's spread.",
)
@click.option(
    "--underfitting",
    type=options.FilePath,
    metavar="MODEL",
    help="A network too small for the task: propose the threshold at which it is not redundant.",
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
    context: click.Context, /, model: Path, form: TableFormat, verbose: int, quiet: bool, **values: Any
) -> None:
    """Measure the similarity of all layers of MODEL and its redundancy score (MSRS).

    A folder stands for all .onnx files in it; they are analysed on the engine. What --json wrote before
    stands for the model it was measured on, and is scored anew with --threshold, --alpha and --gate, or over
    alpha and threshold with --sweep. What `expose --save` wrote (.npz, .parquet or a folder of arrays) is
    measured tensor by tensor.
    """
    begin = perf_counter()
    options.configure_logging(verbose, quiet)
    request, rest = AnalyzeRequest.of(model, values)
    screen = Screen(quiet=quiet, json_on_stdout=request.json_path == "-", form=form)
    given = options.data_options_of(rest)
    request.check_outputs(() if is_saved_analysis(model) else given.reads(model))
    if is_saved_analysis(model):
        analyze_saved(context, request, screen)
        return
    engine = ranking_options.engine_options_of(rest)
    run = options.run_options_of(rest)
    if model.is_dir() and not is_model_folder(model) and not holds_activations(model):
        request.refuse_for_folders()
        work = FolderAnalysis(given, AnalysisSettings(**rest), run)
        analyze_folder(model, work, engine, screen, request.json_path)
        return
    if engine != EngineOptions():
        raise InputError(
            "--engine, --workers and --address are for many models; one has --threads",
            where=str(model),
            hint="name a folder: all its .onnx files are analysed",
        )
    if holds_activations(model):
        if given.data or rest["layers"] not in ("auto", "all"):
            raise InputError(
                "saved activations are samples of all their tensors: --data and --layers are for models",
                where=str(model),
                hint="leave these options out",
            )
        bench = activation_workbench(model, run, rest["seed"])
        rest["layers"] = "all"
    else:
        loaded = load(model)
        bench = Workbench(loaded, given.open(loaded), run, seed=rest["seed"])
        screen.warn_synthetic(bench.data)
    with screen.progress() as progress:
        analysis = analyze(bench, AnalysisSettings(**rest), progress)
        swept = vary(bench, analysis, progress) if request.sweep else None
    job = AnalyzeJob(screen, request, bench, analysis, swept)
    job.write(job.proposal(given), perf_counter() - begin)
