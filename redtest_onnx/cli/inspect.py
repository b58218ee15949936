"""`redtest-onnx inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from redtest_onnx.cli import options
from redtest_onnx.cli.console import Screen
from redtest_onnx.cli.outputs import check_outputs
from redtest_onnx.graph.files import load
from redtest_onnx.layers.granularity import Granularity
from redtest_onnx.report.documents import inspect_document, write_json
from redtest_onnx.report.tables import count, layer_table, size
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analyze import select_layers


@click.command("inspect")
@click.argument("model", type=options.FilePath)
@options.layer_options
@options.data_options
@options.run_options
@options.output_options
def command(
    model: Path,
    layers: str,
    granularity: Granularity,
    json_path: str | None,
    force: bool,
    verbose: int,
    quiet: bool,
    **values: Any,
) -> None:
    """List the layers of MODEL, what they cost, and which can be removed or why not."""
    options.configure_logging(verbose, quiet)
    screen = Screen(quiet=quiet, json_on_stdout=json_path == "-")
    check_outputs([json_path], force=force)
    loaded = load(model)
    data = options.data_options_of(values).open(loaded)
    bench = Workbench(loaded, data, options.run_options_of(values))
    cost, chosen = bench.cost, select_layers(bench, layers, granularity)
    opsets = ", ".join(f"{domain} {version}" for domain, version in loaded.opsets.items())
    screen.show(
        f"{loaded.label}: IR {loaded.proto.ir_version}, opset {opsets}",
        *(f"  input  {spec.name}: {spec}" for spec in loaded.inputs),
        *(f"  output {spec.name}: {spec}" for spec in loaded.outputs),
        f"  {count(cost.parameters)} parameters ({size(cost.parameter_bytes)}), {count(cost.macs)} MACs and "
        f"{size(cost.peak_activation_bytes)} of activations per sample",
    )
    screen.show(*(f"  The layers are those of {choice}." for choice in bench.view.choices))
    if chosen:
        removable = sum(layer.removable for layer in chosen)
        screen.show(layer_table(chosen), f"{len(chosen)} layers, {removable} of them can be removed.")
    else:
        screen.show("No layers: no operator with weights lies between the inputs and the predictions.")
    if json_path:
        write_json(inspect_document(loaded, cost, chosen), json_path)
