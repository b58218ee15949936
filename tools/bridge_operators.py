"""Run the ONNX project's backend node tests through the PyTorch bridge and write docs/bridge-operators.md.

Usage: python tools/bridge_operators.py [--check]
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import torch
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.loader import load_model_tests

from redtest_onnx.bridge import to_torch
from redtest_onnx.bridge.dtypes import TRAINABLE, to_tensor
from redtest_onnx.bridge.refusal import all_nodes
from redtest_onnx.bridge.registry import registered
from redtest_onnx.errors import InputError
from redtest_onnx.graph.model import Model, first_line

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "bridge-operators.md"

# Relative tolerance of half precision: two units in the last place, which the tests' own doesn't leave.
HALF = {"float16": 2**-9, "bfloat16": 2**-6}

INTRODUCTION = """# Operators of the PyTorch bridge

Written by `tools/bridge_operators.py` with onnx {onnx}, onnxruntime {ort} and torch {torch}.

The ONNX project tests each operator with small models. Of those that ONNX Runtime passes, the bridge passes

* {float_passed} of {float_total} ({share:.1%}) whose inputs and outputs are all float tensors,
* {passed} of {total} altogether.

A node runs with the newest form of its operator that the model's operator set can mean. Operators without a
kernel that ONNX defines by simpler ones (`SwiGLU`, `FlexAttention`) are replaced by their definition.
"""


@dataclass(frozen=True)
class Outcome:
    """What became of one node test.

    Attributes:
        name: the test's name.
        floats: whether all inputs and outputs are float tensors.
        failure: why the bridge fails; None if it passes.
    """

    name: str
    floats: bool
    failure: str | None


def node_tests(every: int = 1) -> list[TestCase]:
    """The node tests that ONNX Runtime passes; of each `every` tests one."""
    ort.set_default_logger_severity(4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [case for case in load_model_tests(kind="node")[::every] if runtime_passes(case)]


def outcome(case: TestCase) -> Outcome:
    """Run one test through the bridge."""
    values = (*case.model.graph.input, *case.model.graph.output)
    floats = all(v.type.tensor_type.elem_type in TRAINABLE for v in values)
    return Outcome(case.name, floats, failure(case))


def runtime_passes(case: TestCase) -> bool:
    """Whether ONNX Runtime computes what the test expects."""
    names = [value.name for value in case.model.graph.input]
    try:
        session = ort.InferenceSession(case.model.SerializeToString(), providers=["CPUExecutionProvider"])
        return all(
            agree(session.run(None, dict(zip(names, map(_fed, inputs), strict=True))), outputs, case)
            for inputs, outputs in case.data_sets
        )
    except Exception:  # a refusal of any kind; ONNX Runtime has no common type for them
        return False


def failure(case: TestCase) -> str | None:
    """Why the bridge doesn't compute what a test expects; None if it does."""
    try:
        module = to_torch(Model(case.model))
        for inputs, outputs in case.data_sets:
            with torch.no_grad():
                results = module(*map(_as_torch, inputs))
            if not agree(results if isinstance(results, tuple) else (results,), outputs, case):
                return _random(case) or "other values"
    except InputError as error:
        return error.what.replace("can't be trained in PyTorch because of its operators", "refused")
    except NotImplementedError:
        return "torch has no arithmetic for this integer type"
    except Exception as error:  # one crash must not hide the other results; its text is listed
        return f"{type(error).__name__}: {first_line(error)}"
    return None


def agree(results: Sequence[Any], expected: Sequence[Any], case: TestCase) -> bool:
    """Whether results equal the expected ones in shape, and in value within the test's tolerance."""
    if len(results) != len(expected):
        return False
    return all(_equal(result, value, case) for result, value in zip(results, expected, strict=True))


def document(outcomes: Sequence[Outcome]) -> str:
    """The page: shares, the failing tests with reasons, and the operators."""
    floats = [o for o in outcomes if o.floats]
    parts = [
        INTRODUCTION.format(
            onnx=onnx.__version__,
            ort=ort.__version__,
            torch=torch.__version__.partition("+")[0],
            float_passed=sum(o.failure is None for o in floats),
            float_total=len(floats),
            share=sum(o.failure is None for o in floats) / len(floats),
            passed=sum(o.failure is None for o in outcomes),
            total=len(outcomes),
        ),
        "## Tests that fail\n\n### Float tensors\n\n" + _failures(floats),
        "### Other types\n\n" + _failures([o for o in outcomes if not o.floats]),
        "## Operators with a kernel\n\n" + _operators(),
    ]
    return "\n".join(parts)


def _failures(outcomes: Sequence[Outcome]) -> str:
    by_reason: defaultdict[str, list[str]] = defaultdict(list)
    for item in outcomes:
        if item.failure is not None:
            by_reason[item.failure].append(item.name.removeprefix("test_"))
    rows = [f"| {reason} | {', '.join(names)} |\n" for reason, names in sorted(by_reason.items())]
    return "| reason | tests |\n|---|---|\n" + "".join(rows)


def _operators() -> str:
    names: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for item in registered():
        names[item.domain or "ai.onnx"][item.name] = None
    return "\n\n".join(f"`{domain}`: {', '.join(found)}." for domain, found in sorted(names.items())) + "\n"


def _random(case: TestCase) -> str | None:
    """The reason where a test holds the numbers of another generator."""
    names = {node.op_type for node in all_nodes(case.model.graph)}
    return "random numbers are torch's own" if names & {"Dropout", "Bernoulli"} else None


def _array(value: Any) -> npt.NDArray[np.generic]:
    """A test's value as an array; some are stored as protos."""
    return onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)


def _fed(value: Any) -> Any:
    """An input as ONNX Runtime takes it."""
    return value if value is None or isinstance(value, list) else _array(value)


def _as_torch(value: Any) -> Any:
    """An input as the module takes it."""
    if isinstance(value, list):
        return [_as_torch(item) for item in value]
    return None if value is None else to_tensor(_array(value))


def _equal(result: Any, expected: Any, case: TestCase) -> bool:
    if isinstance(expected, list):
        return agree(result, expected, case)
    if result is None or expected is None:
        return result is expected
    if isinstance(result, torch.Tensor):
        result = (result.float() if result.dtype is torch.bfloat16 else result).numpy()
    result, expected = np.asarray(result), _array(expected)
    if result.shape != expected.shape:
        return False
    kind, name = expected.dtype.kind, expected.dtype.name
    if kind not in "fc" and name not in HALF:
        return bool((result == expected).all())
    wide = np.complex128 if kind == "c" else np.float64
    rtol = max(case.rtol, HALF.get(name, 0))
    atol = max(case.atol, 1e-5)
    return np.allclose(result.astype(wide), expected.astype(wide), rtol=rtol, atol=atol, equal_nan=True)


def main() -> int:
    """Write the page, or compare it with what would be written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if the page is out of date")
    check = parser.parse_args().check
    text = document([outcome(case) for case in node_tests()])
    if check:
        return int(DOCUMENT.read_text(encoding="utf-8") != text)
    DOCUMENT.parent.mkdir(exist_ok=True)
    DOCUMENT.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
