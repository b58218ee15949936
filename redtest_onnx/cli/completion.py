"""`redtest-onnx completion`."""

from __future__ import annotations

from typing import Literal

import click
from click.shell_completion import get_completion_class

from redtest_onnx.cli.help import Command

PROGRAM = "redtest-onnx"
_VARIABLE = "_REDTEST_ONNX_COMPLETE"


@click.command(
    "completion",
    cls=Command,
    examples=(
        'eval "$(redtest-onnx completion bash)"        # in ~/.bashrc',
        'eval "$(redtest-onnx completion zsh)"         # in ~/.zshrc',
        "redtest-onnx completion fish > ~/.config/fish/completions/redtest-onnx.fish",
    ),
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(context: click.Context, /, shell: Literal["bash", "zsh", "fish"]) -> None:
    """Print the script that completes commands and options in SHELL."""
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(context.find_root().command, {}, PROGRAM, _VARIABLE).source())
