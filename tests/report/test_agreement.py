"""Rows that say how well outputs agree."""

import pytest

from redtest_onnx.metrics.agreement.intervals import share_interval
from redtest_onnx.metrics.agreement.summary import Agreement, OutputAgreement
from redtest_onnx.report.agreement import agreement_notes, agreement_rows
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
    rows = agreement_rows(Agreement(None, 0.5, 0.5, parts), 32)
    assert len(rows) == 5
    assert rows[-1][0] == f"{len(values) - 4} more outputs (see --json)"
    cell = rows[-1][2]
    assert isinstance(cell, Shown)
    assert cell.text == said


@pytest.mark.parametrize(("samples", "said"), [(3, "43.9 to 100.0%"), (40, "91.2 to 100.0%"), (4000, None)])
def test_what_few_samples_tell_is_said(samples: int, said: str | None) -> None:
    part = OutputAgreement("y", "classes", 1, "same top class", 1.0, interval=share_interval(1.0, samples))
    rows = agreement_rows(Agreement(1.0, 1.0, 0.0, (part,)), samples)
    assert rows[0][0] == "same answer as the original"
    found = {str(row[0]): row[2] for row in rows[1:]}
    assert found == ({} if said is None else {f"95% interval on {samples} samples": said})


def test_scores_that_stand_in_for_one_answer_are_said_with_it() -> None:
    measure = "1 - relative squared error of the scores (the original gives one class for everything)"
    part = OutputAgreement("y", "classes", 1, measure, 0.25, details={"top_class": 1.0})
    rows = agreement_rows(Agreement(1.0, 1.0, 0.0, (part,)), 32)
    assert [row[0] for row in rows] == ["agreement of scores", "same answer as the original"]
    assert agreement_notes([part]) == [f"Output y: judged by {measure}."]
