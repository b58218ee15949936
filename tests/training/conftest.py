"""Training needs PyTorch, which the package itself does not."""

import pytest

pytest.importorskip("torch", reason="training needs PyTorch: pip install 'redtest-onnx[torch]'")
