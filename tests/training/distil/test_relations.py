"""Relations between samples: what the loss of embeddings weighs beside their directions."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="distillation needs PyTorch")

from redtest_onnx.training.distil.loss import DistilLoss, DistilTarget  # noqa: E402
from redtest_onnx.training.distil.relations import Relations, pooled  # noqa: E402


def vectors(count: int, seed: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(count, 6)).astype(np.float32))


def reference(relations: Relations, student: torch.Tensor, teacher: torch.Tensor, own: list[int]) -> float:
    """The same by loops, float64."""
    bank = relations.bank.double().numpy()
    total = 0.0
    for k, sample in enumerate(own):
        others = [m for m, number in enumerate(relations.samples.tolist()) if number != sample]
        rows = []
        for side in (teacher, student):
            vector = side[k].double().numpy()
            scores = bank[others] @ vector / np.linalg.norm(vector) / relations.temperature
            weights = np.exp(scores - scores.max())
            rows.append(weights / weights.sum())
        total += float((rows[0] * np.log(rows[0] / rows[1])).sum())
    return total / len(own)


def test_the_divergence_is_that_of_the_softmax_over_all_other_samples() -> None:
    numbers = torch.tensor([4, 0, 2, 9, 7, 5, 1])
    relations = Relations.of(3 * vectors(7, 0), numbers)
    assert relations is not None
    teacher, student, own = vectors(3, 1), vectors(3, 2), [9, 3, 4]
    expected = reference(relations, student, teacher, own)
    found = relations.divergence(student, teacher, torch.tensor(own))
    assert float(found) == pytest.approx(expected, rel=1e-4)
    alone = reference(relations, student, teacher, [-1, -1, -1])
    assert float(relations.divergence(student, teacher)) == pytest.approx(alone, rel=1e-4)
    assert alone != pytest.approx(expected, rel=1e-2)


def test_it_is_zero_for_the_original_and_the_same_for_longer_vectors() -> None:
    relations = Relations.of(vectors(9, 0), torch.arange(9))
    assert relations is not None
    own, some = torch.arange(4), relations.bank[:4]
    assert float(relations.divergence(some, some, own)) == pytest.approx(0, abs=1e-6)
    student = vectors(4, 3)
    found = [float(relations.divergence(scale * student, some, own)) for scale in (1.0, 8.0)]
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_the_temperature_follows_the_spread_of_the_cosines() -> None:
    wide = vectors(50, 0)
    narrow = 10 + wide  # all in a narrow cone
    found = [Relations.of(side, torch.arange(50)) for side in (wide, narrow)]
    assert found[0] is not None
    assert found[1] is not None
    cosines = found[1].bank.double() @ found[1].bank.double().T
    assert found[1].temperature == pytest.approx(
        float(0.5 * cosines.var(1, correction=0).mean().sqrt()), rel=1e-3
    )
    assert found[1].temperature < 0.1 * found[0].temperature


@pytest.mark.parametrize("bank", [vectors(2, 0), torch.ones(20, 6)])
def test_too_few_or_equal_vectors_have_no_relations(bank: torch.Tensor) -> None:
    assert Relations.of(bank, torch.arange(len(bank))) is None


def test_states_of_tokens_are_pooled_over_positions_that_count() -> None:
    states = torch.arange(24, dtype=torch.float32).reshape(2, 4, 3)
    counted = torch.tensor([[True, True, False, False], [False, True, True, True]])
    found = pooled(states, counted)
    torch.testing.assert_close(found["mean"], torch.stack([states[0, :2].mean(0), states[1, 1:].mean(0)]))
    torch.testing.assert_close(found["first"], torch.stack([states[0, 0], states[1, 1]]))
    assert pooled(states, None) == {}
    assert list(pooled(states[:, 0], counted)) == ["vector"]


@pytest.mark.parametrize(("kind", "dims"), [("embedding", 2), ("states", 3)])
def test_outputs_that_are_embeddings_are_compared_between_samples(kind: str, dims: int) -> None:
    teacher = vectors(8, 0) if dims == 2 else vectors(40, 0).reshape(8, 5, 6)
    student = teacher + 0.3 * torch.roll(teacher, 1, 0)
    counted = None if dims == 2 else torch.ones(8, 5, dtype=torch.bool)
    target = DistilTarget("out", kind)  # type: ignore[arg-type]
    plain = DistilLoss([target], 2.0, 1.0)
    own = torch.arange(8)
    banks = {("out", k): Relations.of(v, own) for k, v in pooled(teacher, counted).items()}
    related = DistilLoss([target], 2.0, 1.0, {k: v for k, v in banks.items() if v is not None})
    sides = {"out": student}, {"out": teacher}
    between = [
        v.divergence(pooled(student, counted)[k[1]], pooled(teacher, counted)[k[1]], own)
        for k, v in related.relations.items()
    ]
    expected = plain(*sides, counted, own) + torch.stack(between).mean()
    assert related.related == ("out",)
    torch.testing.assert_close(related(*sides, counted, own), expected)
