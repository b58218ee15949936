"""Compare a module with ONNX Runtime's run of the model it belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from redtest_onnx.arrays import ArraysByName
from redtest_onnx.bridge.device import full_float32
from redtest_onnx.bridge.dtypes import to_tensor
from redtest_onnx.bridge.write_back import unwrapped
from redtest_onnx.graph.model import Model
from redtest_onnx.runtime.session import RunOptions, Session

TOLERANCE = 1e-4


@dataclass(frozen=True)
class Verification:
    """How far PyTorch and ONNX Runtime are apart.

    Attributes:
        differences: largest difference per output, as a share of the output's largest magnitude where that is
            above 1; infinite where shapes or non-finite values differ.
        tolerance: what is still taken as equal.
    """

    differences: Mapping[str, float]
    tolerance: float = TOLERANCE

    @property
    def largest(self) -> float:
        """The largest difference over all outputs."""
        return max(self.differences.values())

    @property
    def agrees(self) -> bool:
        """Whether all outputs are equal within the tolerance."""
        return self.largest <= self.tolerance


def verify(
    module: nn.Module, model: Model, inputs: ArraysByName, *, tolerance: float = TOLERANCE
) -> Verification:
    """Run the module (in `eval()`, without gradients) and the model on the same inputs and compare.

    Args:
        module: from `to_torch`, also when wrapped; its mode is restored.
        model: what it should compute, such as the result of `from_torch`.
        inputs: one array per model input.
        tolerance: see `Verification`.

    Raises:
        InputError: the inputs don't fit, or ONNX Runtime refuses the model.
    """
    source = unwrapped(module)
    device = next((t.device for _, t in source.trained()), torch.device("cpu"))
    training = source.training
    source.eval()
    try:
        with torch.no_grad(), full_float32():
            results = source(
                **{name: to_tensor(np.asarray(value)).to(device) for name, value in inputs.items()}
            )
    finally:
        source.train(training)
    expected = Session(model, RunOptions(device="cpu")).run(inputs)
    outputs = results if isinstance(results, tuple) else (results,)
    return Verification(
        {
            name: _difference(out, expected[name])
            for name, out in zip(source.output_names, outputs, strict=True)
        },
        tolerance,
    )


def _difference(output: Tensor, expected: np.ndarray) -> float:
    actual = output.detach().cpu().to(torch.float64).numpy()
    wanted = np.asarray(expected).astype(np.float64)
    if actual.shape != wanted.shape:
        return float("inf")
    finite = np.isfinite(wanted)
    same = np.array_equal(actual[~finite], wanted[~finite], equal_nan=True)
    if not same or not np.isfinite(actual[finite]).all():
        return float("inf")
    if not finite.any():
        return 0.0
    scale = max(1.0, float(np.abs(wanted[finite]).max()))
    return float(np.abs(actual[finite] - wanted[finite]).max()) / scale
