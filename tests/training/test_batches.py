"""Batches are cut along the axes that hold the samples, and what is kept of them is what was read."""

from __future__ import annotations

import numpy as np
import pytest
from nets import Net

torch = pytest.importorskip("torch")

import redtest_onnx as rt  # noqa: E402
from redtest_onnx.bridge import to_torch  # noqa: E402
from redtest_onnx.training.axes import SampleAxes  # noqa: E402
from redtest_onnx.training.batches import Samples  # noqa: E402
from tests.training.test_axes import CPU, STATES, STEPS, WIDTH, recurrent  # noqa: E402


@pytest.mark.parametrize("limit", [1 << 20, 0], ids=["kept", "read again"])
@pytest.mark.parametrize("fixed", [None, 2])
def test_a_batch_has_the_values_of_its_samples(fixed: int | None, limit: int) -> None:
    model = recurrent(fixed or "n", first=True, states=True)
    ids = np.arange(10, dtype=np.float32)
    arrays = {
        "x": np.broadcast_to(ids[None, :, None], (STEPS, 10, WIDTH)).copy(),
        **{name: np.broadcast_to(ids[None, :, None], (1, 10, STATES)).copy() for name in ("h0", "c0")},
        "labels": np.arange(10),
    }
    axes = SampleAxes.of(rt.Workbench(model, data := rt.open_data(arrays, model), CPU))
    samples = Samples(data, np.arange(10), 4, fixed, limit=limit, axes=axes)
    for epoch in range(2):
        steps = list(samples.shuffled(0, epoch))
        assert [sum(map(len, runs)) for runs in steps] == [4, 4]
        runs = [batch for step in steps for batch in step] + list(samples.in_order())
        for batch in runs:
            assert batch.labels is not None
            assert len(batch) == len(batch.labels) == (fixed or len(batch))
            for name, value in batch.inputs.items():
                assert torch.equal(value[0, :, 0].long(), batch.labels), name
                assert value.shape[0] == (STEPS if name == "x" else 1)
        assert sum(batch.count for batch in samples.in_order()) == 10


def test_inputs_that_all_samples_share_are_handed_on_whole() -> None:
    net = Net(x=["n", 3], table=[5, 3])
    model = net.model(net("MatMul", "x", net("Transpose", net("MatMul", "table", net.weight(3, 3)))))
    axes = SampleAxes({"x": 0, "table": None})
    table = np.arange(15, dtype=np.float32).reshape(5, 3)
    x = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)

    class Shared:
        labelled = synthetic = False
        source = "shared"

        def __len__(self) -> int:
            return 20

        def inputs(self, indices: np.ndarray) -> dict[str, np.ndarray]:
            return {"x": x[indices], "table": table}

        def labels(self, indices: np.ndarray) -> None:
            return None

    samples = Samples(Shared(), np.arange(20), 4, 2, axes=axes)
    module = to_torch(model)
    for _ in range(2):
        for batch in next(samples.shuffled(0, 0)):
            assert batch.inputs["table"].shape == (5, 3)
            assert module(**batch.inputs).shape == (2, 5)


class Counted:
    """Samples of one size each, whose reads are counted; what they share changes after so many reads."""

    labelled = synthetic = False
    source = "counted"

    def __init__(self, changes: int = 1 << 30) -> None:
        self.reads, self._changes = 0, changes

    def __len__(self) -> int:
        return 12

    def inputs(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        self.reads += 1
        shared = np.full(3, float(self.reads >= self._changes), np.float32)
        return {"x": np.asarray(indices, np.float32)[:, None], "shared": shared}

    def labels(self, indices: np.ndarray) -> None:
        return None


def test_what_samples_share_is_kept_unless_it_changes() -> None:
    axes = SampleAxes({"x": 0, "shared": None})
    data = Counted()
    samples = Samples(data, np.arange(12), 4, axes=axes)
    for _ in range(2):
        assert all(not batch.inputs["shared"].any() for batch in samples.in_order())
    assert data.reads == 3
    changing = Samples(Counted(2), np.arange(12), 4, axes=axes)
    assert [bool(batch.inputs["shared"].any()) for batch in changing.in_order()] == [False, True, True]


@pytest.mark.parametrize(("limit", "reads"), [(1 << 20, 12), (0, 24), (6 * 16, 18)])
def test_samples_that_run_alone_are_kept_while_there_is_room(limit: int, reads: int) -> None:
    data = Counted()
    samples = Samples(
        data, np.arange(12), 4, 1, limit=limit, axes=SampleAxes({"x": None, "shared": None}, one=True)
    )
    for epoch in range(2):
        steps = list(samples.shuffled(0, epoch))
        assert [len(runs) for runs in steps] == [4, 4, 4]
        seen = [float(run.inputs["x"]) for runs in steps for run in runs]
        assert sorted(seen) == list(range(12))
    assert data.reads == reads


@pytest.mark.parametrize("limit", [1 << 20, 0], ids=["kept", "read again"])
def test_samples_of_other_sizes_are_read_one_run_at_a_time(limit: int) -> None:
    """Recordings, for a model whose batch is one: together they are no array."""

    class Recordings:
        labelled = synthetic = False
        source = "recordings"

        def __len__(self) -> int:
            return 8

        def inputs(self, indices: np.ndarray) -> dict[str, np.ndarray]:
            [k] = indices
            return {"x": np.full((1, 3 + k, 2), k, np.float32)}

        def labels(self, indices: np.ndarray) -> None:
            return None

    samples = Samples(Recordings(), np.arange(8), 4, 1, limit=limit)
    for epoch in range(2):
        runs = [run.inputs["x"] for step in samples.shuffled(0, epoch) for run in step]
        assert sorted(run.shape[1] for run in runs) == list(range(3, 11))
        assert all((run == run.shape[1] - 3).all() for run in runs)


def test_a_process_without_samples_gets_an_empty_batch() -> None:
    samples = Samples(Counted(), np.arange(2), 2, axes=SampleAxes({"x": 0, "shared": None}))
    assert [[len(batch) for batch in runs] for runs in samples.shuffled(0, 0, share=(2, 3))] == [[0]]
