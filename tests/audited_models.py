"""For each rule of audits the smallest model that triggers it and one that does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from nets import Net, branch
from onnx import TensorProto, helper

import redtest_onnx as rt
from redtest_onnx.auditing.profile import Profile
from redtest_onnx.auditing.run import Audit, audit
from redtest_onnx.runtime.workbench import Workbench

MODELS = Path(__file__).parents[1] / "models"
CPU = rt.RunOptions(device="cpu", threads=1)
Proto = onnx.ModelProto


def finished(net: Net, *outputs: str) -> Proto:
    proto = net.model(*outputs).proto
    helper.set_model_props(proto, {"license": "Apache-2.0", "author": "tests"})
    return proto


def plain(opset: int = 17) -> Proto:
    net = Net(opset, x=[1, 4])
    h = net("Relu", net("Gemm", "x", net.weight(4, 4)))
    return finished(net, net("Gemm", h, net.weight(4, 3), name="y"))


def with_node(op: str, domain: str = "") -> Callable[[], Proto]:
    """A product and one other operator; shapes are inferred before it becomes what it is."""

    def build() -> Proto:
        net = Net(x=[1, 4])
        h = net("Gemm", "x", net.weight(4, 4))
        proto = finished(net, net("Relu", h, name="y"))
        proto.graph.node[1].op_type, proto.graph.node[1].domain = op, domain
        if domain:
            proto.opset_import.append(helper.make_opsetid(domain, 1))
        return proto

    return build


def wrong_shape() -> Proto:
    proto = plain()
    proto.graph.value_info.append(helper.make_tensor_value_info("Gemm0", TensorProto.FLOAT, [1, 9]))
    return proto


def newer_ir() -> Proto:
    proto = plain()
    proto.ir_version = 10
    return proto


def older_ir() -> Proto:
    proto = plain()
    proto.ir_version = 8
    return proto


def double() -> Proto:
    net = Net(x=[1, 4])
    h = net("Cast", net("Gemm", "x", net.weight(4, 4)), to=TensorProto.DOUBLE)
    return finished(net, net("Cast", h, name="y", to=TensorProto.FLOAT))


def dynamic() -> Proto:
    net = Net(x=["batch", 4])
    return finished(net, net("Gemm", "x", net.weight(4, 4), name="y"))


def conditional() -> Proto:
    net = Net(x=[1, 4])
    h = net("Gemm", "x", net.weight(4, 4))
    then = branch("t", [helper.make_node("Relu", [h], ["then"])])
    other = branch("e", [helper.make_node("Neg", [h], ["else"])])
    return finished(net, net("If", net.store(True, np.bool_), name="y", then_branch=then, else_branch=other))


def quantised() -> Proto:
    net = Net(x=[1, 4])
    zero = net.store(0, np.uint8)
    q = net("QuantizeLinear", net("Gemm", "x", net.weight(4, 4)), net.store(0.1), zero)
    return finished(net, net("DequantizeLinear", q, net.store(0.1), zero, name="y"))


def with_weight(
    value: np.ndarray[Any, Any], *, twice: bool = False, unread: bool = False
) -> Callable[[], Proto]:
    def build() -> Proto:
        rows = value.shape[0]
        net = Net(x=[1, rows])
        h = net("MatMul", "x", net.store(value))
        if twice:
            h = net("MatMul", h, net.store(value))
        if unread:
            net.store(np.ones(100, np.float32))
        return finished(net, net("Relu", h, name="y"))

    return build


def scaled(factor: float) -> Callable[[], Proto]:
    def build() -> Proto:
        net = Net(x=[1, 4])
        h = net("Gemm", "x", net.weight(4, 4))
        return finished(net, net("Tanh", net("Mul", h, net.store(factor)), name="y"))

    return build


def random_numbers() -> Proto:
    net = Net(x=[1, 4])
    h = net("Gemm", "x", net.weight(4, 4))
    return finished(net, net("Add", h, net("RandomNormalLike", h), name="y"))


def training_dropout() -> Proto:
    net = Net(x=[1, 4])
    h = net("Gemm", "x", net.weight(4, 4))
    return finished(net, net("Dropout", h, net.store(0.5), net.store(True, np.bool_), name="y"))


def dead_end() -> Proto:
    net = Net(x=[1, 4])
    h = net("Gemm", "x", net.weight(4, 4))
    net("Sigmoid", h, name="unread")
    return finished(net, net("Relu", h, name="y"))


def weights_listed() -> Proto:
    proto = plain()
    weight = proto.graph.initializer[0]
    proto.graph.input.append(helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims))
    return proto


def anonymous() -> Proto:
    proto = plain()
    del proto.metadata_props[:]
    return proto


def embedded(name: str) -> Callable[[], Proto]:
    return lambda: onnx.load(MODELS / f"{name}_digits.onnx")


def outlier() -> np.ndarray[Any, np.dtype[np.float32]]:
    value = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    value[3, 5] = 100
    return value


@dataclass(frozen=True)
class Case:
    bad: Callable[[], Proto]
    profile: dict[str, Any] = field(default_factory=dict)
    good: Callable[[], Proto] = plain
    good_profile: dict[str, Any] | None = None
    external: bool = False


def budget(**limits: float) -> dict[str, Any]:
    return {"budgets": limits}


def target(**facts: Any) -> dict[str, Any]:
    return {"target": facts}


WIDE = np.random.default_rng(0).normal(size=(16, 16)).astype(np.float32)
CASES = {
    "RT001": Case(wrong_shape),
    "RT002": Case(with_node("Nonsense", "example.org")),
    "RT004": Case(with_node("Nonsense", "example.org")),
    "RT005": Case(with_node("Gelu", "com.microsoft"), target(runtime="tensorrt")),
    "RT010": Case(plain, target(max_opset=13), lambda: plain(13)),
    "RT011": Case(newer_ir, target(max_ir=8), older_ir),
    "RT020": Case(with_node("Tanh"), target(provider="npu", operators=["Gemm", "Relu"])),
    "RT021": Case(with_node("Tanh"), target(provider="npu", operators=["Gemm", "Relu"], fallback="none")),
    "RT022": Case(double, target(types=["float", "int64"])),
    "RT023": Case(dynamic),
    "RT024": Case(dynamic, target(fixed_shapes=True)),
    "RT025": Case(conditional, target(control_flow=False)),
    "RT026": Case(with_node("Tanh"), {"operators": {"forbidden": ["Ta*"]}}),
    "RT027": Case(plain, {"operators": {"required": ["QuantizeLinear"]}}, quantised),
    "RT028": Case(with_node("Tanh"), target(required_operators="ops.config")),
    "RT040": Case(with_weight(WIDE), external=True),
    "RT041": Case(with_weight(WIDE, unread=True)),
    "RT042": Case(with_weight(WIDE, twice=True)),
    "RT043": Case(with_weight(np.full((4, 4), np.nan, np.float32))),
    "RT044": Case(with_weight(np.full((4, 4), 1e5, np.float32))),
    "RT045": Case(with_weight(outlier())),
    "RT047": Case(with_weight(np.full((4, 4), 1e-9, np.float32))),
    "RT046": Case(with_weight(np.eye(16, dtype=np.float32))),
    "RT050": Case(plain, budget(file_mb=1e-6), good_profile=budget(file_mb=1)),
    "RT051": Case(plain, budget(weights_mb=1e-6), good_profile=budget(weights_mb=1)),
    "RT052": Case(plain, budget(activations_mb=1e-6), good_profile=budget(activations_mb=1)),
    "RT053": Case(plain, budget(macs_m=1e-6), good_profile=budget(macs_m=1)),
    "RT054": Case(plain, budget(latency_ms=1e-6), good_profile=budget(latency_ms=1e6)),
    "RT055": Case(plain, budget(cold_start_ms=1e-6), good_profile=budget(cold_start_ms=1e6)),
    "RT056": Case(plain, budget(memory_mb=1e-6), good_profile=budget(memory_mb=1)),
    "RT060": Case(with_node("Log")),
    "RT061": Case(with_node("Exp")),
    "RT062": Case(random_numbers),
    "RT063": Case(scaled(1e6)),
    "RT070": Case(embedded("resnet"), good=embedded("vgg")),
    "RT071": Case(embedded("resnet"), budget(msrs=1), good_profile=budget(msrs=1e6)),
    "RT080": Case(training_dropout),
    "RT081": Case(random_numbers),
    "RT082": Case(dead_end),
    "RT083": Case(weights_listed),
    "RT084": Case(anonymous),
}


def audited(proto: Proto, folder: Path, profile: dict[str, Any], **options: Any) -> Audit:
    path = folder / "model.onnx"
    onnx.save(proto, path, **options)
    (folder / "ops.config").write_text("# reduced\nai.onnx;17;Gemm,Relu\n")
    facts = dict(profile.get("target", {}))
    if "required_operators" in facts:
        facts["required_operators"] = str(folder / facts["required_operators"])
    document = {"name": "test", **profile, "target": facts}
    model = rt.load(path)
    timed = bool({"latency_ms", "cold_start_ms"} & set(profile.get("budgets", {})))
    return audit(
        Workbench(model, rt.open_data(None, model), CPU), Profile.model_validate(document), timed=timed
    )


def found(result: Audit) -> set[str]:
    return {finding.rule for finding in result.findings}
