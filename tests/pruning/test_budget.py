"""What limits a pruning, and the words for where nothing can go."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from criterion_contexts import criterion_context

import redtest_onnx as rt
from redtest_onnx.pruning.budget import Budget, make_plan
from redtest_onnx.pruning.criteria.base import CriterionContext


def undefined(*layers: int) -> CriterionContext:
    """The VGG-like network, some of whose layers have no similarity to any other."""
    context = criterion_context("vgg", 36)
    similarity = context.analysis.similarity.copy()
    similarity[list(layers)] = similarity[:, list(layers)] = np.nan
    return replace(context, analysis=replace(context.analysis, similarity=similarity))


@pytest.mark.parametrize(("layers", "words"), [((0,), "1 layer"), ((0, 1), "2 layers")])
def test_layers_without_a_similarity_are_counted(layers: tuple[int, ...], words: str) -> None:
    context = undefined(*layers)
    count = len(context.analysis.layers)
    with pytest.raises(rt.NegativeVerdictError) as error:
        make_plan(context, Budget(remove=count), "redtest-adjacent")
    assert f"similarity is undefined for {words}, " in (error.value.hint or "")
    with pytest.raises(rt.NegativeVerdictError) as error:
        make_plan(context, Budget(remove=count), "tail")
    assert "undefined" not in (error.value.hint or "")


def test_one_layer_too_many_is_said_in_the_singular() -> None:
    context = criterion_context("vgg", 36)
    nothing = replace(context, allowed=lambda layer: False)
    for count, words in ((1, "1 layer can't"), (2, "2 layers can't")):
        with pytest.raises(rt.NegativeVerdictError, match=words):
            make_plan(nothing, Budget(remove=count))


@pytest.mark.parametrize(
    ("remove", "count", "expected"), [(7, 3, [3, 2, 2]), (2, 4, [1, 0, 1, 0]), (6, 1, [6])]
)
def test_rounds_share_the_number_of_layers(remove: int, count: int, expected: list[int]) -> None:
    assert [part.remove for part in Budget(remove=remove).rounds(count)] == expected


def test_rounds_come_to_the_targets_together() -> None:
    parts = Budget(targets=(("params", 0.5), ("macs", 0.8))).rounds(3)
    for place, share in enumerate((0.5, 0.8)):
        assert np.prod([part.targets[place][1] for part in parts]) == pytest.approx(share)
    assert [part.remove for part in parts] == [None] * 3


def test_a_threshold_takes_what_scores_exactly_so_high() -> None:
    context = criterion_context("vgg", 36)
    every = make_plan(context, Budget(threshold=-2.0), "redtest-adjacent").steps
    scores = sorted(step.score for step in every if step.score is not None)
    assert len(scores) > 2
    kept = make_plan(context, Budget(threshold=scores[1]), "redtest-adjacent").steps
    assert sorted(step.score for step in kept if step.score is not None) == scores[1:]
