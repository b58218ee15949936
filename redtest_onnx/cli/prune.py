"""`redtest-onnx prune`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from redtest_onnx.cli import options
from redtest_onnx.cli.console import Screen, epoch_reporter
from redtest_onnx.cli.curve_folder import CurveOfModel, curve_folder
from redtest_onnx.cli.deployment_options import deployment_options
from redtest_onnx.cli.fit_options import ShardOpening, check_fit, fit_options, shards_of
from redtest_onnx.cli.help import Command
from redtest_onnx.cli.outputs import Outputs
from redtest_onnx.cli.pages import provenance
from redtest_onnx.cli.parameters import Seconds
from redtest_onnx.cli.prune_curve import CurveRequest, prune_curve
from redtest_onnx.cli.prune_plans import finish_dry_run, nothing_removable, show_plan
from redtest_onnx.cli.prune_requests import budget_of, check_engine, check_training, of_one_result
from redtest_onnx.cli.ranking_options import engine_options, engine_options_of
from redtest_onnx.cli.training_options import prepare_torch
from redtest_onnx.cli.unfinished import kept_if_interrupted
from redtest_onnx.cli.words import flags_in
from redtest_onnx.documents.base import write_json
from redtest_onnx.errors import InputError
from redtest_onnx.graph.files import load
from redtest_onnx.pruning.budget import DEFAULT_MAX_DROP
from redtest_onnx.pruning.criteria import base as criteria
from redtest_onnx.pruning.documents import prune_document
from redtest_onnx.pruning.folder import check_output, default_output, save_pruned
from redtest_onnx.pruning.plan import load_plan
from redtest_onnx.pruning.prune import PruneSettings, prune
from redtest_onnx.pruning.prune import plan as make_plan
from redtest_onnx.pruning.repair.distilled import require_training
from redtest_onnx.pruning.repair.repair import METHODS, Method
from redtest_onnx.pruning.targets import QUANTITIES
from redtest_onnx.report.agreement import agreement_notes
from redtest_onnx.report.figures import check_figure
from redtest_onnx.report.heatmap import save_heatmap
from redtest_onnx.report.model_explorer import explorer_files, write_explorer
from redtest_onnx.report.page.layers import analysis_page, prune_page
from redtest_onnx.report.page.render import save_page
from redtest_onnx.report.prunings import prune_markdown, repair_words, round_words
from redtest_onnx.report.table_formats import TableFormat
from redtest_onnx.report.tables import comparison_table
from redtest_onnx.runtime.latency import measure_layers
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analyze import AnalysisSettings, analyze
from redtest_onnx.similarity.saved import load_analysis
from redtest_onnx.training.distil.settings import DistilSettings

if TYPE_CHECKING:
    from redtest_onnx.pruning.rounds import Round


@click.command(
    "prune",
    cls=Command,
    sections={
        "What to remove": (
            *("criterion", "threshold", "remove", "target", "max_drop", "protect", "dry_run"),
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
    type=options.FilePath,
    help="File, or folder for a MODEL folder. [default: MODEL with .pruned]",
)
@click.option(
    "--criterion", default="redtest", show_default=True, help=f"One of {', '.join(criteria.names())}."
)
@click.option("--threshold", type=float, help="Remove every layer this similar to the last kept one.")
@click.option("--remove", type=click.IntRange(min=0), help="Remove this many layers.")
@click.option(
    "--target",
    multiple=True,
    metavar="WHAT=SHARE",
    help=f"Share that may stay, such as latency=0.6; one of {', '.join(QUANTITIES)}.",
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
    type=options.FilePath,
    metavar="FOLDER",
    help="Write a series of models of falling size, each repaired and measured, and mark the smallest within "
    "--max-drop; if MODEL is a folder, of each .onnx file in it.",
)
@click.option("--html", type=options.FilePath, help="Write a page with the result.")
@click.option(
    "--png",
    type=options.FilePath,
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
def command(
    model: Path,
    output: Path | None,
    criterion: str,
    threshold: float | None,
    remove: int | None,
    target: tuple[str, ...],
    max_drop: float | None,
    repair: Method,
    repair_time: float | None,
    adapter_kernel: str,
    epochs: int | None,
    iterations: int,
    lr: float | None,
    augment: tuple[Literal["crop", "flip"], ...],
    protect: tuple[str, ...],
    dry_run: bool,
    plan_path: Path | None,
    eval_data: Path | None,
    analysis_path: Path | None,
    curve: Path | None,
    html: Path | None,
    png: Path | None,
    layer_latency: bool,
    explorer: Path | None,
    form: TableFormat,
    json_path: str | None,
    force: bool,
    verbose: int,
    quiet: bool,
    **values: Any,
) -> int | None:
    """Remove redundant layers of MODEL without training, and prove what that did.

    With nothing but MODEL it removes as many layers as it can while accuracy (with labels) or agreement with
    the original stays within one point on held-out samples.
    """
    options.configure_logging(verbose, quiet)
    screen = Screen(quiet=quiet, json_on_stdout=json_path == "-" or form == "markdown", form=form)
    output = output or default_output(model)
    budget = budget_of(remove, threshold, target, max_drop, protect)
    budgets = budget.rounds(iterations)
    check_training(epochs, iterations, lr, augment if repair not in ("distil", "auto") else (), plan_path)
    if repair_time is not None and repair not in ("distil", "auto"):
        raise InputError("--repair-time belongs to --repair distil or auto", hint="--repair distil")
    if repair == "distil":
        require_training()
    if epochs is not None:
        prepare_torch()
    series = None if curve is None else CurveRequest(curve, html, png, json_path, force)
    if series is not None:
        single = of_one_result(remove, threshold, target, plan_path, dry_run, epochs)
        single |= {"--model-explorer": explorer is not None, "--layer-latency": layer_latency}
        single |= {"--analysis": analysis_path is not None and model.is_dir()}
        series.check(model, single)
    several = series is not None and model.is_dir()
    fit_files = check_fit(values, repair, series is not None, iterations)
    check_engine(engine := engine_options_of(values), several or bool(fit_files))
    named: dict[str, Path | str | None] = {"--html": html, "--png": png, "--json": json_path}
    check_figure(png)
    named |= {f"--model-explorer ({file.name})": file for file in explorer_files(explorer)}
    if dry_run:
        named["--plan"] = plan_path
    elif not model.is_dir() and series is None:
        named["--output"] = output
    outputs = Outputs.of(named, force=force)
    if not dry_run and series is None:
        check_output(model, output, force=force)
    run = options.run_options_of(values)
    source = options.data_options_of(values)
    kept = (*source.reads(model), eval_data, analysis_path, None if dry_run else plan_path, *fit_files)
    outputs.spare(*kept)
    outputs.spare_models(model)
    settings = AnalysisSettings(**values)
    distil = DistilSettings(
        mirror="flip" in augment, crop="crop" in augment, seconds=repair_time, seed=settings.seed
    )
    shards = shards_of(fit_files, ShardOpening(model, source, run), engine)
    how = PruneSettings(criterion, settings, repair, 3 if adapter_kernel == "3" else 1, distil, shards)
    if several and curve:
        work = CurveOfModel(model, curve, source, eval_data, run, how, budget)
        return curve_folder(work, engine, screen, json_path)
    loaded = load(model)
    outputs.spare(loaded)
    saved = load_analysis(analysis_path, loaded) if analysis_path else None
    data, evaluation = source.open(loaded), options.evaluation_data(source, loaded, eval_data)
    seed = saved.settings.seed if saved else settings.seed
    bench = Workbench(loaded, data, run, seed=seed, evaluation=evaluation)
    screen.warn_synthetic(data)
    _ = bench.outputs  # wrong --output-kind shows before any work is done
    if nothing_removable(screen, bench, settings, json_path):
        return 1
    if series is not None:
        return prune_curve(screen, bench, budget, how, series, saved)
    with kept_if_interrupted(screen, bench, output) as unfinished, screen.progress() as progress:
        analysis = saved or analyze(bench, settings, progress)
        unfinished.analysis = None if saved else analysis
        if plan_path and not dry_run:
            chosen = load_plan(plan_path, loaded, analysis.layers)
        else:
            chosen, _ = make_plan(bench, budgets[0], how, analysis=analysis, progress=progress)
    reason = f"{plan_path} names no layers" if plan_path and not dry_run else chosen.reason
    show_plan(screen, chosen, analysis, flags_in(reason or ""), alone=dry_run)
    removed = frozenset(step.region for step in chosen.steps)
    if explorer and removed:
        write_explorer(explorer, analysis.layers, analysis.adjacent, removed)
    if png and removed:
        save_heatmap(analysis, model.name, png, removed)
    latency = measure_layers(bench, analysis.layers) if layer_latency and html else None
    if dry_run or not chosen.steps:
        plan_path = plan_path if dry_run and chosen.steps else None
        if html and chosen.steps:
            page = analysis_page(loaded, bench.cost, analysis, provenance(), plan=chosen, latency_ms=latency)
            save_page(page, html)
        finish_dry_run(screen, bench, chosen, analysis, plan_path, json_path)
        return 0 if chosen.steps else 1
    rounds: tuple[Round, ...] = ()
    with kept_if_interrupted(screen, bench, output) as unfinished, screen.progress() as progress:
        unfinished.analysis = None if saved else analysis
        unfinished.plan = None if plan_path else chosen
        if epochs is None:
            pruning = prune(bench, chosen, analysis, how, targets=budget.targets, progress=progress)
        else:
            from redtest_onnx.pruning.rounds import RoundTraining, prune_in_rounds
            from redtest_onnx.training.loop import Watch
            from redtest_onnx.training.settings import TrainingSettings

            training = RoundTraining(
                TrainingSettings(epochs, lr=lr, augment=augment, seed=settings.seed),
                options.training_data(source, loaded) if source.has_split("train") else None,
                Watch(epoch_reporter(screen), progress),
            )
            pruning, rounds = prune_in_rounds(bench, budgets, training, how, first=(chosen, analysis))
    notes = save_pruned(bench, pruning, model, output, force=force)
    if rounds:
        screen.show(*map(round_words, rounds))
    else:
        screen.show(repair_words(pruning.repair))
    screen.show(comparison_table(pruning), *agreement_notes(pruning.agreement.outputs))
    if pruning.provider is not None:
        screen.show(f"The pruned model: {pruning.provider}.")
    if form == "markdown" and json_path != "-":
        click.echo(prune_markdown(pruning, model.name, output), nl=False)
    screen.show(
        f"Compared on {pruning.evaluated} samples of {pruning.evaluated_on}. Written to {output}.", *notes
    )
    if html:
        save_page(prune_page(loaded, pruning, output, provenance(), latency_ms=latency), html)
    if json_path:
        write_json(prune_document(pruning, output, rounds), json_path)
    return None
