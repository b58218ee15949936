"""Options about what a model will run on."""

from __future__ import annotations

import click

from redtest_onnx.cli.options import Command, apply


def deployment_options(function: Command) -> Command:
    """What the model will run on: latency and comparisons of outputs are measured there."""
    return apply(
        function,
        click.option(
            "--provider",
            "providers",
            multiple=True,
            metavar="NAME[:KEY=VALUE,...]",
            help="Execution provider of ONNX Runtime to measure latency and outputs on: openvino, dml, "
            "coreml, qnn, xnnpack, tensorrt, migraphx, ...; library=FILE registers a plug-in. Repeatable.",
        ),
        click.option(
            "--latency-command",
            metavar="COMMAND",
            help="Prints a model's latency in ms; {model} stands for the file.",
        ),
    )
