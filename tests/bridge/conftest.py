"""The bridge needs PyTorch, which the package itself does not."""

import pytest

pytest.importorskip("torch", reason="the bridge needs PyTorch: pip install 'redtest-onnx[torch]'")
