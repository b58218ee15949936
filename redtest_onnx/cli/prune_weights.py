"""`redtest-onnx sparsity --method`: weights that go, and what that bought."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from redtest_onnx.cli import options
from redtest_onnx.cli.console import Screen
from redtest_onnx.cli.outputs import check_outputs
from redtest_onnx.errors import InputError
from redtest_onnx.graph.files import load, save
from redtest_onnx.graph.model import Model
from redtest_onnx.pruning.budget import Budget
from redtest_onnx.pruning.prune import plan, prune
from redtest_onnx.report.documents import Document, write_json
from redtest_onnx.report.weight_pruning import (
    iteration_documents,
    iteration_table,
    pruning_document,
    pruning_words,
    stage_table,
)
from redtest_onnx.runtime.arrays import splits
from redtest_onnx.runtime.data import Dataset
from redtest_onnx.runtime.session import RunOptions
from redtest_onnx.sparsity.apply import apply_masks, chosen_weights, one_shot_masks
from redtest_onnx.sparsity.iterative import IterativePruning, prune_iteratively, split_samples
from redtest_onnx.sparsity.masks import SCOPES, Amount, Bound, Rule, Scope
from redtest_onnx.sparsity.measure import PAIRS, Pair
from redtest_onnx.sparsity.pipeline import LAYERS, ORIGINAL, ZEROED, finish
from redtest_onnx.sparsity.records import LoopSettings, Method
from redtest_onnx.sparsity.training import TrainSettings
from redtest_onnx.sparsity.weights import Weight

_EPOCHS = 10


@dataclass(frozen=True)
class Request:
    """What the command was asked for.

    Attributes:
        method: how weights are chosen.
        output: the file to write.
        scope: what a group is.
        amount: share that goes in an iteration, for all but SAP.
        bound: what a group spares, for SAP.
        iterations: prunings with a training each.
        epochs: of each training; 0 for none.
        pairs: exponents whose PQ Index is recorded.
    """

    method: Method
    output: Path
    scope: Scope
    amount: float
    bound: Bound
    iterations: int
    epochs: int
    pairs: tuple[Pair, ...]

    @classmethod
    def of(cls, method: Method, output: Path, pairs: tuple[Pair, ...], values: dict[str, Any]) -> Request:
        """From the command's values.

        Raises:
            InputError: SAP with several pairs of exponents, or without training.
        """
        if method == "sap" and len(pairs) > 1:
            raise InputError("--method sap prunes by one pair of exponents", hint="give --pq once")
        epochs = values["epochs"]
        if epochs is None:
            epochs = 0 if method == "one-shot" else _EPOCHS
        if not epochs and method != "one-shot":
            raise InputError(
                f"--method {method} trains between prunings; --epochs 0 leaves nothing of it",
                hint="--method one-shot prunes without training",
            )
        p, q = pairs[0] if pairs else PAIRS[0]
        return cls(
            method=method,
            output=output,
            scope=values["scope"],
            amount=values["amount"],
            bound=Bound(p, q, values["eta"], values["gamma"], values["beta"]),
            iterations=values["iterations"],
            epochs=epochs,
            pairs=pairs or PAIRS,
        )

    @property
    def trains(self) -> bool:
        """Whether there is any training."""
        return self.epochs > 0

    @property
    def rule(self) -> Rule:
        """How many weights go in an iteration."""
        return self.bound if self.method == "sap" else Amount(self.amount)

    def document(self) -> Document:
        """For JSON."""
        return {key: value for key, value in asdict(self).items() if key != "output"}


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
        click.option(
            "--gamma", type=float, default=1.0, show_default=True, help="SAP: factor on what can be spared."
        ),
        click.option(
            "--beta", type=float, default=0.9, show_default=True, help="SAP: largest share in one iteration."
        ),
        click.option(
            "--iterations", type=click.IntRange(min=1), default=10, show_default=True, help="With training."
        ),
        click.option(
            "--epochs",
            type=click.IntRange(min=0),
            help=f"Of each training. [default: {_EPOCHS}; one-shot: 0]",
        ),
        click.option("--learning-rate", type=float, default=0.05, show_default=True, help="Of SGD."),
        click.option(
            "--batch-size", type=click.IntRange(min=2), default=100, show_default=True, help="Of SGD."
        ),
        click.option(
            "--rewind/--no-rewind",
            default=True,
            show_default=True,
            help="Train from MODEL's weights each time, or on from the last ones.",
        ),
        click.option(
            "--max-drop",
            type=click.FloatRange(min=0, max=1),
            default=0.01,
            show_default=True,
            help="Largest loss of accuracy on held-out samples, with training.",
        ),
        click.option(
            "--checkpoints", type=options.FilePath, help="Folder to keep iterations in, and to go on from."
        ),
        click.option("--keep-channels", is_flag=True, help="Leave channels that became zero in the graph."),
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
    evaluation = _evaluation(source, model, values["eval_data"])
    iterations: list[Document] = []
    with TemporaryDirectory(prefix=".redtest-", dir=request.output.parent) as folder:
        if request.trains:
            found = _trained(screen, base, weights, source, request, values, run)
            masks, models[ZEROED] = found.masks, found.model
            iterations = iteration_documents(found)
            screen.show(iteration_table(found))
        else:
            masks = one_shot_masks(base, weights, request.scope, Amount(request.amount))
            models[ZEROED] = apply_masks(base, weights, masks, Path(folder))
        with screen.progress() as progress:
            pruning = finish(
                models,
                weights,
                masks,
                data,
                keep_channels=values["keep_channels"],
                evaluation=evaluation,
                seed=values["seed"],
                options=run,
                progress=progress,
            )
        save(pruning.model, request.output, force=force)
    screen.show(stage_table(pruning), *pruning_words(pruning, request.output))
    if json_path:
        document = pruning_document(model, pruning, request.document(), request.output, iterations)
        write_json(document, json_path)


def _trained(
    screen: Screen,
    model: Model,
    weights: Sequence[Weight],
    source: options.DataOptions,
    request: Request,
    values: dict[str, Any],
    run: RunOptions,
) -> IterativePruning:
    """Train and prune in turns on split `train` of --data, or on all of it."""
    data = source.open(model, split="train" if _has_split(source.data, "train") else None)
    training = TrainSettings(
        epochs=request.epochs,
        learning_rate=values["learning_rate"],
        batch=values["batch_size"],
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
            model,
            weights,
            split_samples(data, values["seed"]),
            settings,
            max_drop=values["max_drop"],
            folder=values["checkpoints"],
            options=run,
            progress=progress,
        )


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
    return source.open(model, split="test") if _has_split(source.data, "test") else None


def _has_split(path: Path | None, name: str) -> bool:
    return path is not None and path.suffix.lower() == ".npz" and name in splits(path)
