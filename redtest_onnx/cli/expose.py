"""`redtest-onnx expose`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from redtest_onnx.cli import file_names, options
from redtest_onnx.cli.console import Screen
from redtest_onnx.cli.groups import OutputOptions, grouped
from redtest_onnx.cli.help import Command
from redtest_onnx.cli.outputs import Outputs
from redtest_onnx.data.activation_files import open_writer
from redtest_onnx.data.dataset import Dataset
from redtest_onnx.documents.base import write_json
from redtest_onnx.errors import InputError
from redtest_onnx.graph.files import load, save
from redtest_onnx.report.exposures import exposure_document, exposure_table
from redtest_onnx.runtime.activations import SYNTHETIC, ExposedModel, expose_tensors, iterate_activations
from redtest_onnx.runtime.workbench import Workbench

_MOST_NAMED = 10


@dataclass(frozen=True)
class ExposeOptions:
    """What is written.

    Attributes:
        output: the model with more outputs.
        values_path: the values; a file or a folder.
        samples: number of samples to run; all of the data if None.
        dequantize: whether quantised tensors are given as float32.
    """

    output: Path | None
    values_path: Path | None
    samples: int | None
    dequantize: bool


@click.command(
    "expose",
    cls=Command,
    examples=(
        "redtest-onnx expose model.onnx -o exposed.onnx",
        "redtest-onnx expose model.onnx --tensors 'layer1*' --data images.zip --save values.npz",
        "redtest-onnx expose int8.onnx --dequantize --save values/",
    ),
)
@click.argument("model", type=options.FilePath)
@click.option(
    "--tensors",
    multiple=True,
    metavar="GLOB|all",
    help="Names of tensors to hand out, * for any part; may be repeated. [default: all]",
)
@click.option("-o", "--output", type=file_names.MODEL_FILE, help="Write the model with these outputs.")
@click.option(
    "--save",
    "values_path",
    type=file_names.VALUES,
    metavar="FILE|FOLDER",
    help="Run it on --data and write the values: .npz, .parquet, or a folder of .npy files.",
)
@click.option("--samples", type=click.IntRange(min=1), help="Samples to run. [default: all of --data]")
@click.option(
    "--dequantize", is_flag=True, help="Give quantised tensors as float32 where the scale is known."
)
@options.data_options
@options.run_options
@options.output_options
@grouped(asked=ExposeOptions, given=OutputOptions)
def command(
    model: Path, tensors: tuple[str, ...], asked: ExposeOptions, given: OutputOptions, **values: Any
) -> None:
    """Hand out inner tensors of MODEL: as outputs of a model, as values in a file, or both."""
    given.start_log()
    screen = given.screen()
    output, values_path = asked.output, asked.values_path
    if output is None and values_path is None:
        raise InputError(
            "nothing to write", hint="give -o OUT.onnx for the model, --save FILE for the values"
        )
    if asked.samples is not None and values_path is None:
        raise InputError("--samples counts those whose values are written", hint="give --save FILE, too")
    named = {"--output": output, "--save": values_path, "--json": given.json_path}
    source = options.data_options_of(values)
    outputs = Outputs.of(named, force=given.force, reads=(model, *source.reads(model)))
    loaded = load(model)
    outputs.spare(loaded)
    data = source.open(loaded)
    bench = Workbench(loaded, data, options.run_options_of(values))
    exposed = expose_tensors(bench, tensors or ("all",), dequantize=asked.dequantize)
    if not exposed.tensors:
        raise InputError(
            "there is no tensor to hand out", where=loaded.label, hint="see `inspect --layers all`"
        )
    if output is not None:
        save(exposed.model, output, force=given.force)
    written = 0
    if values_path is not None:
        screen.warn_synthetic(data)
        written = _write(screen, bench, exposed, values_path, asked.samples)
    screen.show(exposure_table(exposed), *_summary(exposed, output, values_path, written, data))
    if given.json_path:
        write_json(exposure_document(loaded, exposed, output, values_path, written), given.json_path)


def _write(screen: Screen, bench: Workbench, exposed: ExposedModel, path: Path, samples: int | None) -> int:
    """Stream the values into the file, in the order of the data."""
    data = bench.data
    count = min(samples or (SYNTHETIC if data.synthetic else len(data)), len(data))
    indices = np.arange(count, dtype=np.int64)
    with screen.progress() as progress, open_writer(path, count) as writer:
        done = 0
        for batch in iterate_activations(bench, exposed, indices):
            writer.write(batch.values, len(batch.indices))
            done += len(batch.indices)
            progress(done, count, "writing activations")
    return count


def _summary(
    exposed: ExposedModel, output: Path | None, values: Path | None, written: int, data: Dataset
) -> list[str]:
    """The result in words."""
    lines = []
    for reason, count in Counter(item.reason for item in exposed.others).items():
        names = [item.name for item in exposed.others if item.reason == reason]
        more = f" and {count - _MOST_NAMED} more (all are in --json)" if count > _MOST_NAMED else ""
        lines.append(f"Not handed out, {reason}: {', '.join(names[:_MOST_NAMED])}{more}.")
    for branch in exposed.branches:
        lines.append(f"The tensors are those of {branch}; the written model has this branch only.")
    if output is not None:
        lines.append(f"The model with {len(exposed.tensors)} more outputs is in {output}.")
    if values is not None:
        lines.append(f"The values of {written} samples of {data.source} are in {values}.")
    return lines
