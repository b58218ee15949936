"""Options that say how texts become inputs."""

from __future__ import annotations

from typing import Any

import click

from redtest_onnx.cli import file_names
from redtest_onnx.data.text import TextOptions

TEXT_OPTIONS = (
    click.option("--text-column", help="Column of the texts in a table. [default: text, sentence, ...]"),
    click.option("--pair-column", help="Column of second texts, as rerankers take them."),
    click.option("--label-column", help="Column of the classes. [default: label, if there is one]"),
    click.option(
        "--tokenizer",
        type=file_names.FILE,
        help="tokenizer.json. [default: the one beside the model]",
    ),
    click.option("--max-length", type=click.IntRange(min=1), help="Longest sequence in tokens."),
    click.option("--mask", help="Input that says which positions count. [default: found by name and use]"),
)


def text_options_of(values: dict[str, Any]) -> TextOptions:
    """Take the options for texts out of a command's values."""
    words = ("text_column", "pair_column", "label_column", "tokenizer", "max_length", "mask")
    return TextOptions(**{name: values.pop(name) for name in words})
