from __future__ import annotations

import copy
import io
from pathlib import Path

import numpy as np
import pytest
from nets import Net

torch = pytest.importorskip("torch")

import redtest_onnx as rt  # noqa: E402
from redtest_onnx.bridge import from_torch, to_torch, verify  # noqa: E402

MODELS = Path(__file__).parents[2] / "models"


def test_inputs_come_in_order_or_by_name() -> None:
    net = Net(a=[2, 3], b=[2, 3])
    module = to_torch(net.model(net("Sub", "a", "b", name="y"), net("Mul", "a", net.weight(3), name="z")))
    a, b = torch.ones(2, 3), torch.full((2, 3), 3.0)
    for results in (module(a, b), module(a, b=b), module(b=b, a=a)):
        assert torch.equal(results[0], torch.full((2, 3), -2.0))
    for wrong in ((a,), (a, b, b)):
        with pytest.raises(rt.InputError, match="takes the inputs a, b"):
            module(*wrong)


def test_names_are_those_of_the_file() -> None:
    model = rt.load(MODELS / "resnet_digits.onnx")
    module = to_torch(model)
    assert {module.onnx_names[name] for name in module.state_dict()} <= set(model.initializers)
    assert {name for name, _ in module.named_parameters()} <= set(model.initializers)


def test_names_that_torch_cannot_take_are_kept_apart() -> None:
    net = Net(x=[2, 3])
    model = net.model(net("Add", net("Add", net("Mul", "x", net.weight(3)), net.weight(3)), net.weight(3)))
    renamed = {"w0": "forward", "w1": "a.b", "w2": "a"}
    for tensor in model.graph.initializer:
        tensor.name = renamed[tensor.name]
    for node in model.graph.node:
        node.input[1] = renamed[node.input[1]]
    model = rt.Model(model.proto)
    module = to_torch(model)
    assert sorted(module.onnx_names[name] for name in module.state_dict()) == ["a", "a.b", "forward"]
    assert verify(module, model, {"x": np.ones((2, 3), np.float32)}).agrees


def test_tensors_inside_can_be_asked_for() -> None:
    net = Net(x=[1, 2, 4, 4])
    inner = net.conv("x", 2, 2, name="inner")
    module = to_torch(net.model(net("Relu", inner, name="y")))
    values = module.tensors(["inner", "y"], torch.randn(1, 2, 4, 4))
    assert torch.equal(values["inner"].relu(), values["y"])
    with pytest.raises(rt.InputError, match="no tensor nowhere"):
        module.tensors(["nowhere"], torch.randn(1, 2, 4, 4))


def test_it_is_a_module_like_any_other() -> None:
    model = rt.load(MODELS / "vit_digits.onnx")
    module = to_torch(model)
    x = torch.rand(3, 1, 8, 8)
    expected = module(x)
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    other = copy.deepcopy(module)
    for parameter in other.parameters():
        torch.nn.init.zeros_(parameter)
    assert not torch.equal(other(x), expected)
    file.seek(0)
    other.load_state_dict(torch.load(file))
    assert torch.equal(other(x), expected)
    assert module.to(torch.device("meta"))(x.to("meta")).shape == expected.shape


def test_autocast_computes_in_half_precision_and_trains() -> None:
    model = rt.load(MODELS / "vit_digits.onnx")
    module = to_torch(model)
    x = torch.rand(2, 1, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        low = module(x)
    assert torch.allclose(low.float(), module(x), atol=0.2)
    low.float().square().mean().backward()
    assert all(p.grad is not None and p.grad.dtype is torch.float32 for p in module.parameters())


def test_compiled_and_wrapped_modules_are_written_back() -> None:
    model = rt.load(MODELS / "resnet_digits.onnx")
    module = to_torch(model)
    x = torch.rand(2, 1, 8, 8)
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    assert torch.allclose(compiled(x), module(x), atol=1e-5)
    with torch.no_grad():
        next(module.parameters()).add_(1)
    for wrapped in (compiled, torch.nn.DataParallel(module)):
        written = from_torch(wrapped, model)
        assert verify(wrapped, written, {"input": x.numpy()}).agrees
    with pytest.raises(rt.InputError, match="Linear was not made by to_torch"):
        from_torch(torch.nn.Linear(1, 1), model)
