"""What a tracked fine-tuning takes down: settings, each epoch, how it ended."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from redtest_onnx.graph.model import Model
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.tracking.run import TrackedRun
from redtest_onnx.training.finetune import FineTuning
from redtest_onnx.training.loop import Watch
from redtest_onnx.training.settings import TrainingSettings


def note_training(
    run: TrackedRun, bench: Workbench, settings: TrainingSettings, teacher: Model | None
) -> None:
    """Note what a fine-tuning depends on.

    Args:
        run: who is told.
        bench: the model and the training samples.
        settings: how it is trained.
        teacher: the model to imitate.
    """
    if not run.trackers:
        return
    run.parameters(
        {
            **settings.fixed(),
            "model": bench.model.label,
            "model_sha256": bench.digest,
            "model_parameters": bench.cost.parameters,
            "data": bench.data.source,
            "data_samples": len(bench.data),
            "teacher": None if teacher is None else teacher.label,
            "teacher_sha256": None if teacher is None else teacher.sha256,
        }
    )


def tracked_watch(watch: Watch, run: TrackedRun) -> Watch:
    """A watch that tells the run of each epoch, too; of a resumed training those of before as well."""

    def note(record: dict[str, Any]) -> None:
        values = {name: value for name, value in record.items() if name != "epoch"}
        run.metrics(values, record["epoch"])

    def report(record: dict[str, Any]) -> None:
        watch.record(record)
        note(record)

    def resumed(records: list[dict[str, Any]]) -> None:
        for record in records:
            note(record)

    return replace(watch, report=report, resumed=resumed)


def note_trained(run: TrackedRun, result: FineTuning) -> None:
    """Note how a fine-tuning ended, at the step of its last epoch.

    Args:
        run: who is told.
        result: what came out.
    """
    ended: dict[str, object] = {
        "best_epoch": result.best_epoch,
        "loss_before": result.start.loss,
        "onnxruntime_difference": result.verification.largest,
    }
    for name, judged in (("validation", result.validated), ("test", result.tested)):
        if judged is not None:
            values = asdict(judged)
            ended |= {f"final_{name}_accuracy_{key}": values[key] for key in ("before", "after")}
    run.metrics(ended, len(result.history))
