"""`redtest-onnx`: the group of commands, loaded only when called."""

from __future__ import annotations

import logging
import signal
import sys
from importlib import import_module
from types import FrameType

import click

from redtest_onnx.cli.closed_pipes import FULL, outlive_readers
from redtest_onnx.cli.interrupts import watch_for_interrupts
from redtest_onnx.cli.words import in_flags
from redtest_onnx.engines.isolation import keep_working_folder_out
from redtest_onnx.errors import InternalError, RedtestError, nearest
from redtest_onnx.text import plain, plain_lines

# Name -> what `--help` says of it; the module of the same name holds the command.
COMMANDS = {
    "inspect": "List the layers, what they cost, and which can be removed or why not.",
    "analyze": "Measure the similarity of all layers and the redundancy score.",
    "audit": "Check a model before it ships: valid, supported, within budgets, sound in its numbers.",
    "compare": "Hold two models, or one on two data sets, against each other.",
    "sparsity": "Measure the PQ Index of all weights: how sparse they are, how many are needed.",
    "rank": "Put trained models in order by accuracy, cost and redundancy.",
    "search": "Search a space of architectures for accuracy at low cost and redundancy.",
    "prune": "Remove redundant layers, verify the result and compare it with the original.",
    "expose": "Hand out inner tensors: as outputs of a model, or as values in a file.",
    "finetune": "Train a model in PyTorch and write the weights back into the same graph.",
    "completion": "Print the script that completes commands and options in a shell.",
}


class LazyGroup(click.Group):
    """A group that imports a command when it is used, so that help and errors come at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands in the order people need them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command itself, or for the overview its name and short help."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"redtest_onnx.cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that was named; a wrong name is answered with the nearest right one."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = nearest(args[0], COMMANDS)
            hint = f" Did you mean {near!r}?" if near else f" Commands are {', '.join(COMMANDS)}."
            ctx.fail(f"there is no command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The overview, without importing any command."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="redtest-onnx", prog_name="redtest-onnx")
def cli() -> None:
    """Find out how much of a trained network is redundant, and remove it: ONNX in, ONNX out.

    Start with: redtest-onnx analyze model.onnx --data images.zip
    """


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 negative verdict, 2 bad input, 3 our bug, 130 interrupted."""
    outlive_readers()
    signal.signal(signal.SIGTERM, _interrupt)
    watch_for_interrupts()
    keep_working_folder_out()
    sys.exit(run(arguments))


def _interrupt(number: int, frame: FrameType | None) -> None:
    """What is half done is cleaned up after `kill` as after Ctrl-C."""
    raise KeyboardInterrupt


def run(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    try:
        given = sys.argv[1:] if arguments is None else arguments
        code = cli.main(arguments, prog_name="redtest-onnx", standalone_mode=False, obj=given)
        sys.stdout.flush()  # here a full disk has its message and its exit code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return 130
    except RedtestError as error:
        click.echo(f"error: {in_flags(error)}", err=True)
        return error.exit_code
    except InternalError as error:
        what = f"internal error: {plain_lines(str(error))}"
        click.echo(f"{what}\n  please report this as a bug, with the model if you can", err=True)
        return 3
    except OSError as error:
        if error.errno in FULL:
            where = f"{error.filename}: " if error.filename else ""
            click.echo(
                f"error: {plain(str(where))}the disk is full\n  try: free some space there, or set TMPDIR to "
                "another folder for temporary files",
                err=True,
            )
            return 2
        logging.getLogger(__name__).exception("internal error; please report this as a bug")
        return 3
    except MemoryError:
        click.echo("error: out of memory\n  try: fewer --samples, or --pooling mean", err=True)
        return 2
    except Exception:
        logging.getLogger(__name__).exception("internal error; please report this as a bug")
        return 3
    return code if isinstance(code, int) else 0
