"""Imports PyTorch for a search, or says how to install it."""

from __future__ import annotations

from typing import Any

from redtest_onnx.errors import InputError
from redtest_onnx.runtime.interrupt import delayed_interrupts


def require_torch() -> Any:
    """The torch module.

    Raises:
        InputError: it is not installed.
    """
    try:
        with delayed_interrupts():
            import torch
    except ImportError as error:
        raise InputError(
            "building and training networks needs PyTorch", hint='pip install "redtest-onnx[nas]"'
        ) from error
    return torch
