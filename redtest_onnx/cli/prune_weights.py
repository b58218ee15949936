"""`redtest-onnx sparsity --method`: weights that go, and what that bought."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import click

from redtest_onnx.cli import options
from redtest_onnx.cli.console import Screen
from redtest_onnx.cli.outputs import check_outputs
from redtest_onnx.graph.files import load, save
from redtest_onnx.graph.model import Model
from redtest_onnx.pruning.budget import Budget
from redtest_onnx.pruning.prune import plan, prune
from redtest_onnx.report.documents import write_json
from redtest_onnx.report.weight_pruning import pruning_document, pruning_words, stage_table
from redtest_onnx.runtime.arrays import splits
from redtest_onnx.runtime.data import Dataset
from redtest_onnx.runtime.session import RunOptions
from redtest_onnx.sparsity.apply import apply_masks, chosen_weights, one_shot_masks
from redtest_onnx.sparsity.masks import SCOPES, Amount, Scope
from redtest_onnx.sparsity.measure import Pair
from redtest_onnx.sparsity.pipeline import LAYERS, ORIGINAL, ZEROED, finish

Method = Literal["one-shot", "sap", "lottery"]


@dataclass(frozen=True)
class Request:
    """What the command was asked for."""

    method: Method
    output: Path
    pairs: tuple[Pair, ...]
    eta: float


def pruning_options(function: options.Command) -> options.Command:
    """How weights are pruned."""
    given: tuple[Callable[[options.Command], options.Command], ...] = (
        click.option(
            "--method",
            type=click.Choice(["one-shot", "sap", "lottery"]),
            help="Prune: the smallest weights at once, as many as the PQ Index says (SAP), or a fixed share.",
        ),
        click.option("-o", "--output", type=options.FilePath, help="[default: MODEL with .sparse.onnx]"),
        click.option(
            "--scope",
            type=click.Choice(SCOPES),
            default="global",
            show_default=True,
            help="Compare magnitudes within a neuron, a tensor, or the whole model.",
        ),
        click.option(
            "--amount", type=float, default=0.2, show_default=True, help="Share that goes in one iteration."
        ),
        click.option("--protect", multiple=True, metavar="GLOB", help="Tensors that stay; may be repeated."),
        click.option(
            "--remove-layers", type=click.IntRange(min=1), help="First take out this many redundant layers."
        ),
        click.option(
            "--eval-data",
            type=options.FilePath,
            help="Samples for accuracy. [default: split `test` of --data]",
        ),
    )
    for option in reversed(given):
        function = option(function)
    return function


def prune_weights(
    screen: Screen,
    path: Path,
    request: Request,
    values: dict[str, Any],
    *,
    json_path: str | None,
    force: bool,
) -> None:
    """Prune, report, write."""
    check_outputs([request.output, json_path], force=force)
    model = load(path)
    run = options.run_options_of(values)
    source = options.data_options_of(values)
    data = source.open(model)
    screen.warn_synthetic(data)
    models = {ORIGINAL: model}
    if values["remove_layers"]:
        models[LAYERS] = _without_layers(screen, model, data, run, values)
    base = list(models.values())[-1]
    weights = chosen_weights(base, values["protect"])
    scope: Scope = values["scope"]
    with TemporaryDirectory(prefix=".redtest-", dir=request.output.parent) as folder:
        with screen.progress() as progress:
            progress(0, 1, "choosing weights")
            masks = one_shot_masks(base, weights, scope, Amount(values["amount"]))
            models[ZEROED] = apply_masks(base, weights, masks, Path(folder))
            pruning = finish(
                models,
                weights,
                masks,
                data,
                evaluation=_evaluation(source, model, values["eval_data"]),
                seed=values["seed"],
                options=run,
                progress=progress,
            )
        save(pruning.model, request.output, force=force)
    screen.show(stage_table(pruning), *pruning_words(pruning, request.output))
    if json_path:
        settings = {"method": request.method, "scope": scope, "amount": values["amount"]}
        write_json(pruning_document(model, pruning, settings, request.output, []), json_path)


def _without_layers(
    screen: Screen, model: Model, data: Dataset, run: RunOptions, values: dict[str, Any]
) -> Model:
    """The model without its most redundant layers, repaired."""
    with screen.progress() as progress:
        chosen, analysis = plan(
            model, data, Budget(remove=values["remove_layers"]), options=run, progress=progress
        )
        pruned = prune(model, data, chosen, analysis, options=run, progress=progress)
    names = ", ".join(step.region for step in chosen.steps)
    screen.show(f"{len(chosen.steps)} of {len(analysis.layers)} layers are removed: {names}.")
    return pruned.model


def _evaluation(source: options.DataOptions, model: Model, eval_data: Path | None) -> Dataset | None:
    if eval_data is not None:
        return source.open(model, path=eval_data)
    if source.data and source.data.suffix.lower() == ".npz" and "test" in splits(source.data):
        return source.open(model, split="test")
    return None
