"""The bridge to PyTorch and back: train an ONNX model without changing its graph."""

from redtest_onnx.errors import RuntimeUnavailableError
from redtest_onnx.runtime.interrupt import delayed_interrupts

try:
    with delayed_interrupts():
        import torch  # noqa: F401
except (ImportError, OSError) as error:  # OSError: a library of it that can't be loaded
    if isinstance(error, ModuleNotFoundError) and error.name == "torch":
        raise RuntimeUnavailableError(
            "PyTorch is not installed", hint="pip install 'redtest-onnx[torch]'"
        ) from error
    raise RuntimeUnavailableError(
        f"PyTorch is installed, but it can't be imported ({error})",
        hint="python -c 'import torch' must work; install it again for this machine",
    ) from error

from redtest_onnx.bridge.convert import check_trainable, to_torch
from redtest_onnx.bridge.module import OnnxModule
from redtest_onnx.bridge.verify import Verification, verify
from redtest_onnx.bridge.write_back import from_torch

__all__ = ["OnnxModule", "Verification", "check_trainable", "from_torch", "to_torch", "verify"]
