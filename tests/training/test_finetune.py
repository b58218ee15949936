from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from nets import Net

torch = pytest.importorskip("torch")

import redtest_onnx as rt  # noqa: E402
from redtest_onnx.pruning.apply import apply_plan  # noqa: E402
from redtest_onnx.pruning.plan import Plan, Step  # noqa: E402
from redtest_onnx.runtime.session import RunOptions  # noqa: E402
from redtest_onnx.runtime.workbench import Workbench  # noqa: E402
from redtest_onnx.training import loop  # noqa: E402
from redtest_onnx.training.finetune import CheckpointFile, ValidationData, finetune  # noqa: E402
from redtest_onnx.training.settings import TrainingSettings  # noqa: E402

MODELS = Path(__file__).parents[2] / "models"
DATA = MODELS / "digits.npz"
ONE = RunOptions(threads=1)


def without(model: rt.Model, count: int) -> rt.Model:
    """The model without its first removable layers, not repaired."""
    bench = Workbench(model, rt.open_data(DATA, model), ONE)
    layers = [layer for layer in bench.layers() if layer.removable][:count]
    return apply_plan(bench, Plan("test", model.sha256, tuple(map(Step.of, layers))))


@pytest.fixture(scope="module")
def damaged() -> rt.Model:
    return without(rt.load(MODELS / "resnet_digits.onnx"), 18)


def test_labels_bring_a_damaged_model_back_and_only_weights_change(damaged: rt.Model) -> None:
    data = rt.open_data(DATA, damaged, split="train")
    test = rt.open_data(DATA, damaged, split="test")
    found = finetune(
        Workbench(damaged, data, ONE), TrainingSettings(epochs=4), others=ValidationData(test=test)
    )
    assert found.tested is not None
    assert found.tested.before is not None
    assert found.tested.after is not None
    assert found.tested.before < 0.9
    assert found.tested.after > 0.97
    assert found.tested.after == found.tested.after_torch
    assert found.validated.after == found.validated.after_torch
    before, after = damaged.proto, found.model.proto
    for old, new in zip(before.graph.initializer, after.graph.initializer, strict=True):
        assert (old.name, old.dims) == (new.name, new.dims)
    assert list(before.graph.node) == list(after.graph.node)


def test_a_teacher_alone_teaches(damaged: rt.Model) -> None:
    original = rt.load(MODELS / "resnet_digits.onnx")
    labelled = rt.open_data(DATA, damaged, split="train")
    data = Unlabelled(labelled)
    settings = TrainingSettings(epochs=3, feature_weight=0.1)
    found = finetune(Workbench(damaged, data, ONE), settings, teacher=original)
    assert found.validated.after is None
    assert found.history[-1]["validation_loss"] < 0.6 * found.start.loss


class Unlabelled:
    """A data set without its labels."""

    labelled = synthetic = False
    source = "unlabelled"

    def __init__(self, data: rt.Dataset) -> None:
        self._data = data

    def __len__(self) -> int:
        return len(self._data)

    def inputs(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        return self._data.inputs(indices)

    def labels(self, indices: np.ndarray) -> None:
        return None


def test_regression_follows_its_teacher() -> None:
    rng = np.random.default_rng(0)
    net = Net(x=["n", 6])
    teacher = net.model(net("MatMul", net("Tanh", net("MatMul", "x", net.weight(6, 8))), net.weight(8, 3)))
    proto = onnx.ModelProto()
    proto.CopyFrom(teacher.proto)
    for tensor in proto.graph.initializer:
        noise = rng.normal(size=list(tensor.dims)).astype(np.float32)
        tensor.raw_data = (teacher.value(tensor) + 0.3 * noise).astype(np.float32).tobytes()
    data = rt.open_data(None, teacher, count=256)
    settings = TrainingSettings(epochs=8, lr=0.05, task="regression", optimizer="sgd")
    found = finetune(Workbench(rt.Model(proto), data, ONE), settings, teacher=teacher)
    assert found.history[-1]["validation_loss"] < 0.3 * found.start.loss


def test_nothing_to_learn_from_is_refused(damaged: rt.Model) -> None:
    data = Unlabelled(rt.open_data(DATA, damaged, split="train"))
    with pytest.raises(rt.InputError, match="nothing to learn from"):
        finetune(Workbench(damaged, data, ONE))


def test_labels_beyond_the_classes_are_refused(damaged: rt.Model, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", input=np.zeros((20, 1, 8, 8), np.float32), labels=np.arange(20))
    with pytest.raises(rt.InputError, match=r"labels go from 0 to \d+, the model has 10 classes"):
        finetune(Workbench(damaged, rt.open_data(tmp_path / "d.npz", damaged), ONE))


def test_validation_labels_beyond_the_classes_are_refused(damaged: rt.Model) -> None:
    data = rt.open_data(DATA, damaged, split="train")
    inputs = {"input": np.zeros((20, 1, 8, 8), np.float32), "labels": np.arange(20)}
    others = ValidationData(validation=rt.open_data(inputs, damaged))
    with pytest.raises(rt.InputError, match="labels go from 0 to 19, the model has 10 classes"):
        finetune(Workbench(damaged, data, ONE), others=others)


@pytest.mark.parametrize(("shape", "dtype"), [((3, 8, 8), 1), ((1, 8), 1), ((1, 8, 8), 10)])
def test_a_teacher_of_other_inputs_is_refused(damaged: rt.Model, shape: tuple[int, ...], dtype: int) -> None:
    net = Net()
    net.add_input("input", dtype, ["n", *shape])
    teacher = net.model(net("Flatten", "input"))
    data = rt.open_data(DATA, damaged, split="train")
    with pytest.raises(rt.InputError, match="the teacher takes 'input' as"):
        finetune(Workbench(damaged, data, ONE), teacher=teacher)


def test_statistics_that_an_exporter_merged_are_refused_unless_they_are_frozen() -> None:
    net = Net(x=["n", 2, 4, 4])
    ones, zeros = net.store(np.ones(2)), net.store(np.zeros(2))
    x = net.conv("x", 2, 2)
    for _ in range(2):
        x = net("BatchNormalization", x, net.weight(2), net.weight(2), zeros, ones)
    model = net.model(net("GlobalAveragePool", x))
    data = rt.open_data(None, model, count=32)
    settings = TrainingSettings(epochs=1, task="regression", optimizer="sgd")
    with pytest.raises(rt.InputError, match="running statistics"):
        finetune(Workbench(model, data, ONE), settings, teacher=model)
    frozen = TrainingSettings(epochs=1, task="regression", optimizer="sgd", batch_norm="frozen")
    assert finetune(Workbench(model, data, ONE), frozen, teacher=model).history


def test_a_rate_that_is_too_high_is_told(damaged: rt.Model) -> None:
    data = rt.open_data(DATA, damaged, split="train")
    with pytest.raises(rt.NegativeVerdictError, match=r"loss became|no longer finite"):
        finetune(Workbench(damaged, data, ONE), TrainingSettings(epochs=3, lr=1e3, clip=1e9, warmup=0))


def test_training_that_makes_it_worse_keeps_the_weights() -> None:
    model = rt.load(MODELS / "vgg_digits.onnx")
    data = rt.open_data(DATA, model, split="train")
    found = finetune(
        Workbench(model, data, ONE), TrainingSettings(epochs=2, lr=2.0, patience=1, schedule="constant")
    )
    assert found.best_epoch == 0
    assert len(found.history) == 1
    assert found.model.proto.graph == model.proto.graph


def test_a_run_cut_between_two_steps_resumes_to_the_same_weights(
    damaged: rt.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_SAVE_EVERY_S", 0.0)
    data = rt.open_data(DATA, damaged, split="train")
    settings = TrainingSettings(epochs=2, augment=("crop", "flip"))
    steps = 0

    def cut(module: object) -> None:
        nonlocal steps
        steps += 1
        if steps == 20:
            raise KeyboardInterrupt

    whole = finetune(Workbench(damaged, data, ONE), settings)
    state = tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        finetune(
            Workbench(damaged, data, ONE),
            settings,
            checkpoint=CheckpointFile(state),
            watch=loop.Watch(after_step=cut),
        )
    with pytest.raises(rt.OutputError, match="interrupted run"):
        finetune(Workbench(damaged, data, ONE), settings, checkpoint=CheckpointFile(state))
    with pytest.raises(rt.InputError, match="a run with another settings"):
        finetune(
            Workbench(damaged, data, ONE), TrainingSettings(), checkpoint=CheckpointFile(state, resume=True)
        )
    copied = tmp_path / "copied.npz"  # or the same file by another path
    copied.write_bytes(Path(DATA).read_bytes())
    data = rt.open_data(copied, damaged, split="train")
    resumed = finetune(Workbench(damaged, data, ONE), settings, checkpoint=CheckpointFile(state, resume=True))
    assert resumed.history == whole.history
    assert resumed.model.proto == whole.model.proto
    assert not state.exists()


COMMAND = [sys.executable, "-m", "redtest_onnx", "finetune"]


def test_a_killed_run_resumes_to_the_same_weights(damaged: rt.Model, tmp_path: Path) -> None:
    rt.save(damaged, tmp_path / "m.onnx")
    options = [str(tmp_path / "m.onnx"), "--data", str(DATA), "--threads", "1", "--augment", "crop"]
    options += ["--epochs", "2", "-q"]
    whole = [*COMMAND, *options, "-o", str(tmp_path / "whole.onnx")]
    subprocess.run(whole, check=True)
    cut = [*COMMAND, *options, "-o", str(tmp_path / "cut.onnx")]
    checkpoint = tmp_path / "cut.checkpoint"
    process = subprocess.Popen(cut)
    try:
        deadline = time.monotonic() + 120
        while not checkpoint.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert checkpoint.exists()
    assert not (tmp_path / "cut.onnx").exists()
    subprocess.run([*cut, "--resume"], check=True)
    assert (tmp_path / "cut.onnx").read_bytes() == (tmp_path / "whole.onnx").read_bytes()
    assert not checkpoint.exists()


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this PyTorch has no torch.distributed")
@pytest.mark.skipif(os.name != "posix", reason="gloo over loopback is tested on POSIX systems")
@pytest.mark.parametrize("batch", [None, 8], ids=["any", "fixed"])
def test_two_processes_of_torchrun_train_together(
    damaged: rt.Model, batch: int | None, tmp_path: Path
) -> None:
    if batch:
        for value in (*damaged.graph.input, *damaged.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = batch
    rt.save(damaged, tmp_path / "m.onnx")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["--no-python", "--", sys.executable, "-m", "redtest_onnx", "finetune"]
    command += [str(tmp_path / "m.onnx"), "--data", str(DATA), "--log", str(tmp_path / "log")]
    command += ["--epochs", "2", "--threads", "1", "-o", str(tmp_path / "o.onnx"), "--device", "cpu"]
    command += ["--json", str(tmp_path / "j.json")]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Test accuracy") == 1
    assert (tmp_path / "o.onnx").exists()
    assert len((tmp_path / "log").read_text().splitlines()) == 2
    # PyTorch's figure is put together from what each process has validated, ONNX Runtime's is not.
    document = json.loads((tmp_path / "j.json").read_text())
    for judged in (document["validation"], document["test"]):
        assert judged["after"] == pytest.approx(judged["after_torch"], abs=1e-9)
