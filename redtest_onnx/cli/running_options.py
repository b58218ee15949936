"""Where and how models run, as options."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any, TypeVar

import click

from redtest_onnx.cli.parameters import ByteCount, DeviceName
from redtest_onnx.runtime.outputs.kinds import KINDS, parse_output_kind
from redtest_onnx.runtime.providers import Provider, require
from redtest_onnx.runtime.session import RunOptions

Command = TypeVar("Command", bound=Callable[..., Any])


def apply(function: Command, *options: Callable[[Command], Command]) -> Command:
    """The function with several options, which the help lists in this order."""
    return reduce(lambda decorated, option: option(decorated), reversed(options), function)


device_option = click.option(
    "--device",
    type=DeviceName(),
    default="auto",
    show_default=True,
    help="cuda:1 is the second GPU; auto takes the first where it can be used.",
)


def run_options(function: Command) -> Command:
    """Where the model runs."""
    return apply(
        function,
        device_option,
        click.option("--threads", type=click.IntRange(min=0), default=0, help="CPU threads (0: all cores)."),
        click.option(
            "--memory",
            type=ByteCount(),
            default="1.5GB",
            show_default=True,
            help="Samples and activations that are kept to be used again; what is beyond is read or computed "
            "anew, and operators that are refitted in pairs see fewer samples. Weights, runs and equations "
            "take memory besides.",
        ),
        click.option(
            "--isolate",
            is_flag=True,
            help="Run each model once in a process of its own first: where ONNX Runtime itself crashes, the "
            "command says so and ends with exit code 2.",
        ),
    )


def output_kind_option(function: Command) -> Command:
    """What outputs are, where the graph does not tell."""
    return apply(
        function,
        click.option(
            "--output-kind",
            multiple=True,
            metavar="NAME=KIND[:AXIS]",
            help=f"What an output holds, and its axis of classes; one of {', '.join(KINDS)}. "
            "[default: found from the graph]",
        ),
    )


def run_options_of(values: dict[str, Any]) -> RunOptions:
    """Take the run options out of a command's values."""
    kinds = tuple(map(parse_output_kind, values.pop("output_kind", ())))
    providers = tuple(map(Provider.parse, values.pop("providers", ())))
    require(providers)
    command = values.pop("latency_command", None)
    device, threads, isolate, memory = (
        values.pop(name) for name in ("device", "threads", "isolate", "memory")
    )
    return RunOptions(device, threads, providers, command, kinds, isolate, memory)
