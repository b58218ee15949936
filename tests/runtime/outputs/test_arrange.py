"""Rows of outputs, samples first."""

from __future__ import annotations

import numpy as np
import pytest

from redtest_onnx.runtime.outputs.arrange import rows_of
from redtest_onnx.runtime.outputs.kinds import JudgedTensor


@pytest.mark.parametrize("axis", [None, 1], ids=["values", "classes"])
def test_all_of_a_tensor_can_be_one_samples(axis: int | None) -> None:
    nodes = np.arange(12, dtype=np.float32).reshape(4, 3)
    tensor = JudgedTensor("nodes", "values" if axis is None else "classes", axis=axis, sample_axis=-1)
    rows = rows_of(tensor, nodes, size=1, count=1)
    assert rows is not None
    np.testing.assert_array_equal(rows, nodes[None])


def test_samples_in_the_second_axis_come_first() -> None:
    steps = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
    rows = rows_of(JudgedTensor("steps", "values", sample_axis=1), steps, size=2, count=1)
    assert rows is not None
    np.testing.assert_array_equal(rows, steps.transpose(1, 0, 2)[:1])
