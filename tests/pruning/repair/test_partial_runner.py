from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import redtest_onnx as rt
from redtest_onnx.data.splits import sample_indices
from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.graph.probe.taps import expose
from redtest_onnx.pruning.repair import partial_runner
from redtest_onnx.pruning.repair.partial_runner import PartialRunner, samples_per_fit, spread
from redtest_onnx.runtime.session import Device, RunOptions, Session
from redtest_onnx.runtime.workbench import Workbench

MODELS = Path(__file__).parents[3] / "models"
CPU = RunOptions(device="cpu", threads=1)


def replay(name: str, **options: int) -> tuple[PartialRunner, rt.Model, rt.Dataset]:
    model = rt.load(MODELS / f"{name}_digits.onnx")
    data = rt.open_data(MODELS / "digits.npz", model)
    return (
        PartialRunner(Workbench(model, data, CPU), sample_indices(data, 20, 0), size=8, **options),
        model,
        data,
    )


def advance(source: PartialRunner, node: int) -> None:
    assert list(source.values((), advance_to=node)) == [{}] * len(source.counts)


def collect(source: PartialRunner, name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    return np.concatenate(
        [values[name][:count] for values, count in zip(source.values([name]), source.counts, strict=True)]
    )


@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_values_are_those_of_a_whole_run_wherever_it_stands(name: str) -> None:
    source, model, data = replay(name)
    index = GraphIndex(model.graph)
    middle = len(index.nodes) // 2
    behind = next(o for node in index.nodes[middle:] for o in node.output if o in index.activations)
    names = [behind, model.outputs[0].name]
    expected = Session(expose(model, names), CPU).run(data.inputs(sample_indices(data, 20, 0)))
    for position in (0, middle // 2, middle, middle - 5):
        advance(source, position)
        for wanted in names:
            np.testing.assert_allclose(collect(source, wanted), expected[wanted], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet", "vgg"])
def test_values_on_the_way_are_those_from_kept_tensors_bit_by_bit(name: str) -> None:
    # ONNX Runtime rounds otherwise where it may fuse operators across the tensors that are kept.
    kept, model, _ = replay(name)
    passing = replay(name)[0]
    index = GraphIndex(model.graph)
    outputs = [o for node in index.nodes for o in node.output if o in index.activations]
    for node in (9, len(index.nodes) // 3, len(index.nodes) // 2):
        names = [o for o in outputs if index.producer[o] >= node][:7:3]
        assert len(names) == 3
        advance(kept, node)
        expected, found = list(kept.values(names)), list(passing.values(names, advance_to=node))
        assert passing._position == kept._position == node
        for one, other in zip(expected, found, strict=True):
            for wanted in names:
                np.testing.assert_array_equal(one[wanted], other[wanted])


def test_what_lies_in_front_of_the_kept_tensors_is_computed_from_the_inputs() -> None:
    source, model, _ = replay("vgg")
    early = model.graph.node[0].output[0]
    expected = collect(source, early)
    advance(source, 12)
    np.testing.assert_array_equal(collect(source, early), expected)


def test_inputs_can_be_asked_for() -> None:
    source, model, data = replay("vgg")
    name = model.inputs[0].name
    np.testing.assert_array_equal(collect(source, name), data.inputs(sample_indices(data, 20, 0))[name])


def test_tensors_beyond_the_limit_are_not_kept() -> None:
    source, model, _ = replay("vgg", limit=1000)
    advance(source, 6)
    assert source._position == 0
    name = model.outputs[0].name
    assert [len(run[name]) for run in source.values([name], advance_to=6)] == [8, 8, 4]
    assert source._position == 0
    assert len(collect(source, model.outputs[0].name)) == 20


def test_tensors_in_the_middle_can_be_given() -> None:
    source, model, data = replay("resnet")
    index = GraphIndex(model.graph)
    middle = next(o for node in index.nodes[40:] for o in node.output if node.op_type == "Relu")
    feeds = data.inputs(sample_indices(data, 20, 0)[:8])
    inner = Session(expose(model, [middle]), CPU).run(feeds)[middle]
    name = model.outputs[0].name
    part = source.part([name], {middle: inner})
    np.testing.assert_allclose(
        part(0, {middle: inner})[name], Session(model, CPU).run(feeds)[name], rtol=1e-4
    )
    assert not np.allclose(part(0, {middle: inner * 2})[name], Session(model, CPU).run(feeds)[name])


@pytest.mark.parametrize(
    ("device", "threads", "fed", "runs", "each", "beside"),
    [
        ("cpu", 2, [1 << 21], 8, 1, 2),
        ("cpu", 1, [1 << 21], 8, 1, 1),
        ("cpu", 2, [1 << 21, None], 8, 2, 1),  # of unknown size
        ("cpu", 2, [1 << 24, (1 << 24) + 1], 8, 2, 1),  # too large for two at a time
        ("cpu", 2, [1 << 19, 1 << 19], 8, 1, 1),  # over before another thread has taken it over
        ("cpu", 8, [1 << 20], 4, 1, 1),  # fewer than threads: small ones in turn,
        ("cpu", 8, [1 << 22], 4, 8, 1),  # others on all threads
    ],
)
def test_runs_are_spread_over_threads_by_their_size(
    device: Device, threads: int, fed: list[int | None], runs: int, each: int, beside: int
) -> None:
    options, workers = spread(RunOptions(device, threads), fed, runs)
    assert (options.threads, workers) == (each, beside)


@pytest.mark.parametrize("name", ["resnet", "vgg"])
def test_values_are_the_same_whichever_thread_computes_them(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partial_runner, "_TINY_RUN", 0)

    def values(threads: int) -> list[np.ndarray]:
        model = rt.load(MODELS / f"{name}_digits.onnx")
        data = rt.open_data(MODELS / "digits.npz", model)
        bench = Workbench(model, data, RunOptions("cpu", threads))
        source = PartialRunner(bench, sample_indices(data, 320, 0), size=40)
        advance(source, 4)
        part = source.part([model.outputs[0].name])
        assert part.workers == threads
        return [run[model.outputs[0].name] for run in source.values([model.outputs[0].name])]

    for one, other in zip(values(1), values(3), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("limit", [1 << 29, 1000])
def test_a_model_follows_another_up_to_where_they_part(limit: int) -> None:
    """What is computed behind is the same, from tensors that the other one has computed."""
    source, model, _ = replay("resnet")
    follower = replay("resnet", limit=limit)[0]
    name = model.outputs[0].name
    expected = collect(follower, name)
    ran: list[int] = []
    part = follower._data.inputs
    follower.follow(source, 21, 21)
    follower._data = SimpleNamespace(inputs=lambda chosen: ran.append(1) or part(chosen))  # type: ignore
    np.testing.assert_allclose(collect(follower, name), expected, rtol=1e-4, atol=1e-5)
    assert source._position == follower._position
    assert follower._position == (21 if limit > 1000 else 0)
    assert bool(ran) is (limit == 1000)


@pytest.mark.parametrize(
    ("batch", "held", "masked", "expected"),
    [
        (1, 1 << 20, False, 64),
        (2, 1 << 26, False, 4),
        (1, 1 << 30, False, 1),
        (1, 1 << 20, True, 64),
        (1, 1 << 25, True, 64),  # whatever texts are padded to
        (1, 1 << 26, True, 32),
    ],
)
def test_runs_of_fits_are_as_large_as_memory_allows(
    batch: int, held: int, masked: bool, expected: int
) -> None:
    bench: Any = SimpleNamespace(
        mask=object() if masked else None,
        cost=SimpleNamespace(peak_activation_bytes=held),
        resolved=SimpleNamespace(batch=batch),
    )
    assert samples_per_fit(bench) == expected


def test_a_part_computes_from_what_was_kept_when_it_was_made() -> None:
    source, model, _ = replay("vgg")
    name = model.outputs[0].name
    expected = collect(source, name)
    advance(source, 6)
    part = source.part([name])
    advance(source, 12)
    found = np.concatenate([part(run)[name][:count] for run, count in enumerate(source.counts)])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
