from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from redtest_onnx.metrics.arrays import namespace, to_numpy


def test_namespace_of_numpy_arrays_and_scalars() -> None:
    assert namespace(np.zeros(2)) is np
    assert namespace(np.float64(1)) is np


def test_anything_else_is_refused() -> None:
    with pytest.raises(TypeError, match="got list"):
        namespace([1.0])


def test_host_arrays_are_not_copied() -> None:
    values = np.zeros(3)
    assert to_numpy(values) is values


def test_metrics_import_no_gpu_or_training_library() -> None:
    code = (
        "import sys\n"
        "from redtest_onnx.metrics import arrays, cka, grams, msrs, pqi, statistics\n"
        "print(sorted({'cupy', 'torch', 'onnx', 'onnxruntime', 'scipy'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
