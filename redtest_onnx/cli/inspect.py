"""`redtest-onnx inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from redtest_onnx.cli import file_names, options
from redtest_onnx.cli.groups import OutputOptions, grouped
from redtest_onnx.cli.help import Command
from redtest_onnx.cli.outputs import Outputs
from redtest_onnx.documents.base import inspect_document, write_json
from redtest_onnx.errors import RefusedModelError
from redtest_onnx.graph.files import load
from redtest_onnx.layers.blocks import is_transformer
from redtest_onnx.layers.elsewhere import Elsewhere, elsewhere
from redtest_onnx.layers.granularity import GranularityChoice, measured_granularity
from redtest_onnx.report.agreement import output_words
from redtest_onnx.report.numbers import count, plural, size
from redtest_onnx.report.tables import at_sizes, layer_table, run_words
from redtest_onnx.runtime.guesses import shape_hint
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.selection import select_layers


@click.command(
    "inspect",
    cls=Command,
    examples=(
        "redtest-onnx inspect model.onnx",
        "redtest-onnx inspect model.onnx --granularity block",
        "redtest-onnx inspect model.onnx --layers all --format csv",
    ),
)
@click.argument("model", type=options.FilePath)
@click.option("--html", type=file_names.PAGE, help="Write a page with all layers.")
@options.layer_options
@options.data_options
@options.run_options
@options.output_kind_option
@options.format_option
@options.output_options
@grouped(given=OutputOptions)
def command(
    model: Path,
    layers: str,
    granularity: GranularityChoice,
    html: Path | None,
    given: OutputOptions,
    **values: Any,
) -> None:
    """List the layers of MODEL, what they cost, and which can be removed or why not."""
    given.start_log()
    screen = given.screen()
    source = options.data_options_of(values)
    named = {"--html": html, "--json": given.json_path}
    Outputs.of(named, force=given.force, reads=source.reads(model), models=(model,))
    loaded = load(model)
    data = source.open(loaded)
    bench = Workbench(loaded, data, options.run_options_of(values))
    failure = bench.infer_if_failing()
    cost, chosen = bench.cost, select_layers(bench, layers, granularity)
    others = (
        elsewhere(bench.index, bench.layers(measured_granularity(granularity)), cost)
        if layers == "auto"
        else None
    )
    # Caches that belong to layers are no outputs of the opened graph.
    kinds = {output.name: f", {output_words(output)}" for output in bench.outputs}
    opsets = ", ".join(f"{domain} {version}" for domain, version in loaded.opsets.items())
    each = "" if cost.run_samples == 1 else "per sample "
    screen.show(
        f"{loaded.label}: IR {loaded.proto.ir_version}, opset {opsets}",
        *(f"  input  {spec.name}: {spec}" for spec in loaded.inputs),
        *(f"  output {spec.name}: {spec}{kinds.get(spec.name, '')}" for spec in loaded.outputs),
        f"  {count(cost.parameters)} parameters ({size(cost.parameter_bytes)}), {count(cost.macs)} MACs "
        f"{each}and {size(cost.peak_activation_bytes)} of activations {run_words(cost)}{at_sizes(cost)}",
    )
    if cost.at is not None:
        screen.note(f"Nothing tells these sizes; others with {shape_hint(bench)}")
    if isinstance(failure, RefusedModelError):  # other sizes wouldn't help
        why = f"It can't be run, so sizes inference can't know are missing: {failure.what}"
        screen.note(f"{why}\n  try: {failure.hint}")
    elif failure is not None:
        screen.note(
            f"It does not run on these inputs, so sizes inference can't know are missing: {failure.what}\n"
            f"Give sizes that it takes, such as {shape_hint(bench)}, or samples with --data."
        )
    screen.show(*(f"  The layers are those of {choice}." for choice in bench.view.choices))
    if chosen:
        removable = sum(layer.removable for layer in chosen)
        screen.show(
            layer_table(chosen), f"{plural(len(chosen), 'layer')}, {removable} of them can be removed."
        )
        if layers == granularity == "auto" and (inside := _blocks_text(bench)):
            screen.show(inside)
        if others is not None and others.parameters:
            screen.show(_elsewhere_text(others))
    else:
        screen.show("No layers: no operator with weights lies between the inputs and the predictions.")
    if html:
        # A table takes half a second, and what pages need would be a good part of that.
        from redtest_onnx.cli.pages import provenance
        from redtest_onnx.report.page.layers import inspect_page
        from redtest_onnx.report.page.render import save_page

        save_page(inspect_page(loaded, cost, chosen, provenance()), html)
    if given.json_path:
        documents = [output.document() for output in bench.outputs]
        write_json(inspect_document(bench.model, cost, chosen, others, documents), given.json_path)


def _blocks_text(bench: Workbench) -> str | None:
    """The blocks that the layers form; None where `prune --remove` counts layers."""
    series = bench.layers()
    if not any(layer.kind == "attention" for layer in series):
        return None
    blocks = [layer for layer in bench.layers("block") if layer.parts]
    if not is_transformer(series, blocks):
        return None
    held, can = sum(len(layer.parts) for layer in blocks), sum(layer.removable for layer in blocks)
    return (
        f"{held} of them form {plural(len(blocks), 'block')} of a transformer, {can} removable: "
        "prune --remove counts blocks, --granularity block lists them."
    )


def _elsewhere_text(others: Elsewhere) -> str:
    text = f"{count(others.parameters)} parameters are elsewhere"
    if others.shared:
        names = ", ".join(others.shared_names[:3]) + (", ..." if len(others.shared_names) > 3 else "")
        text += f", {count(others.shared)} of them in weights that several layers share ({names})"
    return f"{text}; layers and elsewhere together have {count(others.total)}."
