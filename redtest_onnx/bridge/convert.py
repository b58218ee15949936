"""From an ONNX model to a PyTorch module."""

from __future__ import annotations

import redtest_onnx.bridge.ops  # noqa: F401  (registers the operators)
from redtest_onnx.bridge.compiler import Compiler
from redtest_onnx.bridge.dtypes import TORCH, to_tensor
from redtest_onnx.bridge.module import BatchNorm, OnnxModule, StoredTensors
from redtest_onnx.bridge.prepare import prepare
from redtest_onnx.bridge.refusal import check_operators
from redtest_onnx.bridge.roles import assign_roles
from redtest_onnx.bridge.untie import Untie, chosen
from redtest_onnx.graph.model import Model


def check_trainable(model: Model) -> None:
    """Check a model's operators without converting it, before other work is done for its training.

    Raises:
        InputError: it holds operators that can't be trained; all are named at once.
    """
    prepared = prepare(model, ())
    check_operators(prepared.graph, prepared.opsets, model.label)


def to_torch(model: Model, *, batch_norm: BatchNorm = "train", untie: Untie = "none") -> OnnxModule:
    """Make a PyTorch module that computes what the model computes and can be trained.

    Float initializers that act as weights are parameters under their ONNX names. Running statistics of batch
    normalisation are buffers. Single numbers such as attention scales, shape tensors and integer tables are
    buffers outside the state dict. See `roles.assign_roles` for the rules.

    Args:
        model: the model.
        batch_norm: "train" uses and tracks the statistics of each batch in `train()`; "frozen" keeps the
            stored statistics also there. Scale and bias are parameters either way.
        untie: initializers with several readers that become one parameter per reader: "none", "merged" (those
            whose elements are all equal, which exporters merge), or a collection of names.

    Returns:
        The module, in `eval()` mode.

    Raises:
        InputError: the model holds operators or types that can't be trained; all are named at once.
    """
    prepared = prepare(model, chosen(model, untie))
    check_operators(prepared.graph, prepared.opsets, model.label)
    roles = assign_roles(model, prepared)
    tensors = {
        name: to_tensor(model.value(item.tensor))
        for name, item in prepared.stored.items()
        if item.tensor.data_type in TORCH
    }
    parameters = {name: tensors.pop(name) for name in prepared.stored if name in roles.parameters}
    statistics = {name: tensors.pop(name) for name in prepared.stored if name in roles.statistics}
    compiler = Compiler(prepared.opsets, tensors, {**parameters, **statistics})
    program = compiler.compile(prepared.graph)
    constants = {name: tensor for name, tensor in compiler.constants.items() if name in program.reads}
    module = OnnxModule(
        program,
        tuple(spec.name for spec in model.inputs),
        tuple(spec.name for spec in model.outputs),
        StoredTensors(parameters, statistics, constants, prepared.copies),
        batch_norm,
    )
    return module.eval()
