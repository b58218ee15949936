"""`redtest-onnx finetune`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from redtest_onnx.cli import file_names, options
from redtest_onnx.cli.console import epoch_reporter
from redtest_onnx.cli.file_names import check_model_name
from redtest_onnx.cli.finetune_output import check_folder, default_output, kept_if_interrupted, save_tuned
from redtest_onnx.cli.groups import OutputOptions, grouped
from redtest_onnx.cli.help import Command
from redtest_onnx.cli.outputs import Outputs
from redtest_onnx.cli.tracking_options import document_path, tracking_options, tracking_options_of
from redtest_onnx.cli.training_options import prepare_torch, training_options, training_settings_of
from redtest_onnx.documents.base import write_json
from redtest_onnx.graph.files import load
from redtest_onnx.report.numbers import plural
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.training.documents import finetune_document

if TYPE_CHECKING:
    from redtest_onnx.training.finetune import FineTuning, ValidationResult


@dataclass(frozen=True)
class FinetuneFiles:
    """What is read and written beside the model and its samples.

    Attributes:
        output: the trained model.
        teacher: a model to learn from.
        val_data: samples that choose the best epoch.
        eval_data: samples that judge the result.
        checkpoint: where an interrupted run goes on.
        resume: whether it shall.
        log_path: a line per epoch.
    """

    output: Path | None
    teacher: Path | None
    val_data: Path | None
    eval_data: Path | None
    checkpoint: Path | None
    resume: bool
    log_path: Path | None


@click.command(
    "finetune",
    cls=Command,
    examples=(
        "redtest-onnx finetune pruned.onnx --data train.zip --teacher model.onnx",
        "redtest-onnx finetune pruned.onnx --data train.zip --epochs 10 --augment flip",
        "torchrun --nproc-per-node 2 -m redtest_onnx finetune pruned.onnx --data train.zip",
    ),
)
@click.argument("model", type=options.FilePath)
@click.option(
    "-o",
    "--output",
    type=file_names.MODEL,
    help="File, or folder for a MODEL folder. [default: MODEL with .finetuned]",
)
@click.option("--teacher", type=options.FilePath, help="Model to imitate, usually the original.")
@training_options
@click.option(
    "--val-data", type=options.FilePath, help="Samples that choose the best epoch. [default: held out]"
)
@click.option(
    "--eval-data",
    type=options.FilePath,
    help="Samples for the last judgement. [default: split `test` of --data]",
)
@click.option(
    "--checkpoint", type=file_names.OUTPUT, help="State of the run. [default: OUTPUT with .checkpoint]"
)
@click.option("--resume", is_flag=True, help="Go on with an interrupted run.")
@click.option("--log", "log_path", type=file_names.OUTPUT, help="Append one JSON record per epoch.")
@tracking_options
@options.data_options
@options.run_options
@options.output_kind_option
@options.output_options
@grouped(files=FinetuneFiles, given=OutputOptions)
def command(model: Path, files: FinetuneFiles, given: OutputOptions, **values: Any) -> None:
    """Fine-tune MODEL in PyTorch; the graph stays as it is, only weights change.

    It learns from the labels of the data, from a teacher, or from both. Part of the data is held out to
    choose the best epoch. An interrupted run continues with --resume and ends with the same weights. To train
    on several GPUs or machines: torchrun --nproc-per-node 2 --no-python -- redtest-onnx finetune ...
    """
    given.start_log()
    settings = training_settings_of(values)
    tracking = tracking_options_of(values)
    run = options.run_options_of(values)
    source = options.data_options_of(values)
    output, log_path = files.output or default_output(model), files.log_path
    checkpoint = files.checkpoint or output.with_suffix(".checkpoint")
    if not model.is_dir():
        check_model_name(output)
    check_folder(model, output, force=given.force)
    outputs = Outputs.of(
        {"--output": None if model.is_dir() else output, "--json": given.json_path},
        force=given.force,
        kept={"--checkpoint": checkpoint, "--log": log_path},
        reads=(model, files.teacher, *source.reads(model), files.val_data, files.eval_data),
    )
    prepare_torch()
    from redtest_onnx.training.finetune import CheckpointFile, ValidationData, finetune
    from redtest_onnx.training.loop import Watch
    from redtest_onnx.training.processes import leads
    from redtest_onnx.training.tracked import note_trained, note_training, tracked_watch

    screen = given.screen(silent=not leads())
    loaded = load(model)
    imitated = load(files.teacher) if files.teacher else None
    outputs.spare(loaded, imitated)
    bench = Workbench(loaded, options.training_data(source, loaded), run, seed=settings.seed)
    screen.warn_synthetic(bench.data)
    with tracking.open("finetune", here=leads()) as tracked, screen.progress() as progress:
        note_training(tracked, bench, settings, imitated)
        with kept_if_interrupted(screen, checkpoint):
            result = finetune(
                bench,
                settings,
                teacher=imitated,
                others=ValidationData(
                    source.open(loaded, path=files.val_data) if files.val_data else None,
                    options.evaluation_data(source, loaded, files.eval_data),
                ),
                checkpoint=CheckpointFile(checkpoint, files.resume),
                watch=tracked_watch(Watch(epoch_reporter(screen, log_path), progress), tracked),
            )
        if not result.leads:
            return
        saved = save_tuned(result.model, model, output, force=given.force)
        if given.json_path:
            write_json(finetune_document(result, output), given.json_path)
        note_trained(tracked, result)
        tracked.artefacts(*saved, log_path, document_path(given.json_path))
        places = tracked.where
    screen.show(*in_words(result))
    screen.show(f"Written to {output}; nothing but weights differs from {model}.")
    screen.show(*(f"Tracked by {place}." for place in places))


def in_words(result: FineTuning) -> list[str]:
    """What fine-tuning brought."""
    epochs = len(result.history)
    if result.best_epoch == 0:
        samples = plural(result.trained_on, "sample")
        lines = [f"No epoch of {epochs} on {samples} improved on the starting weights; they are kept."]
    else:
        lines = [
            f"Trained for {plural(epochs, 'epoch')} on {plural(result.trained_on, 'sample')}; "
            f"epoch {result.best_epoch} was the best on validation."
        ]
    lines.append(_judged("Validation", result.validated))
    if result.tested is not None:
        lines.append(_judged("Test", result.tested))
    if result.validated.after is None and result.history:
        lines.append(
            f"Validation loss {result.start.loss:.4f} before, "
            f"{min(record['validation_loss'] for record in result.history):.4f} at best."
        )
    lines.append(
        f"PyTorch and ONNX Runtime differ by {result.verification.largest:.1g} on the written weights."
    )
    return lines


def _judged(name: str, judged: ValidationResult) -> str:
    if judged.after is None or judged.before is None:
        return f"{name}: {judged.samples} samples without labels."
    torch = "" if judged.after_torch is None else f" (PyTorch: {judged.after_torch:.2%})"
    return (
        f"{name} accuracy {judged.before:.2%} -> {judged.after:.2%}{torch}, "
        f"{judged.samples} samples of {judged.source}."
    )
