"""Rules about numbers: are there any, the same ones each time, and would they survive half precision?"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

import numpy as np

from redtest_onnx.auditing.findings import Problem
from redtest_onnx.auditing.own_inputs import is_fault_of_model
from redtest_onnx.auditing.registry import rule
from redtest_onnx.auditing.subject import Subject

_LARGEST_HALF = float(np.finfo(np.float16).max)


@rule(
    "RT060",
    "not-finite",
    "error",
    explanation="Outputs hold NaN or infinity, or the run fails, on ordinary inputs: zeros, noise, or your "
    "data.",
    fix="Look for a division by a variance or norm that is zero, a logarithm or root of what is "
    "not positive.",
    runs=True,
)
def not_finite(subject: Subject) -> Iterator[Problem]:
    """Zero, random and real inputs."""
    for kind, outputs in subject.broken.items():
        if kind != "large" and is_fault_of_model(subject, kind):
            yield Problem(f"on {kind} inputs: {', '.join(outputs)}", kind, tensors=outputs)


@rule(
    "RT061",
    "overflows-on-large-inputs",
    "note",
    explanation="Inputs a thousand times larger than usual, as from a missing normalisation, give NaN or "
    "infinity "
    "instead of a wrong number: nothing downstream will notice.",
    fix="Clip or check the inputs in front of the model.",
    runs=True,
)
def overflows_on_large_inputs(subject: Subject) -> Iterator[Problem]:
    """Inputs a thousand times too large."""
    if outputs := subject.broken.get("large"):
        yield Problem(f"NaN or infinity in {', '.join(outputs)}", "large", tensors=outputs)


@rule(
    "RT062",
    "not-deterministic",
    "warning",
    explanation="The same input gives different outputs: tests can't be compared, failures not repeated.",
    fix="Remove random operators from the exported graph: export in evaluation mode.",
    runs=True,
)
def not_deterministic(subject: Subject) -> Iterator[Problem]:
    """Two runs in one session, and one in a fresh session."""
    if outputs := subject.varying:
        yield Problem(f"{', '.join(outputs)} differ between runs", "varying", tensors=outputs)


@rule(
    "RT063",
    "activation-beyond-float16",
    "warning",
    explanation="float16 ends at 65,504: in half precision these activations become infinite.",
    fix="Keep the operators that make them in float32 when converting.",
    runs=True,
)
def activation_beyond_float16(subject: Subject) -> Iterator[Problem]:
    """Largest magnitudes on usual inputs."""
    # What is infinite in float32 already is the finding of other rules, or a mask's.
    found = {name: value for name, value in subject.magnitudes.items() if _LARGEST_HALF < value < inf}
    if found:
        worst = max(found, key=lambda name: found[name])
        many = "1 activation exceeds" if len(found) == 1 else f"{len(found)} activations exceed"
        yield Problem(
            f"{many} float16, the largest is {found[worst]:.4g} in {worst}",
            "half",
            tensors=tuple(found),
        )
