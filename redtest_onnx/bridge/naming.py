"""Place tensors in a module under their ONNX names.

A name such as `layer1.0.conv.weight` becomes a tree of modules, so that `state_dict()` has the ONNX names as
keys. Parts that torch can't take (empty ones, names of `nn.Module`'s own attributes, a tensor and a module of
the same name) get underscores behind them.
"""

from __future__ import annotations

import torch
from torch import nn


def place(root: nn.Module, name: str, tensor: torch.Tensor, *, persistent: bool = True) -> str:
    """Add a tensor to `root`: parameters as parameters, other tensors as buffers.

    Args:
        root: the module.
        name: the ONNX name.
        tensor: a parameter or tensor.
        persistent: whether a buffer is part of the state dict.

    Returns:
        The path below `root`, dotted; equal to `name` wherever torch takes it.
    """
    *scopes, leaf = name.split(".")
    path: list[str] = []
    module = root
    for scope in scopes:
        module, part = _child(module, scope)
        path.append(part)
    part = leaf or "_"
    while hasattr(module, part):
        part += "_"
    if isinstance(tensor, nn.Parameter):
        module.register_parameter(part, tensor)
    else:
        module.register_buffer(part, tensor, persistent=persistent)
    return ".".join([*path, part])


def _child(module: nn.Module, scope: str) -> tuple[nn.Module, str]:
    """The container `scope` inside `module`, made if it is missing, and the name it has there."""
    part = scope or "_"
    while part not in module._modules and hasattr(module, part):
        part += "_"
    if part not in module._modules:
        module.add_module(part, nn.Module())
    child = module.get_submodule(part)
    return child, part
