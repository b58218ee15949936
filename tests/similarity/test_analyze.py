"""The whole measurement against a slow reference, and against the published figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from nets import Net
from references import activations, slow_cka
from scipy.stats import spearmanr

import redtest_onnx as rt
from redtest_onnx.data.splits import sample_indices
from redtest_onnx.graph.index import GraphIndex
from redtest_onnx.layers.layer import find_layers
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.reader import GramReader, TapTarget

MODELS = Path(__file__).parents[2] / "models"
SHARED = Path(__file__).parents[3] / "shared"
CPU = rt.RunOptions("cpu")

# Unbiased CKA of neighbours in the reference ResNet56 on CIFAR-10 (RedTest, arXiv 2411.10507).
RESNET56 = """
.8040 .9624 .9816 .9819 .9647 .9950 .9621 .9549 .9959 .9714 .9903 .9882 .9947 .9943
.9924 .9920 .9894 .9912 .9701 .9823 .9844 .9816 .9668 .9333 .9032 .8795 .8777
"""


@pytest.mark.parametrize("name", ["resnet", "vgg", "vit"])
@pytest.mark.parametrize(("pooling", "samples"), [("mean", 48), ("mean", 131), ("none", 48)])
def test_matrix_agrees_with_song_in_float64(name: str, pooling: str, samples: int) -> None:
    model = rt.load(MODELS / f"{name}_digits.onnx")
    data = rt.open_data(MODELS / "digits.npz", model)
    settings = rt.AnalysisSettings(pooling=pooling, samples=samples, batches=1)  # type: ignore[arg-type]
    analysis = rt.analyze(model, data, settings, CPU)
    feeds = data.inputs(sample_indices(data, samples, 0))
    values = activations(model, [layer.tensor for layer in analysis.layers], feeds)
    if pooling == "mean":
        values = [v.mean(axis=(2, 3)) if v.ndim == 4 else v.mean(axis=1) for v in values]
    expected = slow_cka([v.reshape(len(v), -1) for v in values])
    np.testing.assert_allclose(analysis.similarity, expected, atol=1e-6, rtol=0)


def test_estimators_combine_batches_as_they_say() -> None:
    model = rt.load(MODELS / "vgg_digits.onnx")
    data = rt.open_data(MODELS / "digits.npz", model)
    order = sample_indices(data, 120, 0)
    single = []
    for k in range(3):
        feeds = data.inputs(order[40 * k : 40 * (k + 1)])
        names = [
            layer.tensor for layer in rt.analyze(model, data, rt.AnalysisSettings(samples=8), CPU).layers
        ]
        single.append([v.mean(axis=(2, 3)) for v in activations(model, names, feeds)])
    paper = rt.analyze(model, data, rt.AnalysisSettings(samples=40, batches=3, estimator="paper"), CPU)
    np.testing.assert_allclose(paper.similarity, np.mean([slow_cka(b) for b in single], axis=0), atol=1e-6)
    assert paper.redundancy.value == pytest.approx(np.mean(paper.redundancy.per_batch))
    assert paper.redundancy.std == pytest.approx(np.std(paper.redundancy.per_batch, ddof=1))
    ratio = rt.analyze(model, data, rt.AnalysisSettings(samples=40, batches=3), CPU)
    assert not np.allclose(ratio.similarity, paper.similarity, atol=1e-6)


def fixed(model: rt.Model, batch: int) -> rt.Model:
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    del proto.graph.value_info[:]
    return rt.Model(proto)


@pytest.mark.parametrize("batch", [1, 5, 36])
@pytest.mark.parametrize("pooling", ["mean", "none"])
def test_a_fixed_batch_gives_the_same_matrix(batch: int, pooling: str) -> None:
    model = rt.load(MODELS / "vgg_digits.onnx")
    data = rt.open_data(MODELS / "digits.npz", model)
    settings = rt.AnalysisSettings(pooling=pooling, samples=32, batches=1)  # type: ignore[arg-type]
    expected = rt.analyze(model, data, settings, CPU)
    found = rt.analyze(fixed(model, batch), data, settings, CPU)
    np.testing.assert_allclose(found.similarity, expected.similarity, atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "none"])
def test_a_layer_that_does_not_vary_is_undefined(pooling: str) -> None:
    model = rt.load(MODELS / "vgg_digits.onnx")
    data = rt.open_data(MODELS / "digits.npz", model)
    victim = rt.analyze(model, data, rt.AnalysisSettings(samples=8), CPU).layers[4]
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    node = next(node for node in proto.graph.node if victim.tensor in node.output)
    weight = next(t for t in proto.graph.initializer if t.name == node.input[1])
    weight.raw_data = bytes(len(weight.raw_data))
    settings = rt.AnalysisSettings(pooling=pooling, samples=64, batches=1)  # type: ignore[arg-type]
    analysis = rt.analyze(rt.Model(proto), data, settings, CPU)
    assert victim.name in [layer.name for layer in analysis.undefined]
    assert np.isnan(analysis.similarity[4]).all()
    assert np.isfinite(analysis.redundancy.value)
    assert analysis.redundancy.undefined >= len(analysis.layers) - 1


def with_large(tmp_path: Path, samples: int, large: dict[int, float]) -> tuple[rt.Model, rt.Dataset]:
    """The digits, some of them brighter."""
    model = rt.load(MODELS / "vgg_digits.onnx")
    data = rt.open_data(MODELS / "digits.npz", model)
    images = next(iter(data.inputs(np.arange(samples)).values())).copy()
    for k, factor in large.items():
        images[k] *= factor
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "others.npy", np.delete(images, list(large), axis=0))
    return model, rt.open_data(tmp_path / "images.npy", model)


@pytest.mark.parametrize("pooling", ["mean", "none"])
def test_what_is_measured_without_a_sample_that_dominates(pooling: str, tmp_path: Path) -> None:
    model, data = with_large(tmp_path, 40, {7: 50})
    settings = rt.AnalysisSettings(samples=40, batches=1, pooling=pooling)  # type: ignore[arg-type]
    analysis = rt.analyze(model, data, settings, CPU)
    assert analysis.dominated
    assert analysis.without_largest is not None
    assert analysis.without_largest.samples == 1
    others = rt.analyze(model, rt.open_data(tmp_path / "others.npy", model), settings, CPU)
    assert others.without_largest is None
    np.testing.assert_allclose(analysis.without_largest.adjacent, others.adjacent, atol=1e-4)
    assert analysis.without_largest.msrs == pytest.approx(others.redundancy.value, abs=0.01)
    assert analysis.redundancy.value != pytest.approx(others.redundancy.value, abs=0.1)


def test_batches_without_their_large_samples(tmp_path: Path) -> None:
    model, data = with_large(tmp_path, 90, {7: 50, 60: 50})
    settings = rt.AnalysisSettings(samples=30, batches=3, estimator="paper")
    analysis = rt.analyze(model, data, settings, CPU)
    assert analysis.without_largest is not None
    assert analysis.without_largest.samples == 2
    order = sample_indices(data, 90, 0)
    names, single = [layer.tensor for layer in analysis.layers], []
    for k in range(3):
        chosen = [i for i in order[30 * k : 30 * (k + 1)] if i not in (7, 60)]
        single.append(slow_cka([v.mean(axis=(2, 3)) for v in activations(model, names, data.inputs(chosen))]))
    expected = np.diagonal(np.mean(single, axis=0), offset=1)
    np.testing.assert_allclose(analysis.without_largest.adjacent, expected, atol=1e-4)


def test_a_sample_that_hides_the_others_leaves_no_score(tmp_path: Path) -> None:
    model, data = with_large(tmp_path, 40, {7: 1e7})
    analysis = rt.analyze(model, data, rt.AnalysisSettings(samples=40, batches=1), CPU)
    assert analysis.without_largest is not None
    assert np.isnan(analysis.without_largest.msrs)


def test_tokens_are_drawn_anew_for_every_sample() -> None:
    model = rt.load(MODELS / "vit_digits.onnx")
    data = rt.open_data(MODELS / "digits.npz", model)
    index = GraphIndex(model.graph)
    bench = Workbench(model, data, CPU)
    seen = bench.resolved
    tensor = next(layer.tensor for layer in find_layers(index, seen.shapes) if "add" in layer.tensor.lower())
    same = np.zeros(128, np.int64)
    reader = GramReader(bench, [TapTarget.seen(tensor, seen, False)], [same], "token", keep_features=True)
    [tokens] = reader.read_features(same)
    assert (tokens[:64] != tokens[64:]).any()


def test_thresholds_by_kind_of_graph() -> None:
    thresholds = {}
    for name in ("resnet", "vgg"):
        model = rt.load(MODELS / f"{name}_digits.onnx")
        data = rt.open_data(MODELS / "digits.npz", model)
        thresholds[name] = rt.analyze(model, data, rt.AnalysisSettings(samples=8), CPU).redundancy.threshold
    assert thresholds == {"resnet": 0.8, "vgg": 0.7}


def test_layers_by_glob_and_all() -> None:
    model = rt.load(MODELS / "resnet_digits.onnx")
    data = rt.open_data(MODELS / "digits.npz", model)
    chosen = rt.analyze(model, data, rt.AnalysisSettings(samples=8, layers="blocks.1?"), CPU)
    assert [layer.name for layer in chosen.layers] == [f"blocks.{k}" for k in range(10, 20)]
    everything = rt.analyze(model, data, rt.AnalysisSettings(samples=8, layers="all"), CPU)
    assert len(everything.layers) > 150
    assert [layer.index for layer in everything.layers] == list(range(len(everything.layers)))
    with pytest.raises(rt.InputError, match="no layer is called"):
        rt.analyze(model, data, rt.AnalysisSettings(samples=8, layers="nope*"), CPU)
    with pytest.raises(rt.InputError, match="two are needed"):
        rt.analyze(model, data, rt.AnalysisSettings(samples=8, layers="blocks.3"), CPU)


@pytest.mark.skipif(not (SHARED / "data").is_dir(), reason="needs the CIFAR-10 images beside the checkout")
@pytest.mark.parametrize(
    ("name", "layers", "low", "high"), [("56_cifar10_bn", 28, 170, 210), ("20_cifar10", 10, 13, 16)]
)
def test_published_figures(name: str, layers: int, low: float, high: float) -> None:
    model = rt.load(SHARED / "models" / f"resnet{name}.onnx")
    images = rt.ImageOptions(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    data = rt.open_data(SHARED / "data" / "cifar10_jpeg_test.zip", model, images=images)
    analysis = rt.analyze(model, data, rt.AnalysisSettings(estimator="paper"), CPU)
    assert len(analysis.layers) == layers
    assert low < analysis.redundancy.value < high
    if layers == 28:
        golden = np.array(RESNET56.split(), float)
        assert np.abs(golden - analysis.adjacent).mean() <= 0.007
        assert spearmanr(golden, analysis.adjacent).statistic >= 0.97


def test_one_dimensional_convolutions_are_pooled_over_their_length() -> None:
    rng = np.random.default_rng(0)
    value = onnx.helper.make_tensor_value_info
    nodes, weights, name = [], [], "x"
    for k, (inputs, outputs) in enumerate(((2, 3), (3, 5), (5, 2))):
        weight = rng.normal(size=(outputs, inputs, 3)).astype(np.float32)
        weights.append(onnx.numpy_helper.from_array(weight, f"w{k}"))
        nodes.append(onnx.helper.make_node("Conv", [name, f"w{k}"], [f"c{k}"], pads=[1, 1]))
        name = f"c{k}"
    graph = onnx.helper.make_graph(
        nodes, "wave", [value("x", 1, ["n", 2, 16])], [value("c2", 1, ["n", 2, 16])], weights
    )
    opsets = [onnx.helper.make_opsetid("", 17)]
    model = rt.Model(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8))
    analysis = rt.analyze(model, rt.open_data(None, model), rt.AnalysisSettings(samples=32, batches=1), CPU)
    assert analysis.features == (3, 5)


@pytest.mark.parametrize("estimator", ["minibatch", "exact", "paper", "biased"])
@pytest.mark.filterwarnings("error")
def test_activations_beyond_float32_are_undefined_without_warnings(estimator: str) -> None:
    net = Net(input=["n", 4])
    h = "input"
    for _ in range(4):
        h = net("Relu", net("MatMul", h, net.weight(4, 4)))
    model = net.model(net("MatMul", h, net.weight(4, 2), name="y"))
    data = {"input": np.full((16, 4), 3e38, np.float32)}
    settings = rt.AnalysisSettings(samples=8, batches=2, estimator=estimator)  # type: ignore[arg-type]
    assert np.isnan(np.asarray(rt.analyze(model, data, settings).similarity)).all()


def test_all_layers_are_all_tensors_that_can_be_measured() -> None:
    """Those before any weights too; shapes, constants and integers are listed; no hint repeats the option."""
    net = Net(x=["n", 6])
    scaled = net("Tanh", "x")
    weighted = net("MatMul", scaled, net.weight(6, 6))
    size = net("Shape", "x")
    constant = net("Relu", net.store([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))
    whole = net("Cast", weighted, to=onnx.TensorProto.INT64)
    back = net("Cast", whole, to=onnx.TensorProto.FLOAT)
    out = net("Add", net("Reshape", net("Add", weighted, constant), size), back)
    model = net.model(out)
    settings = rt.AnalysisSettings(layers="all", samples=16, batches=1)
    found = rt.analyze(model, None, settings, rt.RunOptions("cpu", 1))
    tensors = {layer.tensor for layer in found.layers}
    assert {scaled, weighted, out} <= tensors
    reasons = {item.name: item.reason for item in found.unmeasured}
    assert "shape arithmetic" in reasons[size]
    assert "constant" in reasons[constant]
    assert reasons[whole] == "not floating point (int64)"
    assert not tensors & reasons.keys()
    assert {item["name"] for item in found.to_dict()["unmeasured"]} == set(reasons)
    single = Net(x=["n", 6])
    with pytest.raises(rt.InputError) as error:
        rt.analyze(single.model(single("Relu", "x")), None, settings)
    assert "measures every" not in (error.value.hint or "")


def test_a_run_that_fails_names_the_model_of_the_user(tmp_path: Path) -> None:
    net = Net()
    ids = net.add_input("ids", onnx.TensorProto.INT64, ["n", 3])
    x = net("Gather", net.weight(10, 8), ids)
    for _ in range(2):
        x = net("Add", net("Relu", net("MatMul", x, net.weight(8, 8))), x)
    rt.save(net.model(x), tmp_path / "mine.onnx")
    with pytest.raises(rt.InputError) as failed:
        rt.analyze(tmp_path / "mine.onnx", {"ids": np.full((8, 3), 10)})
    assert failed.value.where == str(tmp_path / "mine.onnx")
    assert "the run failed" in failed.value.what
