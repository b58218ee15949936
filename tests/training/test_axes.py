"""Samples that are not in front: time-first networks, and graphs of which a run takes one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from nets import Net

torch = pytest.importorskip("torch")

import redtest_onnx as rt  # noqa: E402
from redtest_onnx.bridge import to_torch  # noqa: E402
from redtest_onnx.data.arrays import ArrayData, InputArray  # noqa: E402
from redtest_onnx.graph.linear_operators import linear_operators  # noqa: E402
from redtest_onnx.graph.masks import Mask  # noqa: E402
from redtest_onnx.runtime.session import Session  # noqa: E402
from redtest_onnx.runtime.shapes import WHOLE  # noqa: E402
from redtest_onnx.training.augment import image_inputs  # noqa: E402
from redtest_onnx.training.axes import SampleAxes, pooled_variance  # noqa: E402
from redtest_onnx.training.batches import Samples  # noqa: E402
from redtest_onnx.training.distil.whitening import SeenValues  # noqa: E402
from redtest_onnx.training.finetune import FineTuning, finetune  # noqa: E402
from redtest_onnx.training.positions import counted_positions, positional_tensors  # noqa: E402
from redtest_onnx.training.settings import TrainingSettings  # noqa: E402
from redtest_onnx.training.taught import cache_sources  # noqa: E402

CPU = rt.RunOptions("cpu", 1)
STEPS, WIDTH, STATES = 6, 3, 4


def recurrent(batch: int | str, first: bool, output: str = "steps", states: bool = False) -> rt.Model:
    """An LSTM and two linear operators on [steps, n, width], or behind a turn on [n, steps, width]."""
    net = Net(x=[STEPS, batch, WIDTH] if first else [batch, STEPS, WIDTH])
    x = "x" if first else net("Transpose", "x", perm=[1, 0, 2])
    weights = [net.weight(1, 4 * STATES, WIDTH), net.weight(1, 4 * STATES, STATES), net.weight(1, 8 * STATES)]
    given = ["", *(net.add_input(name, 1, [1, batch, STATES]) for name in ("h0", "c0"))] if states else []
    made = net("LSTM", x, *weights, *given, outputs=3, hidden_size=STATES).removesuffix("_0")
    y = net("Squeeze", f"{made}_0", net.store([1], np.int64))
    y = net("MatMul", net("Tanh", net("MatMul", y, net.weight(STATES, STATES))), net.weight(STATES, 3))
    if output == "last":
        y = net("ReduceSum", y, net.store([0], np.int64), keepdims=0)
    elif not first:
        y = net("Transpose", y, perm=[1, 0, 2])
    if output == "classes":
        y = net("Softmax", y, axis=-1)
    last = [net("Identity", f"{made}_{k}", name=name) for k, name in ((1, "hn"), (2, "cn"))] if states else []
    return net.model(y, *last)


def disturbed(model: rt.Model) -> rt.Model:
    """The model with other weights in its matrices."""
    proto = onnx.ModelProto.FromString(model.proto.SerializeToString())
    for stored in proto.graph.initializer:
        if len(stored.dims) == 2:
            stored.raw_data = (0.6 * model.value(stored)).astype(np.float32).tobytes()
    return rt.Model(proto)


def series(count: int) -> np.ndarray:
    """Random inputs [count, steps, width]."""
    return np.random.default_rng(0).normal(size=(count, STEPS, WIDTH)).astype(np.float32)


def taught(
    model: rt.Model, arrays: dict[str, np.ndarray], optimizer: str, features: float = 0.1
) -> FineTuning:
    data = rt.open_data(arrays, model)
    settings = TrainingSettings(
        epochs=2, batch_size=8, optimizer=optimizer, feature_weight=features, lr=1e-3, warmup=0.0
    )
    return finetune(rt.Workbench(disturbed(model), data, CPU), settings, teacher=model)


@pytest.mark.parametrize("optimizer", ["sgd", "whitened"])
@pytest.mark.parametrize("batch", ["n", 1, 4])
@pytest.mark.parametrize("output", ["steps", "last", "classes"])
def test_time_first_trains_as_samples_first(batch: int | str, output: str, optimizer: str) -> None:
    x, weight = series(30), 0.0 if batch == 4 else 0.1  # tensors inside keep what fills up a fixed batch
    one = taught(recurrent(batch, first=False, output=output), {"x": x}, optimizer, weight)
    other = taught(recurrent(batch, first=True, output=output), {"x": x.swapaxes(0, 1)}, optimizer, weight)
    assert other.start.loss == pytest.approx(one.start.loss, rel=1e-4)
    near = 1e-3 if optimizer == "sgd" else 5e-2  # second moments are of other rows, which chance draws
    for ours, theirs in zip(one.history, other.history, strict=True):
        for what in ("train_loss", "validation_loss"):
            assert theirs[what] == pytest.approx(ours[what], rel=near), what


@pytest.mark.parametrize("batch", ["n", 1])
def test_states_are_cut_along_their_own_axis(batch: int | str) -> None:
    model, x = recurrent(batch, first=True, states=True), series(24)
    h, c = np.random.default_rng(1).normal(size=(2, 1, 24, STATES)).astype(np.float32)
    found = taught(model, {"x": x.swapaxes(0, 1), "h0": h, "c0": c}, "sgd")
    assert found.history[-1]["validation_loss"] < found.start.loss


def graph_model(output: str = "graph", classes: int = 1, softmax: int | None = None) -> rt.Model:
    """Scores of a graph, or of each of its nodes, of nodes [n, 3] and edges [2, e]."""
    net = Net(nodes=["n", 3])
    edges = net.add_input("edges", onnx.TensorProto.INT64, [2, "e"])
    x = net("Relu", net("Gemm", "nodes", net.weight(3, 6), net.weight(6)))
    for _ in range(2):
        ends = [net("Gather", edges, net.store(k, np.int64), axis=0) for k in range(2)]
        sent = net("Gather", net("MatMul", x, net.weight(6, 6)), ends[0], axis=0)
        zeros = net("Mul", x, net.store(0.0))
        columns = net("Unsqueeze", ends[1], net.store([1], np.int64))
        columns = net("Expand", columns, net.store([1, 6], np.int64))
        x = net("Tanh", net("ScatterElements", zeros, columns, sent, axis=0, reduction="add"))
    if output == "graph":
        x = net("ReduceMean", x, axes=[0], keepdims=1)
    scores = net("Gemm", x, net.weight(6, classes), net.weight(classes))
    return net.model(scores if softmax is None else net("Softmax", scores, axis=softmax))


def graphs(folder: Path, count: int, labels: bool = False) -> Path:
    """Graphs of 3 to 9 nodes; the class says whether the nodes' first values are above 0 on average."""
    rng = np.random.default_rng(0)
    for k in range(count):
        size = int(rng.integers(3, 10))
        nodes = rng.normal(size=(size, 3)).astype(np.float32) + np.float32(k % 2 - 0.5)
        arrays = {"nodes": nodes, "edges": rng.integers(0, size, (2, 2 * size))}
        np.savez(folder / f"{k:03}.npz", **arrays, **({"labels": np.array(k % 2)} if labels else {}))
    return folder


@pytest.mark.parametrize("output", ["graph", "node"])
def test_the_loss_of_a_step_is_the_mean_over_its_graphs(output: str, tmp_path: Path) -> None:
    teacher = graph_model(output)
    model = disturbed(teacher)
    data = rt.open_data(graphs(tmp_path, 22), model)
    held = rt.open_data(tmp_path, model)
    settings = TrainingSettings(epochs=1, batch_size=20, optimizer="sgd", lr=1e-12)
    found = finetune(rt.Workbench(model, data, CPU), settings, teacher=teacher)
    name, errors, answers = model.outputs[0].name, [], []
    for k in range(len(held)):
        feeds = held.inputs([k])
        ours, theirs = (Session(m, CPU).run(feeds)[name] for m in (model, teacher))
        errors.append(np.mean((ours - theirs) ** 2))
        answers.append(theirs.reshape(-1))
    # Training has 20 of the graphs, validation 2: what both together are is known.
    record = found.history[0]
    total = (20 * record["train_loss"] + 2 * record["validation_loss"]) / 22
    assert total == pytest.approx(np.mean(errors) / np.var(np.concatenate(answers)), rel=0.2)
    assert record["validation_loss"] == pytest.approx(found.start.loss, rel=1e-5)


def test_classes_of_nodes_are_found_from_both_ends(tmp_path: Path) -> None:
    losses = []
    for axis in (1, -1):
        model = graph_model("node", classes=3, softmax=axis)
        data = rt.open_data(graphs(tmp_path, 20), model)
        settings = TrainingSettings(epochs=1, optimizer="sgd")
        bench = rt.Workbench(disturbed(model), data, CPU)
        losses.append(finetune(bench, settings, teacher=model).start.loss)
    assert losses[0] == losses[1]


@pytest.mark.parametrize("optimizer", ["sgd", "whitened"])
@pytest.mark.parametrize("synthetic", [True, False])
def test_graphs_of_different_sizes_are_learnt(synthetic: bool, optimizer: str, tmp_path: Path) -> None:
    teacher = graph_model()
    model = disturbed(teacher)
    data = rt.open_data(None if synthetic else graphs(tmp_path, 40), model, count=40)
    settings = TrainingSettings(epochs=6, batch_size=8, optimizer=optimizer, lr=3e-3)
    found = finetune(rt.Workbench(model, data, CPU), settings, teacher=teacher)
    assert found.start.loss < 10  # the single number of a graph has no variance of its own
    assert found.history[-1]["validation_loss"] < found.start.loss


def test_labels_of_graphs_teach_a_classifier(tmp_path: Path) -> None:
    model = graph_model(classes=2)
    bench = rt.Workbench(model, rt.open_data(graphs(tmp_path, 80, labels=True), model), CPU)
    found = finetune(bench, TrainingSettings(epochs=8, batch_size=8, lr=0.02))
    assert found.validated.after == found.validated.after_torch
    assert found.validated.after is not None
    assert found.validated.after > 0.8


def test_one_label_per_graph_is_no_label_per_node(tmp_path: Path) -> None:
    model = graph_model("node", classes=2)
    bench = rt.Workbench(model, rt.open_data(graphs(tmp_path, 12, labels=True), model), CPU)
    with pytest.raises(rt.InputError, match="labels are one class per sample"):
        finetune(bench, TrainingSettings(epochs=1))


def test_one_label_per_series_is_no_label_per_step() -> None:
    model = recurrent("n", first=True)
    data = rt.open_data({"x": series(12).swapaxes(0, 1), "labels": np.arange(12) % 3}, model)
    with pytest.raises(rt.InputError, match="labels are one class per sample"):
        finetune(rt.Workbench(model, data, CPU), TrainingSettings(epochs=1))


@pytest.mark.parametrize("batch", ["n", 1, 4])
def test_labels_of_series_teach_a_classifier(batch: int | str) -> None:
    model, x = recurrent(batch, first=True, output="last"), series(60)
    labels = np.arange(60) % 3
    x[..., 0] += labels[:, None] * 2 - 2
    data = rt.open_data({"x": x.swapaxes(0, 1), "labels": labels}, model)
    found = finetune(rt.Workbench(model, data, CPU), TrainingSettings(epochs=15, batch_size=8))
    assert found.validated.after == found.validated.after_torch
    assert found.validated.after is not None
    assert found.validated.after > 0.8


def test_statistics_of_one_value_are_refused() -> None:
    net = Net(x=[1, 6])
    hidden = net("MatMul", "x", net.weight(6, 8))
    statistics = net.store(np.zeros(8)), net.store(np.ones(8))
    hidden = net("BatchNormalization", hidden, net.weight(8), net.weight(8), *statistics)
    model = net.model(net("MatMul", hidden, net.weight(8, 3)))
    data = rt.open_data({"x": np.zeros((20, 6), np.float32), "labels": np.arange(20) % 3}, model)
    with pytest.raises(rt.InputError, match="sees one value of each channel"):
        finetune(rt.Workbench(model, data, CPU), TrainingSettings(epochs=1))
    frozen = TrainingSettings(epochs=1, batch_norm="frozen")
    assert finetune(rt.Workbench(model, data, CPU), frozen).history


def test_a_teacher_may_have_another_batch_and_no_other_steps() -> None:
    student = recurrent(4, first=True)
    assert cache_sources(recurrent(1, first=True), student) == {}
    net = Net(x=[STEPS + 1, 4, WIDTH])
    with pytest.raises(rt.InputError, match="the teacher takes 'x' as"):
        cache_sources(net.model(net("Identity", "x")), student)


def test_series_of_images_are_not_moved_like_images() -> None:
    net = Net(x=[STEPS, "n", 1, WIDTH])
    x = net("Squeeze", "x", net.store([2], np.int64))
    weights = [net.weight(1, 4 * STATES, WIDTH), net.weight(1, 4 * STATES, STATES)]
    net("LSTM", x, *weights, outputs=1, hidden_size=STATES)
    model = net.model(net.nodes[-1].output[0])
    with pytest.raises(rt.InputError, match="no input takes images"):
        image_inputs(model)


def test_positions_of_a_time_first_mask_are_turned() -> None:
    mask = {"mask": np.array([[1, 0, 1], [0, 0, 1]])}  # two steps of three samples
    turned = counted_positions(Mask("mask"), mask, SampleAxes({"mask": 1}))
    assert turned is not None
    assert turned.tolist() == [[True, False], [True, True], [True, True]]
    assert counted_positions(Mask("mask"), mask, SampleAxes({"mask": None})) is None


def test_positions_are_found_in_time_first_tensors() -> None:
    net = Net(x=[STEPS, "n", WIDTH])
    mask = net.add_input("mask", onnx.TensorProto.INT64, [STEPS, "n"])
    wide = net("Unsqueeze", net("Cast", mask, to=onnx.TensorProto.FLOAT), net.store([2], np.int64))
    model = net.model(net("Mul", net("MatMul", "x", net.weight(WIDTH, 2)), wide))
    ones = np.ones((STEPS, 9), np.int64)
    data = ArrayData(
        "series",
        {
            "x": InputArray(series(9).swapaxes(0, 1), 1, np.dtype(np.float32)),
            "mask": InputArray(ones, 1, np.dtype(np.int64)),
        },
        None,
        9,
    )
    name = model.outputs[0].name
    axes = SampleAxes({"x": 1, "mask": 1}, {name: 1})
    samples = Samples(data, np.arange(9), 4, mask=Mask("mask"), axes=axes)
    assert positional_tensors(to_torch(model), (name,), samples) == {name}


def test_linear_operators_read_with_samples_in_front() -> None:
    model = recurrent("n", first=True)
    operator = linear_operators(model)[0]
    values = {operator.input: torch.zeros(STEPS, 2, STATES)}
    assert SeenValues(values).read_by(operator).shape == (STEPS, 2, STATES)
    axes = SampleAxes(tensors={operator.input: 1})
    assert SeenValues(values, axes=axes).read_by(operator).shape == (2, STEPS, STATES)


@pytest.mark.parametrize("samples", [0, 1, 2, 3, WHOLE])
@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1, -2])
def test_an_axis_is_found_again_once_samples_are_in_front(samples: int, axis: int) -> None:
    sizes = (2, 3, 5, 7)
    axes = SampleAxes(tensors={"t": samples} if samples else {})
    turned = axes.sample_first("t", torch.zeros(sizes))
    assert turned.shape[0] == (1 if samples == WHOLE else sizes[samples])
    assert turned.shape[axes.moved("t", axis, turned.dim())] == sizes[axis]


def test_a_pooled_variance_is_that_of_all_runs_together() -> None:
    runs = [torch.randn(k + 1, 4, generator=torch.Generator().manual_seed(k)) for k in range(5)]
    rows = np.concatenate([run.numpy() for run in runs])
    assert pooled_variance(runs) == pytest.approx(rows.var())
    assert pooled_variance(runs, 1) == pytest.approx(rows.var(axis=0).mean())
    ragged = [torch.arange(3.0)[None], torch.arange(5.0)[None]]
    assert pooled_variance(ragged, 1) == pytest.approx(np.var([0, 1, 2, 0, 1, 2, 3, 4]))
