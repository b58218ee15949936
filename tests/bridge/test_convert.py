from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from nets import Net, branch
from onnx import TensorProto, helper, numpy_helper

torch = pytest.importorskip("torch")

import redtest_onnx as rt  # noqa: E402
from redtest_onnx.bridge import OnnxModule, to_torch, verify  # noqa: E402
from redtest_onnx.bridge.dtypes import TRAINABLE, to_tensor  # noqa: E402

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "models"
CIFAR = ("resnet20_cifar10", "resnet20_cifar10_dynamo", "resnet56_cifar10_bn")
WILD = ("face_slim_320", "yunet_n_dynamic", "magika_standard_v3_3", "silero_vad")
FILES = [
    *(ROOT / "models" / f"{name}_digits.onnx" for name in ("resnet", "vgg", "vit")),
    *(SHARED / f"{name}.onnx" for name in CIFAR),
    *(SHARED / "wild" / f"{name}.onnx" for name in WILD),
    *(file for file in sorted((ROOT / "tests" / "fixtures").rglob("*.onnx")) if "forest" not in file.name),
]


def fixture(file: Path) -> tuple[rt.Model, dict[str, np.ndarray]]:
    if not file.exists():
        pytest.skip(f"{file.name} is not in this checkout")
    model = rt.load(file)
    feeds = rt.open_data(None, model, count=4).inputs(np.arange(1))
    # Synthetic integers are 0 and 1, on which a variance inside magika cancels to nothing; it reads bytes.
    rng = np.random.default_rng(0)
    if "bytes" in feeds:
        feeds["bytes"] = rng.integers(0, 257, feeds["bytes"].shape).astype(np.int32)
    return model, feeds


def gradients(module: OnnxModule, feeds: dict[str, np.ndarray]) -> set[str]:
    """Names of the parameters that random output gradients reach, in ONNX."""
    torch.manual_seed(0)
    results = module(**{name: to_tensor(value) for name, value in feeds.items()})
    results = results if isinstance(results, tuple) else (results,)
    total = sum((r * torch.randn_like(r)).sum() for r in results if r.is_floating_point())
    total.backward()
    return {module.onnx_names[n] for n, p in module.named_parameters() if p.grad is not None and p.grad.any()}


def influences(model: rt.Model, feeds: dict[str, np.ndarray], name: str) -> bool:
    """Whether ONNX Runtime's outputs depend on a weight."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    tensor = next(t for t in proto.graph.initializer if t.name == name)
    value = model.value(tensor)
    noise = np.random.default_rng(0).normal(size=value.shape)
    tensor.CopyFrom(numpy_helper.from_array((value + noise).astype(value.dtype), name))
    from redtest_onnx.runtime.session import Session

    one, two = (Session(m).run(feeds) for m in (model, model.edited(proto)))
    return any(not np.array_equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_a_module_computes_what_onnx_runtime_does(file: Path) -> None:
    model, feeds = fixture(file)
    assert verify(to_torch(model), model, feeds).largest <= 1e-4


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_every_weight_that_influences_an_output_gets_a_gradient(file: Path) -> None:
    model, feeds = fixture(file)
    module = to_torch(model)
    reached = gradients(module, feeds)
    parameters = {module.onnx_names[name] for name, _ in module.named_parameters()}
    statistics = {name for name, _ in module.trained()} - parameters
    assert reached
    for tensor in model.graph.initializer:
        is_weight = tensor.data_type in TRAINABLE and np.prod(tensor.dims) > 1
        if is_weight and tensor.name not in reached | statistics and not is_setting(model, tensor.name):
            assert not influences(model, feeds, tensor.name), tensor.name


def is_setting(model: rt.Model, name: str) -> bool:
    """Whether only Resize reads a tensor: scales and regions of interest are no weights."""
    return {n.op_type for n in model.graph.node if name in n.input} == {"Resize"}


def test_trees_are_refused_by_name() -> None:
    model = rt.load(ROOT / "tests" / "fixtures" / "interop" / "sklearn_forest_op18.onnx")
    with pytest.raises(rt.InputError, match="TreeEnsembleClassifier"):
        to_torch(model)


def test_batch_norm_trains_or_stays_frozen() -> None:
    model, _ = fixture(ROOT.parent / "shared" / "models" / "resnet56_cifar10_bn.onnx")
    x = torch.randn(8, 3, 32, 32)
    for mode, changes in (("train", True), ("frozen", False)):
        module = to_torch(model, batch_norm=mode)
        before = {k: v.clone() for k, v in module.state_dict().items()}
        expected = module(x)
        module.train()
        assert torch.equal(module(x), expected) is not changes
        after = module.state_dict()
        assert any(not torch.equal(before[k], after[k]) for k in before) is changes
        module.eval()


def test_scalars_tables_and_shapes_are_no_parameters() -> None:
    net = Net(x=[2, 4])
    scaled = net("Mul", net("MatMul", "x", net.weight(4, 6)), net.store(0.5))
    shaped = net("Reshape", scaled, net.store([3, 4], np.int64))
    module = to_torch(net.model(net("Add", shaped, net.weight(4))))
    assert set(module.state_dict()) == {"w0", "w3"}


def test_infinite_masks_are_no_parameters() -> None:
    net = Net(x=[2, 3])
    mask = np.array([[0, -np.inf, 0]])
    module = to_torch(
        net.model(net("Softmax", net("Add", net("MatMul", "x", net.weight(3, 3)), net.store(mask))))
    )
    assert list(module.state_dict()) == ["w0"]


@pytest.mark.parametrize("values", [[1.0, 1.0, 1.0], [1.0, 2.0, 3.0]], ids=["merged", "shared"])
def test_merged_initializers_are_untied_and_shared_ones_stay(values: list[float]) -> None:
    net = Net(x=[2, 3])
    shared = net.store(values)
    model = net.model(net("Mul", net("Relu", net("Mul", "x", shared)), shared))
    assert [n for n, _ in to_torch(model).named_parameters()] == ["w0"]
    found = [n for n, _ in to_torch(model, untie="merged").named_parameters()]
    assert found == (["w0", "w0_untied2"] if values[0] == values[1] else ["w0"])
    assert len(list(to_torch(model, untie=["w0"]).parameters())) == 2
    with pytest.raises(rt.InputError, match="can't untie nothing"):
        to_torch(model, untie=["nothing"])


def test_weights_inside_a_branch_are_trained() -> None:
    net = Net(x=[2, 3])
    net.add_input("flag", TensorProto.BOOL, [])
    weights = [numpy_helper.from_array(np.full((3, 3), k, np.float32), f"inside{k}") for k in (1, 2)]
    branches = [
        branch(f"b{k}", [helper.make_node("MatMul", ["x", f"inside{k}"], [f"y{k}"])], [weight])
        for k, weight in enumerate(weights, 1)
    ]
    model = net.model(net("If", "flag", then_branch=branches[0], else_branch=branches[1]))
    for flag, name in ((True, "inside1"), (False, "inside2")):
        feeds = {"x": np.ones((2, 3), np.float32), "flag": np.array(flag)}
        module = to_torch(model)
        assert verify(module, model, feeds).agrees
        assert gradients(module, feeds) == {name}


def test_operators_that_cannot_be_trained_are_all_named() -> None:
    net = Net(x=[1, 4])
    model = net.model(net("DynamicQuantizeLinear", "x", outputs=3))
    model.graph.node.append(helper.make_node("Mystery", ["x"], ["m"], domain="acme"))
    model.proto.opset_import.append(helper.make_opsetid("acme", 1))
    with pytest.raises(rt.InputError, match="quantised: DynamicQuantizeLinear") as error:
        to_torch(model)
    assert "custom: acme:Mystery" in str(error.value)
    assert "fine-tune the float model" in str(error.value)
