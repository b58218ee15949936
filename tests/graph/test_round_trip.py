"""Nothing is lost on the way through loading, surgery and saving when nothing is to be changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from google.protobuf.message import Message

import redtest_onnx as rt
from redtest_onnx.data.batching import leading_indices
from redtest_onnx.graph.signature import fixed_batch
from redtest_onnx.graph.surgery import rewritten
from redtest_onnx.runtime.session import Session

ROOT = Path(__file__).parents[2]
FILES = [
    *sorted((ROOT / "models").glob("*.onnx")),
    *sorted((ROOT / "tests" / "fixtures").rglob("*.onnx")),
    *sorted((ROOT.parent / "shared" / "models").rglob("*.onnx")),
]
CPU = rt.RunOptions("cpu", 1)


def differences(a: Message, b: Message, path: str = "") -> Iterator[str]:
    """Paths of the fields that differ, such as graph.node[3].name."""
    one, two = ({field.name: (field, value) for field, value in m.ListFields()} for m in (a, b))
    for name in one.keys() ^ two.keys():
        yield f"{path}.{name}"
    for name in one.keys() & two.keys():
        field, x = one[name]
        y: Any = two[name][1]
        pairs = list(zip(x, y, strict=False)) if field.is_repeated else [(x, y)]
        if field.is_repeated and len(x) != len(y):
            yield f"{path}.{name}: {len(x)} and {len(y)} entries"
        for k, (left, right) in enumerate(pairs):
            if isinstance(left, Message):
                yield from differences(left, right, f"{path}.{name}[{k}]")
            elif left != right and not (left != left and right != right):
                yield f"{path}.{name}[{k}]"


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k], equal_nan=True) for k in a)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_no_field_is_lost(path: Path, tmp_path: Path) -> None:
    original = onnx.load(path, load_external_data=False)
    model = rt.load(path)
    edited = rewritten(model, lambda graph: None)
    assert not list(differences(original, edited.proto))
    saved = rt.load(rt.save(edited, tmp_path / "copy.onnx").path or "")
    assert not list(differences(original, saved.proto))
    feeds = rt.open_data(None, model).inputs(leading_indices(fixed_batch(model) or 2, 2))
    assert same(Session(model, CPU).run(feeds), Session(saved, CPU).run(feeds))


def test_a_difference_is_found() -> None:
    one = onnx.load(FILES[0])
    two = onnx.load(FILES[0])
    two.graph.node[3].name = "other"
    two.graph.node[0].doc_string = "new"
    assert sorted(differences(one, two)) == [".graph[0].node[0].doc_string", ".graph[0].node[3].name[0]"]
