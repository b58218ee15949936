"""What `prune` is asked for, from its options."""

from __future__ import annotations

from pathlib import Path

from redtest_onnx.engines.run import EngineOptions
from redtest_onnx.errors import InputError
from redtest_onnx.pruning.budget import Budget
from redtest_onnx.pruning.targets import QUANTITIES, Quantity


def budget_of(
    remove: int | None,
    threshold: float | None,
    target: tuple[str, ...],
    max_drop: float | None,
    protect: tuple[str, ...],
) -> Budget:
    """What limits the pruning, by the options.

    Raises:
        InputError: a target is no quantity with a share.
        SettingError: limits exclude each other.
    """
    return Budget(remove, threshold, tuple(map(_target, target)), max_drop, protect)


def _target(text: str) -> tuple[Quantity, float]:
    quantity, _, share = text.partition("=")
    try:
        value = float(share)
    except ValueError:
        value = -1.0
    found = next((known for known in QUANTITIES if known == quantity), None)
    if found is None or not 0 < value <= 1:
        raise InputError(
            f"--target {text!r} is not understood",
            hint=f"{' or '.join(QUANTITIES)} and the share that may stay, such as macs=0.6",
        )
    return found, value


def of_one_result(
    remove: int | None,
    threshold: float | None,
    target: tuple[str, ...],
    plan_path: Path | None,
    dry_run: bool,
    epochs: int | None,
) -> dict[str, bool]:
    """Whether options were given that belong to a single result, by their flags."""
    return {
        "--remove": remove is not None,
        "--threshold": threshold is not None,
        "--target": bool(target),
        "--plan": plan_path is not None,
        "--dry-run": dry_run,
        "--finetune": epochs is not None,
    }


def check_engine(engine: EngineOptions, several: bool) -> None:
    """Refuse an engine where there is one model to work on.

    Raises:
        InputError: it does not stay in this process.
    """
    if not several and engine != EngineOptions():
        raise InputError(
            "--engine, --workers and --address are for many models or files of samples",
            hint="prune FOLDER --curve OUTPUT takes all .onnx files of a folder; --fit-data files of samples",
        )


def check_training(
    epochs: int | None, iterations: int, lr: float | None, augment: tuple[str, ...], plan_path: Path | None
) -> None:
    """Refuse options of training where nothing is trained, and plans where several are made.

    Raises:
        InputError: naming the options.
    """
    if epochs is None and (iterations > 1 or lr is not None or augment):
        raise InputError(
            "--iterations and --lr belong to --finetune, --augment to --finetune or --repair distil",
            hint="--finetune EPOCHS",
        )
    if iterations > 1 and plan_path is not None:
        raise InputError("--plan is one round of pruning", hint="leave out --plan or --iterations")
