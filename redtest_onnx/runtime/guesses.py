"""What to tell users about synthetic inputs whose sizes are guesses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redtest_onnx.data.dataset import Dataset
from redtest_onnx.data.synthetic import Synthetic
from redtest_onnx.graph.shapes import Shape

if TYPE_CHECKING:
    from redtest_onnx.runtime.workbench import Workbench


def guessed_sizes(data: Dataset) -> dict[str, Shape]:
    """Inputs whose sizes are a guess, with these sizes for one sample; nothing for real data."""
    return dict(data.guessed_sizes) if isinstance(data, Synthetic) else {}


def may_be_ours(bench: Workbench) -> bool:
    """Whether a failing run may be the fault of synthetic inputs: sizes or integers that are guesses."""
    if not isinstance(bench.data, Synthetic):
        return False
    integers = any(spec.numpy_dtype.kind in "iu" for spec in bench.model.inputs)
    return integers or bool(bench.data.guessed_sizes)


def sizes_note(data: Dataset) -> str | None:
    """What stands beside numbers that depend on guessed sizes; None where nothing is a guess."""
    found = [f"{name} {'x'.join(map(str, sizes))}" for name, sizes in guessed_sizes(data).items()]
    return f"at {', '.join(found)}" if found else None


def shape_hint(bench: Workbench) -> str:
    """The options that give other sizes, ready to be changed and pasted."""
    guesses = guessed_sizes(bench.data)
    names = guesses or {spec.name: () for spec in bench.model.inputs}
    parts = []
    for spec in bench.model.inputs:
        if spec.name in names:
            sizes = guesses.get(spec.name) or tuple(d if isinstance(d, int) else 1 for d in spec.shape or ())
            parts.append(f"--input-shape {spec.name}:{','.join(map(str, sizes))}")
    return " ".join(parts)
