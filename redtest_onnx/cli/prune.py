"""`redtest-onnx prune`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from redtest_onnx.cli import file_names, options
from redtest_onnx.cli.console import Screen
from redtest_onnx.cli.curve_folder import CurveOfModel, curve_folder
from redtest_onnx.cli.deployment_options import deployment_options
from redtest_onnx.cli.fit_options import ShardOpening, fit_options, shards_of
from redtest_onnx.cli.help import Command
from redtest_onnx.cli.parameters import Seconds
from redtest_onnx.cli.prune_curve import prune_curve
from redtest_onnx.cli.prune_job import PruneJob
from redtest_onnx.cli.prune_requests import PruneRequest, check_engine
from redtest_onnx.cli.ranking_options import engine_options, engine_options_of
from redtest_onnx.graph.files import load
from redtest_onnx.pruning.budget import DEFAULT_MAX_DROP
from redtest_onnx.pruning.criteria import base as criteria
from redtest_onnx.pruning.repair.fit import METHODS
from redtest_onnx.pruning.targets import QUANTITIES
from redtest_onnx.report.table_formats import TableFormat
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analyze import AnalysisSettings
from redtest_onnx.similarity.saved import load_analysis


@click.command(
    "prune",
    cls=Command,
    sections={
        "What to remove": (
            *("criterion", "threshold", "remove", "target", "width", "max_drop", "protect", "dry_run"),
            *("plan_path", "analysis_path", "curve"),
        ),
        "Repair": (
            *("repair", "repair_time", "adapter_kernel", "fit_data", "epochs", "iterations", "lr", "augment"),
        ),
    },
    rare=("repair_time", "adapter_kernel", "fit_data", "iterations", "lr", "augment", "analysis_path", "png"),
    examples=(
        "redtest-onnx prune model.onnx --data images.zip",
        "redtest-onnx prune model.onnx --data calibration.npz --target params=0.6 --html result.html",
        "redtest-onnx prune model.onnx --data images.zip --remove 4 --repair distil",
    ),
)
@click.argument("model", type=options.FilePath)
@click.option(
    "-o",
    "--output",
    type=file_names.MODEL,
    help="File, or folder for a MODEL folder. [default: MODEL with .pruned]",
)
@click.option(
    "--criterion", default="redtest", show_default=True, help=f"One of {', '.join(criteria.names())}."
)
@click.option("--threshold", type=float, help="Remove every layer this similar to the last kept one.")
@click.option(
    "--remove",
    type=click.IntRange(min=0),
    help="Remove this many layers; of a transformer, blocks.",
)
@click.option(
    "--target",
    multiple=True,
    metavar="WHAT=SHARE",
    help=f"Share that may stay, such as latency=0.6; one of {', '.join(QUANTITIES)}.",
)
@click.option(
    "--width",
    is_flag=True,
    help="Let channels inside of layers go, too, beside layers or in their place: for --target of params and "
    "macs.",
)
@click.option(
    "--max-drop",
    type=click.FloatRange(min=0, max=1),
    help=f"Largest loss of accuracy or agreement. [default: {DEFAULT_MAX_DROP} if nothing else is asked for]",
)
@click.option(
    "--repair",
    type=click.Choice(METHODS),
    default="auto",
    show_default=True,
    help="Fit to what the original computed, without training: a linear adapter in each gap, or all "
    "remaining weights again. distil trains behind a refit, without labels (needs PyTorch, some minutes). "
    "auto keeps what loses least, and trains where a refit loses something and that takes no longer than "
    "--repair-time, or than some three minutes of one core. reinit is RedTest's own: what reads a layer of "
    "another shape is resized and drawn anew, to be trained with --finetune.",
)
@click.option(
    "--repair-time",
    type=Seconds(),
    help="Time that training without labels may take, such as 2m. [default: all steps]",
)
@click.option(
    "--adapter-kernel",
    type=click.Choice(["1", "3"]),
    default="1",
    show_default=True,
    help="Size of the convolutions of fitted adapters.",
)
@click.option(
    "--finetune", "epochs", type=click.IntRange(min=1), metavar="EPOCHS", help="Train after the repair, too."
)
@click.option(
    "--iterations",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Rounds of removing, repairing and training, each with its part of the budget.",
)
@click.option("--lr", type=float, help="Highest learning rate of --finetune; see `finetune`.")
@click.option(
    "--augment",
    multiple=True,
    type=click.Choice(["crop", "flip"]),
    help="Change images of --finetune or of training without labels at random; may be repeated.",
)
@click.option("--protect", multiple=True, metavar="GLOB", help="Layers that must stay; may be repeated.")
@click.option("--dry-run", is_flag=True, help="Only plan; with --plan write the plan to that file.")
@click.option(
    "--plan", "plan_path", type=options.FilePath, help="Apply this plan (with --dry-run: write it)."
)
@click.option(
    "--eval-data", type=options.FilePath, help="Samples for accuracy. [default: split `test` of --data]"
)
@click.option(
    "--analysis",
    "analysis_path",
    type=options.FilePath,
    help="Use this analysis, from analyze --json, instead of a new one.",
)
@click.option(
    "--curve",
    type=file_names.OUTPUT,
    metavar="FOLDER",
    help="Write a series of models of falling size, each repaired and measured, and mark the smallest within "
    "--max-drop; if MODEL is a folder, of each .onnx file in it.",
)
@click.option("--html", type=file_names.PAGE, help="Write a page with the result.")
@click.option(
    "--png",
    type=file_names.PICTURE,
    help="Write the heat map with the removed layers marked, or with --curve accuracy, cost and MSRS over "
    "the series, as a picture (.png, .svg, .pdf).",
)
@options.measure_options
@options.data_options
@options.run_options
@options.output_kind_option
@deployment_options
@fit_options
@engine_options
@options.latency_option
@options.explorer_option
@options.format_option
@options.output_options
def command(model: Path, form: TableFormat, verbose: int, quiet: bool, **values: Any) -> int | None:
    """Remove redundant layers of MODEL without training, and prove what that did.

    With nothing but MODEL it removes as many layers as it can while accuracy (with labels) or agreement with
    the original stays within one point on held-out samples.
    """
    options.configure_logging(verbose, quiet)
    request, rest = PruneRequest.of(model, values)
    engine = engine_options_of(rest)
    check_engine(engine, request.several or bool(request.fit_data))
    on_stdout = request.json_path == "-"
    summarised = request.curve is None and not request.dry_run
    screen = Screen(quiet=quiet, json_on_stdout=on_stdout, form=form, summarised=summarised)
    run, source = options.run_options_of(rest), options.data_options_of(rest)
    outputs = request.outputs(source.reads(model))
    shards = shards_of(request.fit_data, ShardOpening(model, source, run), engine)
    settings = request.settings(AnalysisSettings(**rest), shards)
    if request.several and request.curve:
        work = CurveOfModel(model, request.curve, source, request.eval_data, run, settings, request.budget)
        return curve_folder(work, engine, screen, request.json_path)
    loaded = load(model)
    outputs.spare(loaded)
    saved = load_analysis(request.analysis_path, loaded) if request.analysis_path else None
    data, evaluation = source.open(loaded), options.evaluation_data(source, loaded, request.eval_data)
    seed = saved.settings.seed if saved else settings.similarity.seed
    bench = Workbench(loaded, data, run, seed=seed, evaluation=evaluation)
    screen.warn_synthetic(data)
    _ = bench.outputs  # wrong --output-kind shows before any work is done
    job = PruneJob(screen, request, source, bench, settings, saved)
    if job.nothing_removable():
        return 1
    if request.series is not None:
        return prune_curve(screen, bench, request.budget, settings, request.series, saved)
    plan, analysis = job.plan()
    job.show_plan(plan, analysis)
    latency = job.layer_latency(analysis)
    if request.dry_run or plan.empty:
        return job.write_plan(plan, analysis, latency)
    job.write(*job.prune(plan, analysis), latency)
    return None
