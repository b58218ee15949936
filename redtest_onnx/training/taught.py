"""What a teacher is fed whose student lost inputs: caches leave the signature with the layers that go."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

import torch
from torch import Tensor

from redtest_onnx.bridge.module import OnnxModule
from redtest_onnx.errors import InputError
from redtest_onnx.graph.caches import find_caches, role_of
from redtest_onnx.graph.model import Model, TensorSpec
from redtest_onnx.graph.signature import batch_axes
from redtest_onnx.training.axes import POOLED_SAMPLES, SampleAxes, pooled_variance
from redtest_onnx.training.batches import Samples
from redtest_onnx.training.objective import TappedModule


class TeacherModule(TappedModule):
    """A teacher that is fed its student's inputs.

    Args:
        module: from `to_torch`.
        names: tensors to return.
        sources: from `cache_sources`.
        axes: of the student; samples are in front if None.
    """

    def __init__(
        self,
        module: OnnxModule,
        names: tuple[str, ...],
        sources: Mapping[str, str],
        axes: SampleAxes | None = None,
    ) -> None:
        super().__init__(module, names, axes)
        self._sources = dict(sources)

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Values by name.

        Raises:
            InputError: a cache holds values: which of the teacher's layers they belong to can't be known.
        """
        filled = {name: inputs[source] for name, source in self._sources.items()}
        if any(bool(value.any()) for value in filled.values()):
            raise InputError(
                "the samples hold caches with values, which the teacher numbers in another way",
                hint="train with empty caches: texts as @data feed them",
            )
        return super().forward(**inputs, **filled)


def teacher_variances(teacher: TeacherModule, samples: Samples) -> dict[str, float]:
    """Variances of a teacher's tensors over several samples; none where a run holds several by itself.

    Args:
        teacher: the teacher.
        samples: for training.
    """
    if not samples.axes.one:
        return {}
    training = teacher.training
    teacher.eval()
    with torch.no_grad():
        runs = [teacher(**batch.inputs) for batch in islice(samples.in_order(), POOLED_SAMPLES)]
    teacher.train(training)
    return {name: pooled_variance(run[name] for run in runs) for name in teacher.names}


def cache_sources(teacher: Model, student: Model) -> dict[str, str]:
    """The student's input that each input which only the teacher has is fed like: a cache of the same kind.

    Raises:
        InputError: the inputs differ by something else, or in their sizes or types.
    """
    specs, axes = {spec.name: spec for spec in student.inputs}, batch_axes(student)
    for spec in teacher.inputs:
        own = specs.get(spec.name)
        if own is not None and not _alike(own, spec, axes[spec.name] or 0):
            raise InputError(
                f"the teacher takes {spec.name!r} as {spec}, the model as {own}",
                where=teacher.label,
                hint="the teacher is the original model",
            )
    ours, theirs = ([spec.name for spec in model.inputs] for model in (student, teacher))
    if ours == theirs:
        return {}
    caches = {cache.input for cache in find_caches(teacher) if cache.number is not None}
    by_role = {role_of(name): name for name in ours if name in caches}
    found = {name: by_role.get(role_of(name), "") for name in theirs if name in caches - set(ours)}
    if sorted([*ours, *found]) != sorted(theirs) or not all(found.values()):
        raise InputError(
            "the teacher takes other inputs than the model",
            where=teacher.label,
            hint="the teacher is the original model",
        )
    return found


def _alike(one: TensorSpec, other: TensorSpec, samples: int) -> bool:
    """Whether two inputs can be fed the same values; batches, on the axis of samples, may differ in size."""
    if one.dtype != other.dtype or one.shape is None or other.shape is None:
        return one.dtype == other.dtype
    pairs = [pair for k, pair in enumerate(zip(one.shape, other.shape, strict=False)) if k != samples]
    fixed = all(a == b or not (isinstance(a, int) and isinstance(b, int)) for a, b in pairs)
    return fixed and len(one.shape) == len(other.shape)
