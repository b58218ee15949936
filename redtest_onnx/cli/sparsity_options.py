"""How `redtest-onnx sparsity --method` is asked to prune weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from redtest_onnx.cli import file_names, options
from redtest_onnx.cli.parameters import given_options
from redtest_onnx.documents.base import Document
from redtest_onnx.errors import InputError
from redtest_onnx.training.settings import AUGMENTATIONS, OPTIMIZERS
from redtest_onnx.weight_sparsity.iterative.records import Method
from redtest_onnx.weight_sparsity.masks import SCOPES, Amount, Bound, PruningRule, Scope
from redtest_onnx.weight_sparsity.measure import PAIRS, Pair

_TRAINING = {
    *("iterations", "batch_size", "optimizer", "lr", "weight_decay", "augment", "rewind", "max_drop"),
    "checkpoints",
}
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
    def rule(self) -> PruningRule:
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
        click.option("-o", "--output", type=file_names.MODEL_FILE, help="[default: MODEL with .sparse.onnx]"),
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
        click.option(
            "--batch-size", type=click.IntRange(min=1), default=64, show_default=True, help="Per step."
        ),
        click.option("--optimizer", type=click.Choice(OPTIMIZERS), default="auto", help="See `finetune`."),
        click.option("--lr", type=float, help="Highest rate. [default: 0.02 with SGD, 0.0005 with AdamW]"),
        click.option("--weight-decay", type=float, help="[default: 0.0005 with SGD, 0.01 with AdamW]"),
        click.option(
            "--augment",
            multiple=True,
            type=click.Choice(AUGMENTATIONS),
            help="Change training images at random; may be repeated.",
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
            "--checkpoints", type=file_names.OUTPUT, help="Folder to keep iterations in, and to resume from."
        ),
        click.option("--keep-channels", is_flag=True, help="Leave channels that became zero in the graph."),
        click.option("--protect", multiple=True, metavar="GLOB", help="Tensors that stay; may be repeated."),
        click.option(
            "--remove-layers",
            type=click.IntRange(min=1),
            help="First take out this many redundant layers; of a transformer, this many blocks.",
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


def refuse_unused(values: dict[str, Any], request: Request | None) -> None:
    """Refuse options that were given and would do nothing.

    Raises:
        InputError: naming the first.
    """
    given = given_options(click.get_current_context())
    for name, reason in _unused([name for name in values if name in given], request):
        raise InputError(f"--{name.replace('_', '-')} does nothing here: {reason}")


def _unused(given: list[str], request: Request | None) -> Iterator[tuple[str, str]]:
    for name in given:
        if request is None:
            yield name, "weights are only measured; pruning needs --method"
        elif name in _TRAINING and not request.trains:
            yield name, "nothing is trained; --epochs 10 trains"
        elif name in ("gamma", "beta") and request.method != "sap":
            yield name, "it is for --method sap"
        elif name == "amount" and request.method == "sap":
            yield name, "the PQ Index says how many weights go; see --gamma"
