"""Training under masks: zeros stay exactly zero, rewinding rewinds everything, runs resume."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nets import Net
from quarters import network, samples

import redtest_onnx as rt
from redtest_onnx.data.arrays import ArrayData
from redtest_onnx.errors import InputError, NegativeVerdictError
from redtest_onnx.metrics.pqi import pq_index
from redtest_onnx.runtime.session import RunOptions
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.training.settings import TrainingSettings
from redtest_onnx.weight_sparsity.apply import chosen_weights
from redtest_onnx.weight_sparsity.iterative.iterative import prune_iteratively
from redtest_onnx.weight_sparsity.iterative.loop import index_by_scope, iterate
from redtest_onnx.weight_sparsity.iterative.records import LoopSettings
from redtest_onnx.weight_sparsity.iterative.training import MaskedTraining
from redtest_onnx.weight_sparsity.masks import SCOPES, Amount, Bound

torch = pytest.importorskip("torch")

CPU = RunOptions("cpu", 1)
TRAINING = TrainingSettings(epochs=4, lr=0.1, batch_size=40)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


MODEL, DATA = network(), samples()
BENCH = Workbench(MODEL, DATA, CPU)
WEIGHTS = chosen_weights(MODEL)


def settings(method: Any = "sap", scope: Any = "global", **changes: Any) -> LoopSettings:
    rule = Bound(1, 2) if method == "sap" else Amount(0.3)
    return replace(LoopSettings(method, scope, rule, 3, training=TRAINING), **changes)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("method", ["sap", "lottery", "one-shot"])
def test_masked_weights_are_exactly_zero_and_masks_only_shrink(method: str, scope: str) -> None:
    steps = list(iterate(BENCH, WEIGHTS, settings(method, scope, iterations=2)))
    assert [step.record.number for step in steps] == [0, 1, 2]
    kept = [step.record.kept for step in steps]
    assert kept[0] == steps[0].record.weights == 584
    assert kept[0] > kept[1] > kept[2]
    for before, step in pairwise(steps):
        for weight, old, mask in zip(WEIGHTS, before.masks, step.masks, strict=True):
            assert not (mask & ~old).any()
            rows = weight.layout.rows(step.state[weight.name].numpy())
            assert not rows[~mask].any()
            assert not np.signbit(rows[~mask]).any()
            assert (rows[mask] != 0).mean() > 0.99


def test_zeros_hold_after_every_step_of_the_optimiser(monkeypatch: pytest.MonkeyPatch) -> None:
    from redtest_onnx.training.loop import Trainer

    seen = []
    step = Trainer._step

    def watched(self: Any, batch: Any) -> float:
        loss = step(self, batch)
        seen.append(sum(int((weight == 0).sum()) for weight in (self.module.w0, self.module.w5)))
        return loss

    monkeypatch.setattr(Trainer, "_step", watched)
    steps = list(iterate(BENCH, WEIGHTS, settings(iterations=1)))
    gone = steps[1].record.weights - steps[1].record.kept
    assert gone > 50
    assert seen[len(seen) // 2 :] == [gone] * (len(seen) // 2)


def test_every_iteration_starts_from_the_model_unless_told_otherwise() -> None:
    """With no learning at all the state after each iteration is where it started."""
    still = replace(TRAINING, lr=1e-12)
    for step in iterate(BENCH, WEIGHTS, settings(training=still)):
        for weight, mask in zip(WEIGHTS, step.masks, strict=True):
            rows = weight.layout.rows(step.state[weight.name].numpy())
            np.testing.assert_allclose(rows, weight.rows(MODEL) * mask, atol=1e-6)
    rewound = list(iterate(BENCH, WEIGHTS, settings(iterations=1)))
    further = list(iterate(BENCH, WEIGHTS, settings(iterations=1, rewind=False)))
    assert further[1].record.loss < 0.7 * rewound[1].record.loss


def test_one_shot_ranks_the_dense_weights_lottery_those_of_each_iteration() -> None:
    one, lottery = (list(iterate(BENCH, WEIGHTS, settings(m))) for m in ("one-shot", "lottery"))
    dense = np.abs(np.concatenate([one[0].state[weight.name].numpy().ravel() for weight in WEIGHTS]))
    mask = np.concatenate([m.ravel() for m in one[3].masks])
    assert dense[~mask].max() <= dense[mask].min()
    other = np.concatenate([m.ravel() for m in lottery[3].masks])
    assert mask.sum() == other.sum()
    assert (mask != other).any()


def test_the_index_is_of_the_weights_that_are_left() -> None:
    rng = np.random.default_rng(0)
    rows = [rng.normal(size=(3, 7)), rng.normal(size=(2, 4))]
    masks = [rng.random(part.shape) < 0.7 for part in rows]
    masks[1][0] = False
    found = index_by_scope(rows, masks, (0.5, 1.0))
    left = [part[mask] for part, mask in zip(rows, masks, strict=True)]
    assert found["global"] == pytest.approx(pq_index(np.concatenate(left), 0.5, 1.0))
    assert found["layer"] == pytest.approx(np.mean([pq_index(part, 0.5, 1.0) for part in left]))
    neurons = [
        pq_index(r, 0.5, 1.0, mask=m)
        for r, m in zip(np.split(rows[0], 3), np.split(masks[0], 3), strict=True)
    ]
    neurons.append(pq_index(rows[1][1], 0.5, 1.0, mask=masks[1][1]))
    assert found["neuron"] == pytest.approx(np.mean(neurons))


def test_a_run_that_was_broken_off_goes_on_with_the_same_result(tmp_path: Path) -> None:
    whole = list(iterate(BENCH, WEIGHTS, settings()))
    broken = iterate(BENCH, WEIGHTS, settings(), tmp_path)
    next(broken), next(broken)
    broken.close()
    before = sorted(path.stat().st_mtime_ns for path in tmp_path.glob("*.pt"))
    resumed = list(iterate(BENCH, WEIGHTS, settings(), tmp_path))
    assert sorted(path.stat().st_mtime_ns for path in tmp_path.glob("*.pt"))[:2] == before
    for a, b in zip(whole, resumed, strict=True):
        assert replace(a.record, seconds=0) == replace(b.record, seconds=0)
        for x, y in zip(a.masks, b.masks, strict=True):
            np.testing.assert_array_equal(x, y)
        assert all(torch.equal(a.state[name], b.state[name]) for name in a.state)


def test_a_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    next(iterate(BENCH, WEIGHTS, settings(), tmp_path))
    with pytest.raises(InputError, match="other settings"):
        next(iterate(BENCH, WEIGHTS, settings("lottery"), tmp_path))
    longer = settings(iterations=9)
    assert next(iterate(BENCH, WEIGHTS, longer, tmp_path)).record.number == 0


def broken(content: dict[str, Any], how: str) -> None:
    """Contradict an iteration that was kept, as a file from anywhere may."""
    record, state = content["record"], content["state"]
    if how == "mask":
        state.update({name: torch.ones_like(value) for name, value in state.items()})
    elif how == "weights":
        state.update({name: value * 0 for name, value in state.items() if value.is_floating_point()})
    elif how == "index":
        del record["pq_index"][0]["layer"]
    elif how == "indices":
        record["pq_index"] = []
    else:
        record["accuracy"] = {"none": None, "beyond": 1e308, "text": "1"}[how]


@pytest.mark.parametrize(
    ("how", "why"),
    [
        *((how, "not a checkpoint of this version") for how in ("mask", "index", "indices", "none")),
        *((how, "not a checkpoint of this version") for how in ("beyond", "text")),
        ("weights", "its weights reach an accuracy of"),
    ],
)
def test_a_kept_iteration_that_contradicts_itself_is_refused(how: str, why: str, tmp_path: Path) -> None:
    prune_iteratively(BENCH, WEIGHTS, settings(iterations=1), max_drop=1, folder=tmp_path)
    content = torch.load(tmp_path / "iteration-001.pt", weights_only=True)
    broken(content, how)
    torch.save(content, tmp_path / "iteration-001.pt")
    with pytest.raises(InputError, match=why) as error:
        prune_iteratively(BENCH, WEIGHTS, settings(iterations=1), max_drop=1, folder=tmp_path)
    assert str(error.value.where) == str(tmp_path / "iteration-001.pt")


def test_the_sparsest_good_iteration_is_written() -> None:
    found = prune_iteratively(BENCH, WEIGHTS, settings(), max_drop=0.05)
    good = [r for r in found.iterations[1:] if r.accuracy >= found.reference - 0.05]
    assert found.chosen == min(good, key=lambda record: record.kept)
    written = BENCH.successor(found.model).evaluator().reference.accuracy
    assert written == pytest.approx(found.chosen.accuracy)
    zeros = sum(int((weight.values(found.model) == 0).sum()) for weight in chosen_weights(found.model))
    assert zeros >= found.chosen.weights - found.chosen.kept
    # Rewinding and training reach the statistics of batch normalisation, too.
    assert not np.allclose(*(model.value(model.initializers["w3"]) for model in (found.model, MODEL)))


def test_validation_samples_are_never_trained_on() -> None:
    from redtest_onnx.training.processes import processes

    with processes("cpu") as group:
        task = MaskedTraining(BENCH, TRAINING, group).task
    training, validation = set(task.samples.indices), set(task.validation.indices)
    assert not training & validation
    assert training | validation == set(range(len(DATA)))


@pytest.mark.parametrize("batch", ["n", 4])
def test_time_first_models_are_trained_on_whole_samples(batch: int | str) -> None:
    from redtest_onnx.training.loop import Trainer
    from redtest_onnx.training.processes import processes

    net = Net(x=[5, batch, 3])
    weights = net.weight(1, 16, 3), net.weight(1, 16, 4)
    made = net("LSTM", "x", *weights, outputs=2, hidden_size=4).replace("_0", "_1")
    last = net("Squeeze", made, net.store([0], np.int64))
    model = net.model(net("MatMul", last, net.weight(4, 3)))
    x = np.random.default_rng(0).normal(size=(5, 40, 3)).astype(np.float32)
    bench = Workbench(model, rt.open_data({"x": x, "labels": np.arange(40) % 3}, model), CPU)
    with processes("cpu") as group:
        settings = replace(TRAINING, batch_size=8)
        training = MaskedTraining(bench, settings, group)
        trainer = Trainer(training.module, model, training.task, settings, group)
        accuracy = trainer.score(training.task.validation).accuracy
        assert accuracy == pytest.approx(bench.evaluator().reference.accuracy)
        assert np.isfinite(training.run(0, lambda: None).loss)


def test_nothing_good_enough_is_a_negative_verdict() -> None:
    hopeless = settings("lottery", rule=Amount(1.0), iterations=1)
    with pytest.raises(NegativeVerdictError, match="no iteration is within"):
        prune_iteratively(BENCH, WEIGHTS, hopeless)


def test_merged_statistics_are_refused() -> None:
    net = Net(x=["n", 1, 6, 6])
    zeros, ones = net.store(np.zeros(8)), net.store(np.ones(8))
    hidden = net("BatchNormalization", net("Conv", "x", net.weight(8, 1, 6, 6)), ones, zeros, zeros, ones)
    model = net.model(net("Flatten", hidden))
    with pytest.raises(InputError, match="running statistics"):
        next(iterate(Workbench(model, DATA), chosen_weights(model), settings()))


def test_data_without_labels_and_quantised_weights_are_refused() -> None:
    silent = ArrayData("silent", DATA.arrays, None, len(DATA))
    with pytest.raises(InputError, match="no labels"):
        next(iterate(Workbench(MODEL, silent), WEIGHTS, settings()))
    net = Net(x=["n", 4])
    made = net("DequantizeLinear", net.store(np.ones((4, 3)), np.int8), net.store(0.1))
    model = net.model(net("MatMul", "x", made))
    data = ArrayData.in_memory("rows", {"x": np.ones((20, 4), np.float32)}, np.zeros(20, np.int64))
    with pytest.raises(InputError):
        next(iterate(Workbench(model, data), chosen_weights(model), settings()))
