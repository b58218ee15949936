"""The options that only `analyze` has, and what it shows and writes of one model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from redtest_onnx.cli.console import Screen
from redtest_onnx.cli.model_request import ModelRequest
from redtest_onnx.cli.options import DataOptions
from redtest_onnx.cli.outputs import Outputs
from redtest_onnx.cli.pages import provenance
from redtest_onnx.cli.underfitting import is_saved_analysis, saved_proposal
from redtest_onnx.documents.base import write_json
from redtest_onnx.errors import InputError
from redtest_onnx.graph.files import load
from redtest_onnx.report.cautions import cautions, redundancy_words
from redtest_onnx.report.feature_maps import save_feature_maps
from redtest_onnx.report.heatmap import save_heatmap
from redtest_onnx.report.model_explorer import explorer_files, write_explorer
from redtest_onnx.report.numbers import plural
from redtest_onnx.report.page.layers import analysis_page
from redtest_onnx.report.page.render import save_page
from redtest_onnx.report.sweeps import proposal_words, save_sweep_figure, sweep_table
from redtest_onnx.report.tables import layer_table
from redtest_onnx.runtime.latency import measure_layers
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analyze import Analysis, analyze
from redtest_onnx.similarity.documents import analyze_document
from redtest_onnx.similarity.feature_maps import feature_map_pairs
from redtest_onnx.similarity.sweep import Sweep, ThresholdProposal, propose_threshold


@dataclass(frozen=True)
class AnalyzeRequest(ModelRequest):
    """The options that only `analyze` has, by the names of its parameters."""

    html: Path | None
    png: Path | None
    feature_maps: Path | None
    layer_latency: bool
    explorer: Path | None
    sweep: Path | None
    underfitting: Path | None
    json_path: str | None
    force: bool

    def check_outputs(self, reads: Iterable[Path | None]) -> None:
        """Refuse files that can't be written.

        Args:
            reads: what is read for samples.

        Raises:
            OutputError: one exists, can't be written, is read or is one of the others.
        """
        pictures = {"--png": self.png, "--feature-maps": self.feature_maps, "--sweep": self.sweep}
        explored = {f"--model-explorer ({file.name})": file for file in explorer_files(self.explorer)}
        named = {"--html": self.html, **pictures, "--json": self.json_path, **explored}
        given = [path for path in (self.model, self.underfitting) if path is not None]
        models = [path for path in given if not is_saved_analysis(path)]
        Outputs.of(named, force=self.force, reads=(*given, *reads), models=models)

    def refuse_for_folders(self) -> None:
        """Refuse what is shown of one model only.

        Raises:
            InputError: it is asked for.
        """
        asked = (self.html, self.png, self.feature_maps, self.explorer, self.sweep, self.underfitting)
        if any(asked):
            raise InputError(
                "--html, pictures, --underfitting and --model-explorer are for one model",
                where=str(self.model),
                hint="use --json",
            )


@dataclass(frozen=True)
class AnalyzeJob:
    """One model that was analysed.

    Attributes:
        screen: where results are shown.
        request: what the options say.
        bench: the model and its samples.
        analysis: of its layers.
        swept: MSRS under other settings; None if that was not asked for.
    """

    screen: Screen
    request: AnalyzeRequest
    bench: Workbench
    analysis: Analysis
    swept: Sweep | None

    def proposal(self, given: DataOptions) -> ThresholdProposal | None:
        """The threshold at which a network that underfits is not redundant; None without one."""
        path = self.request.underfitting
        if path is None:
            return None
        if is_saved_analysis(path):
            return saved_proposal(path, self.analysis)
        small, settings = load(path), self.analysis.settings
        other = Workbench(small, given.open(small), self.bench.options, seed=settings.seed)
        return propose_threshold(analyze(other, settings), self.analysis, path.name)

    def write(self, proposal: ThresholdProposal | None, seconds: float) -> None:
        """Show the result, and write all that was asked for."""
        request, bench, analysis = self.request, self.bench, self.analysis
        latency = measure_layers(bench, analysis.layers) if request.layer_latency else None
        table = layer_table(analysis.layers, [None, *analysis.adjacent], latency_ms=latency)
        self.screen.show(table, *summary(analysis))
        notes = [proposal_words(proposal)] if proposal else []
        beside = (sweep_table(self.swept),) if self.swept else ()
        if request.sweep and self.swept:
            save_sweep_figure(self.swept, request.sweep, proposal)
            self.screen.detail(*beside)
        self.screen.show(*notes)
        if request.html:
            page = analysis_page(bench.model, bench.cost, analysis, provenance(), latency_ms=latency)
            headline = " ".join([page.headline, *notes])
            save_page(replace(page, headline=headline, tables=(*page.tables, *beside)), request.html)
        if request.explorer:
            write_explorer(request.explorer, analysis.layers, analysis.adjacent)
        if request.png:
            save_heatmap(analysis, request.model.name, request.png)
        if request.feature_maps:
            pairs = feature_map_pairs(bench, analysis)
            title = f"{request.model.name}: the most similar neighbours, then the least; channels by number"
            save_feature_maps(pairs, title, request.feature_maps)
        if request.json_path:
            document = analyze_document(bench.model, bench.cost, analysis, seconds)
            if self.swept:
                document["sweep"] = self.swept.to_dict()
            if proposal:
                document["proposed_threshold"] = asdict(proposal)
            write_json(document, request.json_path)


def summary(analysis: Analysis) -> list[str]:
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
            f"{plural(len(similar), 'removable layer is', 'removable layers are')} that similar to the one "
            "before: see `redtest-onnx prune`."
        )
    return [*lines, *cautions(analysis)]
