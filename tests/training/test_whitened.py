"""Learning from a teacher alone goes on where a repair ended."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nets import Net

torch = pytest.importorskip("torch")

import redtest_onnx as rt  # noqa: E402
from redtest_onnx.bridge import to_torch  # noqa: E402
from redtest_onnx.data.dataset import Subset  # noqa: E402
from redtest_onnx.pruning.apply import apply_plan  # noqa: E402
from redtest_onnx.pruning.plan import Plan, Step  # noqa: E402
from redtest_onnx.pruning.repair.repair import RepairSettings, repair  # noqa: E402
from redtest_onnx.training import loop  # noqa: E402
from redtest_onnx.training.batches import Samples  # noqa: E402
from redtest_onnx.training.distil.distil import _tensor  # noqa: E402
from redtest_onnx.training.distil.settings import DistilSettings  # noqa: E402
from redtest_onnx.training.distil.student import Student  # noqa: E402
from redtest_onnx.training.finetune import CheckpointFile, FineTuning, finetune  # noqa: E402
from redtest_onnx.training.settings import TrainingSettings  # noqa: E402
from redtest_onnx.training.whitened import WhitenedAdam, prepare_operators  # noqa: E402

MODELS = Path(__file__).parents[2] / "models"
CPU = rt.RunOptions("cpu", 1)


class Unlabelled(Subset):
    """Samples without their labels."""

    labelled = False

    def labels(self, indices: np.ndarray) -> None:
        return None


@pytest.fixture(scope="module")
def repaired() -> tuple[rt.Model, rt.Model, Unlabelled]:
    """An original, what a repair made of it with layers removed, and samples."""
    model = rt.load(MODELS / "vit_digits.onnx")
    data = rt.open_data(MODELS / "digits.npz", model)
    bench = rt.Workbench(model, Subset(data, np.arange(160)), CPU).opened
    layers = [layer for layer in bench.layers() if layer.action == "bypass"][:10]
    plan = Plan("test", model.sha256, tuple(map(Step.of, layers)))
    fixed, _ = repair(bench, apply_plan(bench, plan), plan, RepairSettings("refit"))
    return (
        model,
        fixed.model,
        Unlabelled(rt.open_data(MODELS / "digits.npz", model, split="train"), np.arange(320)),
    )


def taught(case: tuple[rt.Model, rt.Model, Unlabelled], optimizer: str, **more: object) -> FineTuning:
    model, fixed, data = case
    settings = TrainingSettings(epochs=2, optimizer=optimizer, seed=1)  # type: ignore[arg-type]
    return finetune(rt.Workbench(fixed, data, CPU), settings, teacher=model, **more)  # type: ignore[arg-type]


def test_no_epoch_is_worse_than_the_repair(repaired: tuple[rt.Model, rt.Model, Unlabelled]) -> None:
    found = taught(repaired, "auto")
    assert found.settings.optimizer == "whitened"
    losses = [record["validation_loss"] for record in found.history]
    assert max(losses) < found.start.loss
    assert losses[-1] < 0.9 * found.start.loss
    assert min(record["validation_loss"] for record in taught(repaired, "adamw").history) > losses[-1]


def test_a_run_cut_between_two_steps_resumes_to_the_same_weights(
    repaired: tuple[rt.Model, rt.Model, Unlabelled], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = taught(repaired, "auto").model
    monkeypatch.setattr(loop, "_SAVE_EVERY_S", 0.0)
    step, done = loop.Trainer._step, list[int]()

    def cut(self: loop.Trainer, batch: object) -> float:
        if len(done) == 6:
            raise KeyboardInterrupt
        done.append(1)
        return step(self, batch)  # type: ignore[arg-type]

    monkeypatch.setattr(loop.Trainer, "_step", cut)
    path = tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        taught(repaired, "auto", checkpoint=CheckpointFile(path, resume=False))
    monkeypatch.setattr(loop.Trainer, "_step", step)
    resumed = taught(repaired, "auto", checkpoint=CheckpointFile(path, resume=True)).model
    for a, b in zip(whole.graph.initializer, resumed.graph.initializer, strict=True):
        assert np.array_equal(whole.value(a), resumed.value(b)), a.name


@pytest.mark.parametrize("largest", [8192, 4])
def test_its_steps_are_those_of_adam_on_the_coordinates(
    largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from redtest_onnx.training.distil import whitening

    monkeypatch.setattr(whitening, "_LARGEST_MATRIX", largest)  # with a diagonal instead of a matrix, too
    net = Net(x=["n", 4, 6, 6])
    hidden = net("Relu", net("Conv", "x", net.weight(6, 2, 3, 3), net.weight(6), group=2, pads=[1, 1, 1, 1]))
    pooled = net("Flatten", net("GlobalAveragePool", hidden))
    model = net.model(net("Gemm", pooled, net.weight(6, 3), net.weight(3)))
    data = rt.open_data(None, model, count=32)
    samples = Samples(data, np.arange(32), 16)
    feeds = [{"x": _tensor(data.inputs(np.arange(16 * k, 16 * k + 16))["x"])} for k in range(2)]
    output = model.outputs[0].name

    student = Student(model, (output,), iter(feeds), DistilSettings(seed=3))
    reference = torch.optim.Adam(
        [p for p in student.parameters() if p.requires_grad], 1e-2, betas=(0.9, 0.98)
    )
    module = to_torch(model, batch_norm="frozen")
    operators = prepare_operators(module, model, samples, 3, torch.device("cpu"))
    optimizer = WhitenedAdam(module, operators, 1e-2)
    for step in range(5):
        for run, algorithm in ((student, reference), (module, optimizer)):
            algorithm.zero_grad()
            found = run(**feeds[step % 2])
            loss = (found[output] if isinstance(found, dict) else found).square().sum()
            loss.backward()
            algorithm.step()
    expected = dict(student.write().named_parameters())
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(parameter, expected[name], rtol=1e-4, atol=1e-5)


def test_weight_decay_is_refused(repaired: tuple[rt.Model, rt.Model, Unlabelled]) -> None:
    model, fixed, data = repaired
    with pytest.raises(rt.InputError, match=r"has no .weight_decay"):
        finetune(rt.Workbench(fixed, data, CPU), TrainingSettings(weight_decay=0.1), teacher=model)
