"""What training minimises."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="training needs PyTorch")

from output_models import CASES  # noqa: E402

from redtest_onnx.training.objective import TrainingObjective, make_objective  # noqa: E402
from redtest_onnx.training.settings import TrainingSettings  # noqa: E402


@pytest.mark.parametrize(
    ("wanted", "error"), [([[4.0]], 1 / 16), ([[4.0], [2.0]], 0.5), ([[4.0, 2.0]], 0.5), ([[0.0]], 1e12)]
)
def test_the_error_of_one_number_is_held_against_itself(wanted: list[list[float]], error: float) -> None:
    objective = TrainingObjective(("y",), False, None, (), False, True, TrainingSettings())
    theirs = torch.tensor(wanted)
    ours = theirs.clone()
    ours[0, 0] += 1
    found = objective._relative_error("y", ours, theirs, None)
    assert float(found) == pytest.approx(error)


@pytest.mark.parametrize(
    ("name", "behind"), [("experts inside", True), ("queries chosen inside", True), ("best boxes", False)]
)
def test_layers_behind_a_choice_learn_from_the_output(name: str, behind: bool) -> None:
    student, teacher = (CASES[name].build(seed) for seed in (0, 1))
    objective = make_objective(student, TrainingSettings(), labelled=False, teacher=teacher, features=())
    assert (objective.scores == ("y",)) is behind
