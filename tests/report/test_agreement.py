"""Rows that say how well outputs agree."""

import pytest

from redtest_onnx.metrics.agreement.summary import Agreement, OutputAgreement
from redtest_onnx.report.agreement import agreement_rows
from redtest_onnx.report.table import Shown


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([0.0] * 12, "0.00% each"),
        ([0.0, 0.0, 0.0, 0.0, 0.25, 1.0], "25.00% to 100.00%"),
        ([1.0, 0.5, 0.5, 0.5, 0.5, 0.5], "50.00% to 100.00%"),
    ],
)
def test_outputs_that_are_not_shown_are_said_to_agree_as_they_do(values: list[float], said: str) -> None:
    parts = tuple(
        OutputAgreement(f"out{k}", "values", None, "share explained", value) for k, value in enumerate(values)
    )
    rows = agreement_rows(Agreement(None, 0.5, 0.5, parts))
    assert len(rows) == 5
    assert rows[-1][0] == f"{len(values) - 4} more outputs (see --json)"
    cell = rows[-1][2]
    assert isinstance(cell, Shown)
    assert cell.text == said
