from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import redtest_onnx as rt
from redtest_onnx.cli.main import run
from redtest_onnx.data.splits import holdout_indices, without_holdout
from redtest_onnx.pruning.rounds import RoundTraining, prune_in_rounds
from redtest_onnx.runtime.session import RunOptions
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analyze import AnalysisSettings
from redtest_onnx.training.settings import TrainingSettings

MODELS = Path(__file__).parents[2] / "models"
DATA = MODELS / "digits.npz"


def test_two_rounds_remove_their_parts_and_are_compared_with_the_original() -> None:
    model = rt.load(MODELS / "resnet_digits.onnx")
    data = rt.open_data(DATA, model)
    pruning, rounds = prune_in_rounds(
        Workbench(model, data, RunOptions(threads=1), evaluation=rt.open_data(DATA, model, split="test")),
        rt.Budget(remove=19).rounds(2),
        RoundTraining(TrainingSettings(epochs=1), rt.open_data(DATA, model, split="train")),
        rt.PruneSettings(similarity=AnalysisSettings(samples=32, batches=2), repair="none"),
    )
    assert [len(part.plan.steps) for part in rounds] == [10, 9]
    assert len(pruning.plan.steps) == 19
    assert len({step.region for step in pruning.plan.steps}) == 19
    assert pruning.before.accuracy is not None
    assert pruning.after.accuracy is not None
    assert pruning.after.accuracy > pruning.before.accuracy - 0.05
    assert pruning.after.cost.parameters < 0.5 * pruning.before.cost.parameters
    assert pruning.model is rounds[-1].finetuning.model


def test_nothing_is_trained_on_what_judges() -> None:
    model = rt.load(MODELS / "vgg_digits.onnx")
    data = rt.open_data(DATA, model)
    training, judging = without_holdout(data, 0), holdout_indices(data, 0)
    judged = {row.tobytes() for row in data.inputs(judging)["input"]}
    trained = training.inputs(np.arange(len(training)))["input"]
    assert len(training) + len(judging) == len(data)
    assert not any(row.tobytes() in judged for row in trained)


def test_budgets_of_rounds_multiply_to_the_whole() -> None:
    parts = rt.Budget(targets=(("macs", 0.5),)).rounds(3)
    assert np.prod([part.targets[0][1] for part in parts]) == pytest.approx(0.5)
    assert sum(part.remove or 0 for part in rt.Budget(remove=7).rounds(3)) == 7
    assert [part.remove for part in rt.Budget(remove=1).rounds(2)] == [1, 0]  # the first removes something


def test_one_command_prunes_and_trains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, report = tmp_path / "o.onnx", tmp_path / "o.json"
    command = ["prune", str(MODELS / "resnet_digits.onnx"), "--data", str(DATA), "-o", str(output)]
    command += ["--remove", "20", "--repair", "none", "--finetune", "1", "--samples", "32", "--batches", "2"]
    assert run([*command, "--threads", "1", "--json", str(report)]) == 0
    shown = capsys.readouterr().out
    assert "by training" in shown
    document = json.loads(report.read_text())
    assert len(document["rounds"]) == 1
    assert document["rounds"][0]["training"]["epochs"][0]["epoch"] == 1
    assert document["after"]["accuracy"] > 0.85
    assert output.exists()


def test_options_of_training_need_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["prune", str(MODELS / "vgg_digits.onnx"), "--lr", "0.1", "-o", str(tmp_path / "o.onnx")]
    assert run(command) == 2
    assert "belong to --finetune" in capsys.readouterr().err
