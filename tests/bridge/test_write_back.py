from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from nets import Net

torch = pytest.importorskip("torch")

import redtest_onnx as rt  # noqa: E402
from redtest_onnx.bridge import OnnxModule, from_torch, to_torch, verify  # noqa: E402

MODELS = Path(__file__).parents[2] / "models"


def serialised(model: rt.Model) -> bytes:
    return model.proto.SerializeToString(deterministic=True)


def small(opset: int = 17) -> rt.Model:
    net = Net(opset, x=[2, 3])
    return net.model(net("Add", net("MatMul", "x", net.weight(3, 4)), net.weight(4)))


def step(module: OnnxModule, *inputs: torch.Tensor) -> None:
    torch.manual_seed(0)
    optimiser = torch.optim.SGD(module.parameters(), 0.01)
    module.train()
    result = module(*inputs)
    (result - torch.randn_like(result)).square().mean().backward()
    optimiser.step()


@pytest.mark.parametrize("name", ["resnet", "vgg", "vit"])
def test_an_untrained_module_gives_the_file_back(name: str) -> None:
    model = rt.load(MODELS / f"{name}_digits.onnx")
    assert serialised(from_torch(to_torch(model), model)) == serialised(model)


@pytest.mark.parametrize("name", ["resnet", "vgg", "vit"])
def test_trained_weights_come_back_and_nothing_else_changes(name: str, tmp_path: Path) -> None:
    model = rt.load(MODELS / f"{name}_digits.onnx")
    before = serialised(model)
    module = to_torch(model)
    x = torch.rand(8, 1, 8, 8)
    step(module, x)
    written = from_torch(module, model)
    assert serialised(model) == before
    assert serialised(written) != before
    saved = rt.load(rt.save(written, tmp_path / "trained.onnx").path or "")
    assert verify(module, saved, {"input": x.numpy()}).agrees
    for new, old in zip(written.graph.initializer, model.graph.initializer, strict=True):
        new.CopyFrom(old)
    assert serialised(written) == before


def test_verification_sees_a_difference() -> None:
    model = small()
    module = to_torch(model)
    with torch.no_grad():
        next(module.parameters()).add_(1)
    found = verify(module, model, {"x": np.ones((2, 3), np.float32)})
    assert not found.agrees
    assert found.largest > 0.1


def test_values_stay_in_the_field_that_held_them() -> None:
    model = small()
    weight = model.graph.initializer[0]
    values = onnx.numpy_helper.to_array(weight)
    weight.ClearField("raw_data")
    weight.float_data.extend(values.ravel().tolist())
    module = to_torch(model)
    step(module, torch.ones(2, 3))
    written = from_torch(module, model)
    first, second = written.graph.initializer
    assert len(first.float_data) == 12
    assert not first.HasField("raw_data")
    assert second.HasField("raw_data")
    assert verify(module, written, {"x": np.ones((2, 3), np.float32)}).agrees


def test_external_weights(tmp_path: Path) -> None:
    path = tmp_path / "external.onnx"
    onnx.save(small().proto, path, save_as_external_data=True, location="w.data", size_threshold=0)
    model = rt.load(path)
    module = to_torch(model)
    module.get_parameter("w1").requires_grad_(False)
    data = (tmp_path / "w.data").read_bytes()
    step(module, torch.ones(2, 3))
    saved = rt.save(from_torch(module, model), tmp_path / "trained.onnx")
    assert verify(module, rt.load(saved.path or ""), {"x": np.ones((2, 3), np.float32)}).agrees
    assert (tmp_path / "w.data").read_bytes() == data
    assert [t.HasField("raw_data") for t in saved.graph.initializer] == [True, False]


def test_untied_copies_become_initializers_only_where_they_differ() -> None:
    net = Net(x=[2, 3])
    shared = net.store([1.0, 1.0, 1.0])
    model = net.model(net("Mul", net("Sigmoid", net("Mul", "x", shared)), shared))
    module = to_torch(model, untie="merged")
    assert serialised(from_torch(module, model)) == serialised(model)
    step(module, torch.ones(2, 3))
    written = from_torch(module, model)
    assert [t.name for t in written.graph.initializer] == ["w0", "w0_untied2"]
    assert verify(module, written, {"x": np.ones((2, 3), np.float32)}).agrees


def test_weights_that_are_not_finite_are_refused() -> None:
    model = small()
    module = to_torch(model)
    with torch.no_grad():
        module.get_parameter("w0")[0, 0] = float("nan")
    with pytest.raises(rt.InputError, match="'w0' is no longer finite"):
        from_torch(module, model)


def test_another_model_is_refused() -> None:
    net = Net(x=[2, 3])
    other = net.model(net("MatMul", "x", net.weight(3, 5)))
    with pytest.raises(rt.InputError, match="not made from this model"):
        from_torch(to_torch(small()), other)
