"""From the tensors that stand for an output to one verdict on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from redtest_onnx.metrics.agreement.base import MeasureResult
from redtest_onnx.metrics.agreement.boxes import BoxSetSum
from redtest_onnx.metrics.agreement.summary import OutputAgreement
from redtest_onnx.runtime.outputs.kinds import JudgedTensor, ModelOutput


def judge_output(
    output: ModelOutput,
    results: Mapping[JudgedTensor, MeasureResult],
    random: frozenset[str] = frozenset(),
) -> OutputAgreement:
    """The verdict on an output: that of the tensor that agrees least.

    Args:
        output: what it is.
        results: of its tensors.
        random: tensors that differ from run to run of the original itself.
    """
    found = [
        (tensor, result)
        for tensor, result in results.items()
        if result.agreement is not None and tensor.name not in random
    ]
    plain = OutputAgreement(output.name, output.kind, output.axis, "not judged", None, steers=output.steers)
    if output.kind == "ignore" or not found:
        why = output.note or (
            "not judged: its values differ from run to run of the original itself"
            if any(tensor.name in random for tensor in results)
            else "not judged: the user says so"
            if output.kind == "ignore"
            else "not judged: it gave nothing to compare"
        )
        return replace(plain, note=why)
    tensor, worst = min(found, key=lambda pair: pair[1].agreement or 0.0)
    names = tuple(dict.fromkeys(t.name for t, _ in found if t.name != output.name))
    measure = worst.measure if not names else f"{worst.measure}, at {tensor.name}"
    return OutputAgreement(
        name=output.name,
        kind=output.kind,
        axis=output.axis,
        measure=measure,
        agreement=worst.agreement,
        steers=output.steers,
        tensors=names,
        details=worst.details,
        note=output.note,
        interval=worst.interval,
    )


def with_sets(part: OutputAgreement, sets: BoxSetSum | None, *, decides: bool) -> OutputAgreement:
    """The verdict with what matching rows as sets says.

    Args:
        part: the verdict in front of the data-dependent part.
        sets: the matching; None where rows are no boxes.
        decides: whether layers lie behind, so that the front alone does not tell.
    """
    if sets is None:
        return part
    result = sets.result()
    details = {**part.details, **result.details}
    worse = part.agreement is None or (decides and (result.agreement or 0.0) < part.agreement)
    if worse and part.kind != "ignore":
        return replace(
            part, agreement=result.agreement, measure=result.measure, details=details, interval=None
        )
    return replace(part, details=details)
