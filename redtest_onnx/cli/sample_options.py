"""Options about samples of other kinds than --data holds: they would do nothing, and are refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from redtest_onnx.errors import InputError

# Other samples than --data, which the options may be for.
_OTHER_SAMPLES = ("other_data", "eval_data", "val_data", "fit_data")
ARRAYS = frozenset({".npz", ".npy"})  # they hold what the model takes, whatever that is
_TEXTS = frozenset({".txt", ".tsv"})
_OF_TEXTS = ("text_column", "pair_column", "label_column", "tokenizer", "max_length")
_KINDS = {
    "sample_rate": ("sounds", ARRAYS | _TEXTS),
    **dict.fromkeys(_OF_TEXTS, ("texts and tables", ARRAYS)),
}


def reads_others() -> bool:
    """Whether the command reads other samples than --data, too."""
    context = click.get_current_context(silent=True)
    return context is not None and any(context.params.get(name) for name in _OTHER_SAMPLES)


def refuse_other_kinds(values: Mapping[str, Any]) -> None:
    """Refuse what is given for sounds, texts and synthetic inputs where --data can't be any of these.

    Args:
        values: a command's, with those of its options about samples.

    Raises:
        InputError: naming the option.
    """
    data: Path | None = values["data"]
    if data is None or reads_others():
        return
    for name, (kind, others) in _KINDS.items():
        if values.get(name) is not None and data.suffix.lower() in others:
            raise InputError(
                f"--{name.replace('_', '-')} is for {kind}, and it holds none",
                where=str(data),
                hint="leave it out: arrays have to be prepared already as the model takes them"
                if data.suffix.lower() in ARRAYS
                else "leave it out",
            )
    if values.get("input_shape"):
        raise InputError(
            "--input-shape is for synthetic inputs, and these are samples",
            where=str(data),
            hint="leave --input-shape out: samples have sizes of their own",
        )
