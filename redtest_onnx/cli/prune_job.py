"""The steps of `prune` behind its options: plan, prune or train, and show and write what came of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import click

from redtest_onnx.cli import options
from redtest_onnx.cli.console import Screen, epoch_reporter
from redtest_onnx.cli.pages import provenance
from redtest_onnx.cli.prune_plans import finish_dry_run, nothing_removable, show_plan
from redtest_onnx.cli.prune_requests import PruneRequest
from redtest_onnx.cli.unfinished import kept_if_interrupted
from redtest_onnx.cli.words import flags_in
from redtest_onnx.documents.base import write_json
from redtest_onnx.graph.inner_widths import inner_widths
from redtest_onnx.layers.granularity import measured_granularity
from redtest_onnx.pruning.counting import counted_analysis, planning_analysis, resolved_granularity
from redtest_onnx.pruning.documents import prune_document
from redtest_onnx.pruning.folder import save_pruned
from redtest_onnx.pruning.plan import Plan, load_plan, saved_granularity
from redtest_onnx.pruning.prune import PruneSettings, Pruning, prune
from redtest_onnx.pruning.prune import plan as make_plan
from redtest_onnx.report.agreement import agreement_notes
from redtest_onnx.report.heatmap import save_heatmap
from redtest_onnx.report.model_explorer import write_explorer
from redtest_onnx.report.page.layers import analysis_page, prune_page
from redtest_onnx.report.page.render import save_page
from redtest_onnx.report.prunings import judged_words, prune_markdown, repair_words, round_words
from redtest_onnx.report.tables import comparison_table
from redtest_onnx.runtime.latency import measure_layers
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analyze import Analysis

if TYPE_CHECKING:
    from redtest_onnx.pruning.rounds import Round


@dataclass(frozen=True)
class PruneJob:
    """One run of `prune`.

    Attributes:
        screen: where results are shown.
        request: what the options say.
        source: where samples come from.
        bench: the original and its samples.
        settings: how layers are chosen and repaired.
        saved: an earlier analysis that was given; None if there is none.
    """

    screen: Screen
    request: PruneRequest
    source: options.DataOptions
    bench: Workbench
    settings: PruneSettings
    saved: Analysis | None

    def nothing_removable(self) -> bool:
        """Give the reasons where no layer can be removed; nothing is written then but the JSON."""
        similarity, request = self.settings.similarity, self.request
        if (request.width or request.applied_plan) and inner_widths(self.bench.opened.model).found:
            return False  # channels can go
        counts = request.remove is not None or request.series is not None
        granularity = resolved_granularity(self.bench, similarity, counts=counts)
        return nothing_removable(self.screen, self.bench, self.bench.layers(granularity), request.json_path)

    def plan(self) -> tuple[Plan, Analysis]:
        """The plan that is given, else a new one; with the analysis behind it."""
        bench, given = self.bench, self.request.applied_plan
        with (
            kept_if_interrupted(self.screen, bench, self.request.file) as unfinished,
            self.screen.progress() as progress,
        ):
            if given:
                similarity = self.settings.similarity
                granularity = saved_granularity(given, bench, measured_granularity(similarity.granularity))
                analysis = counted_analysis(
                    bench,
                    replace(similarity, granularity=granularity),
                    counts=False,
                    given=self.saved,
                    progress=progress,
                )
                unfinished.analysis = None if self.saved else analysis
                return load_plan(given, bench.model, analysis.layers, bench.opened.model), analysis
            budget = self.request.budgets()[0]
            analysis = planning_analysis(bench, budget, self.settings, given=self.saved, progress=progress)
            unfinished.analysis = None if self.saved else analysis
            return make_plan(bench, budget, self.settings, analysis=analysis, progress=progress)

    def show_plan(self, plan: Plan, analysis: Analysis) -> None:
        """Show the layers to remove, or why there are none; write and draw them where that is asked for."""
        request = self.request
        reason = f"{request.applied_plan} names no layers" if request.applied_plan else plan.reason
        both = bool(plan.steps and analysis.branches) and self.bench.twin is not None
        show_plan(self.screen, plan, analysis, flags_in(reason or ""), alone=request.dry_run, both=both)
        removed = frozenset(step.region for step in plan.steps)
        if request.explorer and not plan.empty:
            write_explorer(request.explorer, analysis.layers, analysis.adjacent, removed)
        if request.png and not plan.empty:
            save_heatmap(analysis, request.model.name, request.png, removed)

    def layer_latency(self, analysis: Analysis) -> list[float | None] | None:
        """Milliseconds of each layer, where a page is to show them."""
        asked = self.request.layer_latency and self.request.html
        return measure_layers(self.bench, analysis.layers) if asked else None

    def write_plan(self, plan: Plan, analysis: Analysis, latency: list[float | None] | None) -> int:
        """Write what a dry run leaves, or what there is to say of a plan without layers; the exit code."""
        request, bench = self.request, self.bench
        if request.html and not plan.empty:
            page = analysis_page(
                bench.model, bench.cost, analysis, provenance(), plan=plan, latency_ms=latency
            )
            save_page(page, request.html)
        path = request.plan_path if request.dry_run and not plan.empty else None
        finish_dry_run(self.screen, bench, plan, analysis, path, request.json_path)
        return 1 if plan.empty else 0

    def prune(self, plan: Plan, analysis: Analysis) -> tuple[Pruning, tuple[Round, ...]]:
        """The pruned model, and the rounds of training if any were asked for."""
        request, bench = self.request, self.bench
        with (
            kept_if_interrupted(self.screen, bench, request.file) as unfinished,
            self.screen.progress() as progress,
        ):
            unfinished.analysis = None if self.saved else analysis
            unfinished.plan = None if request.plan_path else plan
            if request.epochs is None:
                pruning = prune(
                    *(bench, plan, analysis, self.settings),
                    targets=request.budget.targets,
                    max_drop=None if request.plan_path else request.budget.max_drop,
                    progress=progress,
                )
                return pruning, ()
            from redtest_onnx.pruning.rounds import RoundTraining, prune_in_rounds
            from redtest_onnx.training.loop import Watch
            from redtest_onnx.training.settings import TrainingSettings

            seed, source = self.settings.similarity.seed, self.source
            training = RoundTraining(
                TrainingSettings(request.epochs, lr=request.lr, augment=request.augment, seed=seed),
                options.training_data(source, bench.model) if source.has_split("train") else None,
                Watch(epoch_reporter(self.screen), progress),
            )
            return prune_in_rounds(bench, request.budgets(), training, self.settings, first=(plan, analysis))

    def write(self, pruning: Pruning, rounds: tuple[Round, ...], latency: list[float | None] | None) -> None:
        """Save the model, and show and write what became of it."""
        screen, request, file = self.screen, self.request, self.request.file
        notes = save_pruned(self.bench, pruning, request.model, file, force=request.force)
        screen.show(*map(round_words, rounds) if rounds else [repair_words(pruning.repair)])
        screen.show(comparison_table(pruning), *agreement_notes(pruning.agreement.outputs))
        if pruning.provider is not None:
            screen.show(f"The pruned model: {pruning.provider}.")
        if screen.form == "markdown" and request.json_path != "-":
            click.echo(prune_markdown(pruning, request.model.name, file), nl=False)
        judged = f"Compared on {judged_words(pruning)}. Written to {file}."
        screen.show(judged, *notes)
        if request.html:
            page = prune_page(self.bench.model, pruning, file, provenance(), latency_ms=latency)
            save_page(page, request.html)
        if request.json_path:
            write_json(prune_document(pruning, file, rounds), request.json_path)
