"""Runs told to trackers: what they take down, what is refused, what a lost tracker does not stop."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from search.toy import ChainSpace, ChainWork, evolution

from redtest_onnx.cli.main import run
from redtest_onnx.engines.run import EngineOptions
from redtest_onnx.errors import InputError, RuntimeUnavailableError
from redtest_onnx.search.search import SearchBudget, SearchProblem, search
from redtest_onnx.search.store import Failure, Outcome, Store
from redtest_onnx.tracking.run import TrackedRun, TrackerTarget, TrackingOptions

MODELS = Path(__file__).parents[2] / "models"
MODEL, DATA = MODELS / "vgg_digits.onnx", MODELS / "digits.npz"
WHY = "needs what the extra `tracking` holds: pip install 'redtest-onnx[tracking]'"
needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="training needs PyTorch")
needs_mlflow = pytest.mark.skipif(find_spec("mlflow") is None, reason=f"MLflow {WHY}")
needs_tensorboard = pytest.mark.skipif(
    find_spec("tensorboard") is None or find_spec("torch") is None, reason=f"TensorBoard {WHY}, and PyTorch"
)
pytestmark = pytest.mark.filterwarnings("ignore")  # of the packages' own dependencies


class Notebook:
    """A tracker that keeps what it is told, and may break down."""

    where = "a notebook"

    def __init__(self, *, breaks: bool = False) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.breaks = breaks

    def _note(self, *what: Any) -> None:
        if self.breaks:
            raise OSError("no ink")
        self.told.append(what)

    def parameters(self, values: Mapping[str, str]) -> None:
        self._note("parameters", dict(values))

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        self._note("metrics", dict(values), step)

    def candidate(self, number: int, values: Mapping[str, str], measures: Mapping[str, float]) -> None:
        self._note("candidate", number, dict(values), dict(measures))

    def text(self, name: str, markdown: str) -> None:
        self._note("text", name, markdown)

    def artefact(self, path: Path) -> None:
        self._note("artefact", path)

    def close(self, state: str) -> None:
        self._note("close", state)


def told_by(what: BaseException | None) -> Notebook:
    """What is told of a run that ends with an error, or well."""
    notebook, tracked = Notebook(), TrackedRun()
    tracked.trackers.append(notebook)
    try:
        with tracked:
            tracked.parameters({"lr": None, "augment": ("crop", "flip"), "epochs": 2})
            tracked.metrics({"loss": float("nan"), "accuracy": 0.5, "done": True, "name": "x"}, 3)
            if what is not None:
                raise what
    except (InputError, KeyboardInterrupt):
        assert what is not None
    return notebook


@pytest.mark.parametrize(
    ("error", "state"), [(None, "finished"), (InputError("no"), "failed"), (KeyboardInterrupt(), "killed")]
)
def test_a_run_ends_as_it_ended(error: BaseException | None, state: str) -> None:
    assert told_by(error).told == [
        ("parameters", {"augment": "crop, flip", "epochs": "2"}),
        ("metrics", {"accuracy": 0.5}, 3),
        ("close", state),
    ]


def test_a_tracker_that_breaks_is_left_out_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    tracked, broken, sound = TrackedRun(), Notebook(breaks=True), Notebook()
    tracked.trackers += [broken, sound]
    with caplog.at_level(logging.WARNING), tracked:
        tracked.metrics({"a": 1.0})
        tracked.metrics({"a": 2.0})
    assert [item[0] for item in sound.told] == ["metrics", "metrics", "close"]
    assert caplog.text.count("no ink") == 1


@pytest.mark.parametrize("text", ["wandb", "", "mlflow=x", "Mlflow"])
def test_unknown_trackers_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="give mlflow"):
        TrackingOptions.of(text)


def test_names_and_places_are_read() -> None:
    assert TrackerTarget.parse("mlflow:http://h:5000") == TrackerTarget("mlflow", "http://h:5000")
    assert TrackerTarget.parse("tensorboard:") == TrackerTarget("tensorboard")
    with pytest.raises(InputError, match="run_name"):
        TrackingOptions.of((), "../elsewhere")


@pytest.mark.parametrize("name", ["mlflow", "tensorboard"])
@needs_torch
def test_what_is_missing_is_said_before_any_work(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    output = tmp_path / "o.onnx"
    call = ["finetune", str(MODEL), "--data", str(DATA), "-o", str(output), "--track", name]
    assert run(call) == 2
    said = capsys.readouterr().err
    assert f"--track {name} needs" in said
    assert 'pip install "redtest-onnx[tracking,torch]"' in said
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RuntimeUnavailableError, match="not installed here"):
        TrackingOptions.of([name])


def test_a_search_reports_each_outcome_once_a_run_with_its_number(tmp_path: Path) -> None:
    def reported(evaluations: int) -> list[tuple[int, Outcome]]:
        found: list[tuple[int, Outcome]] = []
        path = tmp_path / "s.sqlite"
        with Store.open(path) if path.exists() else Store.create(path, {}) as store:
            search(
                ChainWork(),
                SearchProblem(ChainSpace(), evolution(), lambda candidate: candidate.accuracy, window=4),
                store,
                SearchBudget(evaluations),
                engine=EngineOptions(),
                report=lambda number, outcome: found.append((number, outcome)),
            )
        return found

    first, whole = reported(5), reported(9)
    assert sorted(number for number, _ in first) == list(range(5))
    assert sorted(number for number, _ in whole) == list(range(9))
    assert dict(whole).items() >= dict(first).items()
    assert all(isinstance(outcome, Failure) or outcome.accuracy for _, outcome in whole)


@needs_torch
def test_a_resumed_training_tells_of_all_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import redtest_onnx as rt
    from redtest_onnx.training import loop
    from redtest_onnx.training.finetune import CheckpointFile, finetune
    from redtest_onnx.training.tracked import tracked_watch

    monkeypatch.setattr(loop, "_SAVE_EVERY_S", 0.0)
    bench = rt.open_workbench(rt.load(MODEL), DATA, split="train", options=rt.RunOptions(threads=1))
    settings, state = rt.TrainingSettings(epochs=2), tmp_path / "state"

    def cut(record: dict[str, Any]) -> None:
        if record["epoch"] == 2:
            raise KeyboardInterrupt

    def trained(watch: loop.Watch, *, resume: bool) -> list[int]:
        notebook, tracked = Notebook(), TrackedRun()
        tracked.trackers.append(notebook)
        try:
            with tracked:
                file = CheckpointFile(state, resume=resume)
                finetune(bench, settings, checkpoint=file, watch=tracked_watch(watch, tracked))
        except KeyboardInterrupt:
            assert notebook.told[-1] == ("close", "killed")
        return [item[2] for item in notebook.told if item[0] == "metrics"]

    assert trained(loop.Watch(cut), resume=False) == [1]
    assert trained(loop.Watch(), resume=True) == [1, 2]


@needs_tensorboard
def test_tensorboard_shows_epochs_and_candidates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.chdir(tmp_path)
    call = ["finetune", str(MODEL), "--data", str(DATA), "-o", "o.onnx", "--epochs", "2", "--threads", "1"]
    assert run([*call, "-q", "--track", "tensorboard:logs", "--run-name", "a"]) == 0
    seen = EventAccumulator(str(tmp_path / "logs" / "a")).Reload()
    assert [event.step for event in seen.Scalars("validation_loss")] == [1, 2]
    assert seen.Scalars("final_test_accuracy_after")[0].value > 0.9
    texts = {tag: seen.Tensors(tag)[-1].tensor_proto.string_val[0].decode() for tag in seen.Tags()["tensors"]}
    assert "| epochs | 2 |" in texts["parameters/text_summary"]
    assert "o.onnx" in texts["files/text_summary"]
    assert texts["state/text_summary"] == "finished"
    options = TrackingOptions.of("tensorboard:logs", "b")
    with options.open("search") as tracked:
        tracked.candidate(4, {"name": "a|b"}, {"accuracy": 0.25, "msrs": None})
    seen = EventAccumulator(str(tmp_path / "logs" / "b")).Reload()
    assert [(event.step, event.value) for event in seen.Scalars("candidates/accuracy")] == [(4, 0.25)]
    with pytest.raises(InputError, match="can't be written"):
        TrackingOptions.of("tensorboard:o.onnx", "c").open("search")


@needs_mlflow
def test_mlflow_keeps_epochs_candidates_and_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlflow.tracking import MlflowClient

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "tests")
    (tmp_path / "page.html").write_text("page", encoding="utf-8")
    options = TrackingOptions.of("mlflow:sqlite:///m.db", "whole")
    with options.open("search") as tracked:
        tracked.parameters({"epochs": 2, "long": "x" * 2000})
        tracked.metrics({"accuracy": 0.5}, 1)
        tracked.metrics({"accuracy": 0.75}, 2)
        tracked.candidate(0, {"name": "good"}, {"msrs": 3.0})
        tracked.candidate(1, {"name": "bad", "error": "is too narrow"}, {})
        tracked.text("ranking", "| a |")
        tracked.artefacts(tmp_path / "page.html", None, tmp_path / "none.png")
    assert capsys.readouterr().out == ""
    client = MlflowClient(tracking_uri="sqlite:///m.db")
    experiment = client.get_experiment_by_name("tests")
    assert experiment is not None
    runs = {found.info.run_name: found for found in client.search_runs([experiment.experiment_id])}
    whole = runs["whole"]
    assert whole.info.status == "FINISHED"
    assert whole.data.params["epochs"] == "2"
    history = client.get_metric_history(whole.info.run_id, "accuracy")
    assert [(item.step, item.value) for item in history] == [(1, 0.5), (2, 0.75)]
    assert {item.path for item in client.list_artifacts(whole.info.run_id)} == {"page.html", "ranking.md"}
    assert runs["good"].data.tags["mlflow.parentRunId"] == whole.info.run_id
    assert runs["good"].data.metrics == {"msrs": 3.0}
    assert (runs["bad"].info.status, runs["bad"].data.params["error"]) == ("FAILED", "is too narrow")


@needs_mlflow
def test_an_mlflow_server_that_is_not_there_is_a_users_error() -> None:
    with pytest.raises(InputError, match=r"can't be used at http://h@127\.0\.0\.1:9"):
        TrackingOptions.of("mlflow:http://h@127.0.0.1:9").open("search")
    with pytest.raises(InputError, match=r"at http://127\.0\.0\.1:9 "):
        TrackingOptions.of("mlflow:http://user:secret@127.0.0.1:9").open("search")
