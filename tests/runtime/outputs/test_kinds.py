"""What outputs are, and that agreement means what it says for every kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from output_models import CASES, Graph, floats, samples

import redtest_onnx as rt
from redtest_onnx.data.dataset import Subset
from redtest_onnx.errors import InputError
from redtest_onnx.runtime.outputs.kinds import OutputKind, parse_output_kind
from redtest_onnx.runtime.session import RunOptions
from redtest_onnx.runtime.workbench import Workbench
from tests.nets import Net

CPU = RunOptions("cpu", 1)
MODELS = Path(__file__).parents[3] / "models"


def bench_of(model: rt.Model, tmp_path: Path, options: RunOptions = CPU, **more: np.ndarray) -> Workbench:
    path = tmp_path / "samples.npz"
    np.savez(path, **samples(model), **more)
    return Workbench(model, rt.open_data(path, model), options)


@pytest.mark.parametrize("batch", ["N", 1], ids=["open", "one"])
@pytest.mark.parametrize("name", CASES)
def test_the_kind_is_found(name: str, batch: int | str, tmp_path: Path) -> None:
    case = CASES[name]
    output = bench_of(case.build(0, batch), tmp_path).outputs[0]
    assert (output.kind, output.axis) == (case.kind, case.axis), output.why


def vectors() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(30, 20)).astype(np.float32)


@pytest.mark.parametrize(
    ("last", "kind", "axis"),
    [("MatMul", "classes", 0), ("Softmax", "classes", 0), ("LpNormalization", "embedding", None)],
)
def test_the_vector_that_a_model_of_one_vector_gives_is_one_sample_s(
    last: str, kind: str, axis: int | None
) -> None:
    net = Net(x=[20])
    made = net("MatMul", net("Relu", net("MatMul", "x", net.weight(20, 8))), net.weight(8, 4))
    model = net.model(made if last == "MatMul" else net(last, made, axis=-1))
    bench = Workbench(model, rt.open_data({"x": vectors()}, model), CPU)
    output = bench.outputs[0]
    assert (output.kind, output.axis) == (kind, axis), output.why
    assert bench.evaluator().match_sets(rt.Model(model.proto)).agreement.value == 1.0


@pytest.mark.parametrize(
    ("heads", "kind"),
    [("logits", "classes"), ("probabilities", "classes"), ("residual", "values"), ("mixed", "values")],
)
def test_heads_whose_scores_are_added_up_score_classes(heads: str, kind: str) -> None:
    net = Net(x=["n", 20])
    first, second = (net("Gemm", net("Relu", "x"), net.weight(20, 4), net.weight(4)) for _ in range(2))
    if heads == "probabilities":
        first, second = net("Softmax", first), net("Softmax", second)
    elif heads == "residual":  # the second head reads the first one
        second = net("Gemm", net("Relu", first), net.weight(4, 4), net.weight(4))
    elif heads == "mixed":
        second = net("Tanh", second)
    model = net.model(net("Div", net("Add", first, second), net.store(np.float32(2))))
    output = Workbench(model, rt.open_data({"x": vectors()}, model), CPU).outputs[0]
    assert output.kind == kind, output.why


def test_one_number_of_a_model_of_one_vector_is_a_value() -> None:
    net = Net(x=[20])
    model = net.model(net("MatMul", "x", net.weight(20, 1)))
    output = Workbench(model, rt.open_data({"x": vectors()}, model), CPU).outputs[0]
    assert (output.kind, output.why) == ("values", "one number per sample")


@pytest.mark.parametrize("batch", ["N", 1, 5], ids=["open", "one", "five"])
@pytest.mark.parametrize("name", CASES)
def test_a_model_agrees_with_itself_to_the_last_bit(name: str, batch: int | str, tmp_path: Path) -> None:
    model = CASES[name].build(0, batch)
    evaluator = bench_of(model, tmp_path).evaluator()
    found = evaluator.match_sets(rt.Model(model.proto)).agreement
    assert found.value == 1.0
    assert all(part.agreement in (1.0, None) for part in found.outputs)


@pytest.mark.parametrize("batch", ["N", 1], ids=["open", "one"])
@pytest.mark.parametrize("name", CASES)
def test_unrelated_models_agree_by_chance(name: str, batch: int | str, tmp_path: Path) -> None:
    case = CASES[name]
    evaluator = bench_of(case.build(0, batch), tmp_path).evaluator()
    found = [evaluator.evaluate(case.build(seed, batch)).agreement.value for seed in range(1, 9)]
    assert None not in found
    assert float(np.mean([v for v in found if v is not None])) <= case.chance


@pytest.mark.parametrize("name", CASES)
def test_the_order_of_samples_does_not_matter(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    bench = bench_of(case.build(0, "N"), tmp_path)
    other = case.build(1, "N")
    chosen = np.arange(40)
    shuffled = np.random.default_rng(5).permutation(chosen)
    results = [bench.evaluator(indices).evaluate(other).agreement for indices in (chosen, shuffled)]
    assert results[0].value == pytest.approx(results[1].value, abs=1e-9)
    assert results[0].relative_l2 == pytest.approx(results[1].relative_l2, rel=1e-6, nan_ok=True)


@pytest.mark.parametrize("file", sorted(MODELS.glob("*.onnx")), ids=lambda path: path.stem)
def test_shipped_models_agree_with_themselves(file: Path) -> None:
    model = rt.load(file)
    bench = Workbench(model, rt.open_data(MODELS / "digits.npz", model), CPU)
    result = bench.evaluator().evaluate(rt.load(file))
    assert [output.kind for output in bench.outputs] == ["classes"]
    assert result.agreement.value == 1.0
    assert result.accuracy_steers


def test_what_the_user_says_goes_before_what_is_found(tmp_path: Path) -> None:
    model = CASES["segmentation"].build(0, "N")
    for text, kind, axis in (
        ("y=values", "values", None),
        ("y=dense:2", "dense", 2),
        ("y=dense:-1", "dense", 3),
    ):
        options = RunOptions("cpu", 1, output_kinds=(parse_output_kind(text),))
        output = bench_of(model, tmp_path, options).outputs[0]
        assert (output.kind, output.axis) == (kind, axis)
    ignored = bench_of(model, tmp_path, RunOptions("cpu", 1, output_kinds=(("y", OutputKind("ignore")),)))
    assert ignored.evaluator().reference.agreement.value is None
    assert not ignored.evaluator().judged


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("y=boxes", "classes, dense, tokens"),
        ("y", "NAME=KIND"),
        ("=values", "NAME=KIND"),
        ("y=dense:one", "NAME=KIND"),
        ("y=values:1", "classes, dense, tokens, next-token"),
        ("z=values", "outputs are y"),
        ("y=dense:4", "axes are -4 to 3"),
    ],
)
def test_wrong_words_are_refused_with_the_right_ones(text: str, words: str, tmp_path: Path) -> None:
    model = CASES["segmentation"].build(0, "N")
    with pytest.raises(InputError) as raised:
        _ = bench_of(model, tmp_path, RunOptions("cpu", 1, output_kinds=(parse_output_kind(text),))).outputs
    assert words in str(raised.value)


def test_pixels_with_the_same_class_are_counted(tmp_path: Path) -> None:
    """Against NumPy: the class is the largest over axis 1, not the column of the largest."""
    from redtest_onnx.runtime.session import Session

    models = [CASES["segmentation"].build(seed, "N") for seed in (0, 1)]
    bench = bench_of(models[0], tmp_path)
    inputs = bench.judging.data.inputs(bench.judging.indices)
    answers = [Session(model, CPU).run(inputs)["y"].argmax(axis=1) for model in models]
    assert bench.evaluator().evaluate(models[1]).agreement.value == np.mean(answers[0] == answers[1])


def test_positions_that_a_mask_leaves_out_do_not_count(tmp_path: Path) -> None:
    from redtest_onnx.runtime.session import Session

    models = [CASES["masked tokens"].build(seed, "N") for seed in (0, 1)]
    bench = bench_of(models[0], tmp_path)
    inputs = bench.judging.data.inputs(bench.judging.indices)
    answers = [Session(model, CPU).run(inputs)["logits"].argmax(axis=2) for model in models]
    counted = inputs["attention_mask"] == 1
    expected = np.mean((answers[0] == answers[1])[counted])
    assert not counted.all()
    assert bench.evaluator().evaluate(models[1]).agreement.value == pytest.approx(expected)


def test_caches_are_told_but_do_not_decide(tmp_path: Path) -> None:
    case = CASES["decoder"]
    evaluator = bench_of(case.build(0, "N"), tmp_path).evaluator()
    logits, *caches = evaluator.evaluate(case.build(1, "N")).agreement.outputs
    assert logits.steers
    assert logits.details["kl_nats"] is not None
    assert logits.details["kl_nats"] > 0
    assert not any(cache.steers for cache in caches)


def test_one_class_for_everything_is_judged_by_its_scores(tmp_path: Path) -> None:
    """Agreement of 100 % would mean nothing: any model that prefers that class has it."""

    def build(seed: int) -> rt.Model:
        g = Graph(seed)
        scores = g.dense(g("Tanh", g.dense(g.feed("x", 8), 8, 16)), 16, 4)
        g("Add", scores, g.store([0, 50, 0, 0]), to="logits")
        return g.model(floats("logits"))

    evaluator = bench_of(build(0), tmp_path).evaluator()
    (part,) = evaluator.evaluate(build(1)).agreement.outputs
    assert part.details["top_class"] == 1.0
    assert part.agreement == 0.0
    assert "one class" in part.measure


def test_nan_never_agrees_and_its_samples_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    g = Graph(0)
    h = g.dense(g.feed("x", 8), 8, 16)
    g.dense(g("Sqrt", h), 16, 4, to="logits")  # NaN wherever a hidden value is negative
    model = g.model(floats("logits"))
    random = np.random.default_rng(0)
    weight = np.abs(random.normal(size=(8, 16))).astype(np.float32)
    model.proto.graph.initializer[0].raw_data = weight.tobytes()
    x = np.abs(random.normal(size=(40, 8))).astype(np.float32)
    x[[3, 17]] = -1
    path = tmp_path / "x.npz"
    np.savez(path, x=x)
    data = rt.open_data(path, model)
    evaluator = Workbench(model, data, CPU).evaluator(Subset(data, np.arange(40)))
    assert evaluator.undefined_samples == (3, 17)
    assert evaluator.reference.agreement.value == pytest.approx(38 / 40)
    assert "3, 17" in caplog.text


def test_rows_that_depend_on_values_are_judged_in_front(tmp_path: Path) -> None:
    bench = bench_of(CASES["suppressed boxes"].build(0, "N"), tmp_path)
    (output,) = bench.outputs
    assert output.note is not None
    assert "NonMaxSuppression" in output.note
    assert len(output.tensors) == 2
    (part,) = bench.evaluator().match_sets(CASES["suppressed boxes"].build(1, "N")).agreement.outputs
    assert part.details["matched_boxes"] is not None
    assert part.details["matched_boxes"] < 0.7


def test_parts_of_other_scales_are_judged_by_themselves(tmp_path: Path) -> None:
    """Scores are lost: an error in them is invisible beside boxes a hundred times larger."""
    model = CASES["boxes beside scores in one"].build(0, "N")
    broken = rt.Model(type(model.proto)())
    broken.proto.CopyFrom(model.proto)
    broken.proto.graph.initializer[-1].raw_data = np.zeros((16, 3), np.float32).tobytes()
    result = bench_of(model, tmp_path).evaluator().evaluate(broken)
    assert result.agreement.relative_l2 < 0.02
    assert result.agreement.value is not None
    assert result.agreement.value < 0.2


def test_noise_can_not_be_judged(tmp_path: Path) -> None:
    g = Graph(0)
    h = g.dense(g.feed("x", 8), 8, 6)
    g("Add", h, g("RandomNormalLike", h), to="y")
    evaluator = bench_of(g.model(floats("y")), tmp_path).evaluator()
    (part,) = evaluator.reference.agreement.outputs
    assert part.agreement is None
    assert part.note is not None
    assert "differ from run to run" in part.note
    assert not evaluator.judged
