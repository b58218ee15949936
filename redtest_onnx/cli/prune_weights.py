"""`redtest-onnx sparsity --method`: weights that go, and what that bought."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redtest_onnx.cli import options
from redtest_onnx.cli.console import Screen
from redtest_onnx.cli.groups import OutputOptions
from redtest_onnx.cli.options import evaluation_data, training_data
from redtest_onnx.cli.outputs import Outputs
from redtest_onnx.cli.sparsity_options import Request
from redtest_onnx.cli.training_options import prepare_torch
from redtest_onnx.documents.base import Document, write_json
from redtest_onnx.graph.files import load, save
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.scratch import scratch_folder
from redtest_onnx.graph.writing import is_stream
from redtest_onnx.pruning.budget import Budget
from redtest_onnx.pruning.prune import plan, prune
from redtest_onnx.report.prunings import removal_sentence
from redtest_onnx.report.table import Table
from redtest_onnx.report.weight_pruning import iteration_table, pruning_words, stage_table
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.training.settings import TrainingSettings
from redtest_onnx.weight_sparsity.apply import apply_masks, chosen_weights, one_shot_masks
from redtest_onnx.weight_sparsity.documents import iteration_documents, pruning_document
from redtest_onnx.weight_sparsity.iterative.iterative import IterativePruning, prune_iteratively
from redtest_onnx.weight_sparsity.iterative.records import LoopSettings
from redtest_onnx.weight_sparsity.masks import Amount
from redtest_onnx.weight_sparsity.pipeline import LAYERS, MaskedModel, finish
from redtest_onnx.weight_sparsity.weights import Weight


@dataclass(frozen=True, eq=False)
class PrunedWeights:
    """What became of a model.

    Attributes:
        model: as it now lies on disk.
        tables: what was measured on the way.
        run: the iterations of a method that trains; None for one that doesn't.
    """

    model: Model
    tables: tuple[Table, ...]
    run: IterativePruning | None


def prune_weights(
    screen: Screen,
    path: Path,
    request: Request,
    values: dict[str, Any],
    outputs: Outputs,
    given: OutputOptions,
) -> PrunedWeights:
    """Prune, report, write."""
    model = load(path)
    outputs.spare(model)
    run = options.run_options_of(values)
    source = options.data_options_of(values)
    data = source.open(model)
    screen.warn_synthetic(data)
    evaluation = evaluation_data(source, model, values["eval_data"])
    bench = Workbench(model, data, run, seed=values["seed"], evaluation=evaluation)
    before: dict[str, Model] = {}
    if values["remove_layers"]:
        before[LAYERS] = _without_layers(screen, Workbench(model, data, run), values)
    base = before.get(LAYERS, model)
    weights = chosen_weights(base, values["protect"])
    iterations: list[Document] = []
    run_of: IterativePruning | None = None
    tables: list[Table] = []
    with scratch_folder(None if is_stream(request.output) else request.output.parent) as folder:
        if request.trains:
            training_bench = Workbench(base, training_data(source, base), run, seed=values["seed"])
            found = run_of = _trained(screen, training_bench, weights, request, values)
            masked = MaskedModel(found.model, weights, found.masks, before)
            iterations = iteration_documents(found)
            tables.append(iteration_table(found))
            screen.detail(tables[0])
        else:
            masks = one_shot_masks(base, weights, request.scope, Amount(request.amount))
            masked = MaskedModel(apply_masks(base, weights, masks, folder), weights, masks, before)
        with screen.progress() as progress:
            pruning = finish(bench, masked, keep_channels=values["keep_channels"], progress=progress)
        saved = save(pruning.model, request.output, force=given.force)
    tables.insert(0, stage_table(pruning))
    screen.show(tables[0], *pruning_words(pruning, request.output))
    if given.json_path:
        document = pruning_document(pruning, request.document(), request.output, iterations)
        write_json(document, given.json_path)
    return PrunedWeights(saved, tuple(tables), run_of)


def _trained(
    screen: Screen,
    bench: Workbench,
    weights: Sequence[Weight],
    request: Request,
    values: dict[str, Any],
) -> IterativePruning:
    """Train and prune in turns on split `train` of --data, or on all of it."""
    prepare_torch()
    training = TrainingSettings(
        epochs=request.epochs,
        batch_size=values["batch_size"],
        optimizer=values["optimizer"],
        lr=values["lr"],
        weight_decay=values["weight_decay"],
        augment=values["augment"],
        seed=values["seed"],
    )
    settings = LoopSettings(
        method=request.method,
        scope=request.scope,
        rule=request.rule,
        iterations=request.iterations,
        rewind=values["rewind"],
        training=training,
        pairs=request.pairs,
    )
    with screen.progress() as progress:
        return prune_iteratively(
            bench,
            weights,
            settings,
            max_drop=values["max_drop"],
            folder=values["checkpoints"],
            progress=progress,
        )


def _without_layers(screen: Screen, bench: Workbench, values: dict[str, Any]) -> Model:
    """The model without its most redundant layers, repaired."""
    with screen.progress() as progress:
        chosen, analysis = plan(bench, Budget(remove=values["remove_layers"]), progress=progress)
        pruned = prune(bench, chosen, analysis, progress=progress)
    names = ", ".join(step.region for step in chosen.steps)
    screen.show(f"{removal_sentence(chosen, analysis.layers)}: {names}.")
    return pruned.model
