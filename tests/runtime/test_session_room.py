"""Of a large model one session at a time is open, and the results are the same."""

from __future__ import annotations

from weakref import WeakSet

import pytest

import redtest_onnx as rt
from redtest_onnx.pruning.plan import Plan, Step
from redtest_onnx.pruning.prune import PruneSettings, prune
from redtest_onnx.runtime import session_room
from redtest_onnx.runtime.outputs.arrange import samples_per_run
from redtest_onnx.runtime.outputs.kinds import JudgedTensor, ModelOutput
from redtest_onnx.runtime.session import RunOptions, Session
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analyze import AnalysisSettings, analyze
from tests.decoders import fused_decoder

CPU = RunOptions("cpu", 1)


def pruned() -> tuple[float | None, float]:
    model = fused_decoder()
    bench = Workbench(model, rt.open_data(None, model, count=16), CPU)
    analysis = analyze(bench, AnalysisSettings(granularity="block", batches=1))
    block = next(layer for layer in bench.layers("block") if layer.removable)
    plan = Plan("test", bench.digest, (Step.of(block),))
    found = prune(bench, plan, analysis, PruneSettings(repair="none"))
    return found.agreement.value, found.agreement.relative_l2


def test_one_session_of_a_large_model_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = pruned()
    alive: WeakSet[Session] = WeakSet()
    most = 0
    create = Session.__init__

    def counted(self: Session, *args: object, **named: object) -> None:
        nonlocal most
        create(self, *args, **named)  # type: ignore[arg-type]
        alive.add(self)
        most = max(most, len(alive))

    monkeypatch.setattr(Session, "__init__", counted)
    monkeypatch.setattr(session_room, "LARGE", 0)
    assert pruned() == pytest.approx(expected, rel=1e-6)
    assert most == 1


def test_small_models_keep_their_sessions() -> None:
    model = fused_decoder(1)
    bench = Workbench(model, rt.open_data(None, model, count=4), CPU)
    session = bench.session()
    Session(model, CPU)
    assert bench.session() is session


def test_a_run_holds_few_samples_where_each_needs_much_memory() -> None:
    tensor = JudgedTensor("y", "values")
    outputs = (ModelOutput("y", "values", None, "a test", (tensor,)),)
    assert samples_per_run(outputs, {"y": (1, 10)}, 1) == 64
    assert samples_per_run(outputs, {"y": (1, 1 << 20)}, 1) == 16  # 4 MiB each, 64 MiB in all
    assert samples_per_run(outputs, {"y": (2, 1 << 20)}, 2) == 16
    assert samples_per_run(outputs, {"y": (1, 10)}, 1, 1 << 26) == 2  # activations of 128 MiB
    assert samples_per_run(outputs, {"y": (1, 10)}, 1, 1 << 40) == 1
    assert samples_per_run(outputs, {}, 1) == 64
