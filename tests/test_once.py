"""Nothing about an unchanged graph is computed twice: `prune` is watched while it builds things."""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import onnx
import pytest

from redtest_onnx.cli.main import run
from redtest_onnx.graph import files, reduced, stored, tensors, validity, weights_file
from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.graph.model import Model
from redtest_onnx.layers import layer
from redtest_onnx.runtime import session, shapes, workbench

MODELS = Path(__file__).parents[1] / "models"
LARGEST_SESSIONS = 20


def watched(seen: list[Any], function: Callable[..., Any], key: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        seen.append(key(*args, **kwargs))
        return function(*args, **kwargs)

    return wrapper


def digest(graph: onnx.GraphProto) -> str:
    return hashlib.sha256(graph.SerializeToString(deterministic=True)).hexdigest()


@pytest.mark.parametrize("data", [False, True], ids=["synthetic", "data"])
def test_pruning_finds_every_fact_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bool) -> None:
    indices: list[str] = []
    resolved: list[str] = []
    inferred: list[str] = []
    layers: list[int] = []
    opened: list[str] = []
    written: list[int] = []
    copied: list[int] = []
    kept: dict[int, Model] = {}  # an id is given again once its model is gone
    build, start, write = GraphIndex.__init__, session.Session.__init__, files.write_serialised
    index = watched(indices, build, lambda self, graph, *_: digest(graph))
    monkeypatch.setattr(GraphIndex, "__init__", index)
    monkeypatch.setattr(
        session.Session, "__init__", watched(opened, start, lambda self, model, *_, **__: model.label)
    )
    copy = watched(copied, stored.loadable, lambda model: id(kept.setdefault(id(model), model)))
    for module in (session, validity):
        monkeypatch.setattr(module, "loadable", copy)
    monkeypatch.setattr(files, "write_serialised", watched(written, write, lambda model, target: id(model)))
    find = watched(layers, layer.find_layers, lambda index, *_: id(index))
    monkeypatch.setattr(workbench, "find_layers", find)
    resolve = watched(resolved, shapes.resolve_shapes, lambda model, *_: digest(model.graph))
    monkeypatch.setattr(workbench, "resolve_shapes", resolve)
    infer = watched(inferred, onnx.shape_inference.infer_shapes, lambda proto, **_: digest(proto.graph))
    monkeypatch.setattr(onnx.shape_inference, "infer_shapes", infer)
    command = ["prune", str(MODELS / "resnet_digits.onnx"), "--remove", "4", "-o", str(tmp_path / "o.onnx")]
    command += ["--data", str(MODELS / "digits.npz")] if data else ["--samples", "32", "--batches", "2"]
    assert run([*command, "--threads", "1", "-q"]) == 0
    # With data the plain model and the one that is repaired in place are graphs, too.
    for what, seen, count in (
        ("GraphIndex", indices, 4 if data else 2),
        ("shapes", resolved, 2),
        ("layers", layers, 2),
    ):
        assert len(seen) == len(set(seen)) == count, what
    assert Counter(inferred).most_common(1)[0][1] == 1  # per graph: one and two samples, and open sizes
    assert len(inferred) == 6
    assert len(opened) <= LARGEST_SESSIONS
    assert len(written) == 1  # for the file
    assert len({id(model.facts.get("loadable", model.path)) for model in kept.values()}) == len(set(copied))


def test_a_large_model_is_serialised_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As one of hundreds of MB: its weights are mapped from files, and serialised for the result alone.
    monkeypatch.setattr(weights_file, "_LARGE_MODEL", 1 << 10)
    monkeypatch.setattr(reduced, "_LARGE_WEIGHT", 1 << 10)
    monkeypatch.setattr(tensors, "LARGE_WEIGHT", 1 << 10)
    sizes: list[int] = []

    def watch(frame: FrameType, event: str, function: Any) -> None:
        called = getattr(function, "__name__", "") if event == "c_call" else ""
        if called in ("SerializeToString", "SerializePartialToString", "ByteSize"):
            message = function.__self__
            if isinstance(message, onnx.ModelProto):
                sizes.append(sum(len(tensor.raw_data) for tensor in message.graph.initializer))

    command = ["prune", str(MODELS / "resnet_digits.onnx"), "--remove", "4", "--repair", "none"]
    command += ["-o", str(tmp_path / "o.onnx"), "--samples", "32", "--batches", "2", "--threads", "1", "-q"]
    sys.setprofile(watch)
    try:
        assert run(command) == 0
    finally:
        sys.setprofile(None)
    whole = sum(len(tensor.raw_data) for tensor in onnx.load(tmp_path / "o.onnx").graph.initializer)
    assert sum(size > whole // 2 for size in sizes) == 1
