"""Fine-tuning on texts: batches as long as their longest text, and a mask that counts in the losses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from nets import Net

torch = pytest.importorskip("torch")
pytest.importorskip("tokenizers")

import redtest_onnx as rt  # noqa: E402
from redtest_onnx.bridge import to_torch  # noqa: E402
from redtest_onnx.data.dataset import Subset  # noqa: E402
from redtest_onnx.data.text import TextOptions, Texts, open_texts  # noqa: E402
from redtest_onnx.errors import InputError  # noqa: E402
from redtest_onnx.graph.masks import Mask  # noqa: E402
from redtest_onnx.pruning.apply import apply_plan  # noqa: E402
from redtest_onnx.pruning.plan import Plan, Step  # noqa: E402
from redtest_onnx.training.batches import Samples  # noqa: E402
from redtest_onnx.training.finetune import FineTuning, finetune  # noqa: E402
from redtest_onnx.training.objective import make_objective  # noqa: E402
from redtest_onnx.training.positions import counted_positions, positional_tensors  # noqa: E402
from redtest_onnx.training.settings import Optimizer, TrainingSettings  # noqa: E402
from tests.data.test_text import lines, saved  # noqa: E402
from tests.decoders import encoder, plain_decoder  # noqa: E402

CPU = rt.RunOptions("cpu", 1)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> tuple[rt.Model, Texts]:
    """A small encoder, and texts of 1 to 9 words for it."""
    folder = tmp_path_factory.mktemp("texts")
    model, rng = saved(encoder(2), folder), np.random.default_rng(0)
    sentences = [" ".join(rng.choice(["red", "green", "blue"], rng.integers(1, 10))) for _ in range(40)]
    data = rt.open_data(lines(folder, sentences), model)
    assert isinstance(data, Texts)
    return model, data


def padded(data: Texts, length: int) -> Texts:
    """The same samples with sequences of a given length."""
    return Texts(data._model, data.source, data._encoded, data._labels, data.pad, data.mask, length)


def disturbed(model: rt.Model) -> rt.Model:
    """The model with other weights in one operator."""
    proto = onnx.ModelProto.FromString(model.proto.SerializeToString())
    for stored in proto.graph.initializer:
        if stored.name == "layer.1.up":
            values = np.frombuffer(stored.raw_data, np.float32)
            stored.raw_data = (0.5 * values).tobytes()
    return rt.Model(proto)


def trained(model: rt.Model, data: rt.Dataset, optimizer: Optimizer, batch_size: int = 8) -> FineTuning:
    settings = TrainingSettings(epochs=2, optimizer=optimizer, batch_size=batch_size, feature_weight=0.5)
    return finetune(rt.Workbench(disturbed(model), data, CPU), settings, teacher=model)


@pytest.mark.parametrize("optimizer", ["whitened", "adamw"])
def test_the_length_that_texts_are_padded_to_changes_nothing(
    texts: tuple[rt.Model, Texts], optimizer: Optimizer
) -> None:
    model, data = texts
    first, longer = (trained(model, samples, optimizer) for samples in (data, padded(data, 31)))
    assert longer.start.loss == pytest.approx(first.start.loss, rel=1e-5)
    for ours, theirs in zip(first.history, longer.history, strict=True):
        for what in ("train_loss", "validation_loss"):
            assert theirs[what] == pytest.approx(ours[what], rel=1e-3)
    assert first.history[-1]["validation_loss"] < 0.9 * first.start.loss


def test_texts_of_a_subset_are_padded_to_their_batch(texts: tuple[rt.Model, Texts]) -> None:
    _, data = texts
    part = Subset(Subset(data, np.arange(30)), np.arange(20))
    samples = Samples(part, np.arange(20), 4, mask=Mask("valid"))
    lengths = set()
    for _ in range(2):
        for batch in samples.in_order():
            assert batch.counted is not None
            assert batch.inputs["ids"].shape == batch.counted.shape
            assert batch.counted.any(dim=0).all()
            lengths.add(batch.counted.shape[1])
    assert len(lengths) > 1


def test_a_batch_that_is_taken_in_parts_has_the_positions_of_each(texts: tuple[rt.Model, Texts]) -> None:
    samples = Samples(texts[1], np.arange(8), 8, fixed=2, mask=Mask("valid"))
    runs = next(samples.shuffled(0, 0))
    assert [len(part) for part in runs] == [2] * 4
    for part in runs:
        assert part.counted is not None
        assert torch.equal(part.counted, part.inputs["valid"].bool())


class Changing:
    """Samples whose sizes differ from batch to batch, as no other data set says beforehand."""

    labelled = synthetic = False
    source = "changing"

    def __len__(self) -> int:
        return 12

    def inputs(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        size = 1 + int(np.max(indices))
        rows = np.asarray(indices, np.float32)[:, None]
        return {"x": np.where(np.arange(size)[None] <= rows, rows, 0).astype(np.float32)}

    def labels(self, indices: np.ndarray) -> None:
        return None


def test_samples_of_changing_sizes_are_read_again() -> None:
    samples = Samples(Changing(), np.arange(12), 4)
    for epoch in range(3):
        runs = [batch for (batch,) in samples.shuffled(0, epoch)]
        seen = [value for batch in runs for value in batch.inputs["x"].amax(dim=1)]
        assert sorted(map(float, seen)) == list(range(12))


def scores_model(kind: str) -> rt.Model:
    """A softmax over classes per token, over the positions of a text, or over the classes of a text."""
    net = Net(opset=20)
    ids, mask = (net.add_input(name, onnx.TensorProto.INT64, ["n", "t"]) for name in ("ids", "mask"))
    x = net("MatMul", net("Gather", net.weight(6, 4), ids), net.weight(4, 3))
    if kind == "positions":
        x = net("ReduceSum", x, net.store([2], np.int64), keepdims=0)
    elif kind == "text":
        last = net.store([2], np.int64)
        weight = net("Unsqueeze", net("Cast", mask, to=onnx.TensorProto.FLOAT), last)
        x = net("ReduceSum", net("Mul", x, weight), net.store([1], np.int64), keepdims=0)
    return net.model(net("Softmax", x, axis=-1))


@pytest.mark.parametrize("kind", ["tokens", "positions", "text"])
def test_scores_at_positions_left_out_have_no_part_in_the_loss(kind: str, tmp_path: Path) -> None:
    model = saved(scores_model(kind), tmp_path)
    sentences = ["red", "green blue red", "blue blue", "green green red red", "red blue green"]
    data = rt.open_data(lines(tmp_path, sentences), model)
    assert isinstance(data, Texts)
    objective = make_objective(model, TrainingSettings(), labelled=False, teacher=model, features=())
    module = to_torch(model)
    samples = Samples(data, np.arange(5), 5, mask=Mask("mask"))
    positional = positional_tensors(module, objective.names, samples)
    assert positional == (set() if kind == "text" else set(objective.scores))
    objective = replace(objective, positional=positional)
    losses = []
    for length in (4, 11):
        batch = next(Samples(padded(data, length), np.arange(5), 5, mask=Mask("mask")).in_order())
        student = {k: v.detach() for k, v in module.tensors(objective.names, **batch.inputs).items()}
        generator = torch.Generator().manual_seed(0)
        noise = {k: torch.randn(v[:, :4].shape, generator=generator) for k, v in student.items()}
        teacher = {name: value.clone() for name, value in student.items()}
        for name in teacher:
            teacher[name][:, :4] += noise[name]
        loss = float(objective.loss(student, None, teacher, batch.counted))
        if positional:
            assert batch.counted is not None
            for name in teacher:
                teacher[name][~batch.counted] += 100.0
            assert float(objective.loss(student, None, teacher, batch.counted)) == loss
            teacher[objective.scores[0]][3, 0] *= 2
            assert float(objective.loss(student, None, teacher, batch.counted)) != loss
        losses.append(loss)
    assert losses[0] > 0.1
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_a_text_without_any_position_counts_with_all() -> None:
    counted = counted_positions(Mask("mask"), {"mask": np.array([[1, 0, 0], [0, 0, 0]])})
    assert counted is not None
    assert counted.tolist() == [[True, False, False], [True, True, True]]


def test_one_label_per_text_is_no_label_per_token(tmp_path: Path) -> None:
    model = saved(scores_model("tokens"), tmp_path)
    table = tmp_path / "labelled.csv"
    table.write_text("text,label\n" + "\n".join(f"{'red ' * (k % 4 + 1)},{k % 3}" for k in range(12)))
    data = rt.open_data(table, model)
    with pytest.raises(InputError, match="labels are one class per sample"):
        finetune(rt.Workbench(model, data, CPU), TrainingSettings(epochs=1))


def test_labels_of_texts_teach_a_classifier(tmp_path: Path) -> None:
    model = saved(scores_model("text"), tmp_path)
    rng = np.random.default_rng(1)
    words = ("red", "green", "blue")
    rows = [(" ".join([words[k % 3]] * int(rng.integers(1, 7))), k % 3) for k in range(60)]
    table = tmp_path / "labelled.csv"
    table.write_text("text,label\n" + "\n".join(f"{text},{label}" for text, label in rows))
    bench = rt.Workbench(model, rt.open_data(table, model), CPU)
    found = finetune(bench, TrainingSettings(epochs=20, batch_size=8, lr=0.05))
    assert found.validated.after == found.validated.after_torch == 1.0
    assert found.validated.before is not None
    assert found.validated.before < 0.9


@pytest.fixture(scope="module")
def decoders(tmp_path_factory: pytest.TempPathFactory) -> tuple[rt.Model, rt.Model, Path]:
    """A decoder with a cache per block, the same without its second block, and texts."""
    folder = tmp_path_factory.mktemp("decoders")
    (folder / "pruned").mkdir()
    model, rng = saved(plain_decoder(3), folder), np.random.default_rng(0)
    path = lines(folder, [" ".join(rng.choice(["red", "green", "blue"], 9)) for _ in range(240)])
    bench = rt.Workbench(model, rt.open_data(path, model), CPU)
    plan = Plan("test", bench.digest, (Step.of(bench.layers("block")[1]),))
    pruned = bench.view.close(apply_plan(bench.opened, plan))
    return model, saved(pruned, folder / "pruned"), path


def test_a_decoder_learns_from_one_with_more_caches(decoders: tuple[rt.Model, rt.Model, Path]) -> None:
    model, pruned, path = decoders
    assert len(pruned.inputs) == len(model.inputs) - 2
    bench = rt.Workbench(pruned, open_texts(path, pruned, TextOptions(max_length=12)), CPU)
    settings = TrainingSettings(epochs=2, batch_size=8, feature_weight=0.1, optimizer="adamw", lr=0.003)
    found = finetune(bench, settings, teacher=model)
    assert found.history[-1]["validation_loss"] < 0.9 * found.start.loss
    objective = make_objective(pruned, TrainingSettings(), labelled=False, teacher=model, features=())
    assert objective.scores == ("logits",)


def test_caches_with_values_are_refused_where_their_numbers_differ(
    decoders: tuple[rt.Model, rt.Model, Path],
) -> None:
    model, pruned, path = decoders
    data = rt.open_data(path, pruned)
    feeds = data.inputs(np.arange(8))
    feeds["attention_mask"] = np.ones((8, feeds["input_ids"].shape[1] + 2), np.int64)
    feeds |= {k: np.ones((8, 2, 2, 16), np.float32) for k in feeds if k.startswith("past")}
    bench = rt.Workbench(pruned, rt.open_data(feeds, pruned), CPU)
    with pytest.raises(InputError, match="caches with values"):
        finetune(bench, TrainingSettings(epochs=1), teacher=model)


def test_a_teacher_with_other_inputs_is_refused(decoders: tuple[rt.Model, rt.Model, Path]) -> None:
    _, pruned, path = decoders
    bench = rt.Workbench(pruned, rt.open_data(path, pruned), CPU)
    with pytest.raises(InputError, match="other inputs"):
        finetune(bench, TrainingSettings(epochs=1), teacher=plain_decoder(3, length_of_first=True))
