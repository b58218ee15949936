"""Go on behind a short refit by distillation without labels, where PyTorch is installed."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

import onnx

from redtest_onnx.errors import RuntimeUnavailableError
from redtest_onnx.graph.model import Model
from redtest_onnx.runtime.outputs.kinds import SCORES, JudgedTensor
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analyze import Progress
from redtest_onnx.training.distil.settings import DistilSettings

if TYPE_CHECKING:
    from redtest_onnx.training.distil.loss import DistilTarget

REFIT_SAMPLES, REFIT_ROUNDS = 768, 1
"""A short refit is enough in front of a distillation; more of it has no effect (docs/depth-pruning.md)."""
_FORWARD_AND_BACKWARD = 3  # passes as dear as a forward pass
_FLOATS = frozenset({onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16})


@dataclass(frozen=True)
class UnlabelledTraining:
    """What a distillation took, and the loss it minimised on samples that were not learnt from.

    Attributes:
        steps: of the optimiser.
        seconds: wall time.
        loss_before: loss behind the refit.
        loss_after: loss behind the last step.
    """

    steps: int
    seconds: float
    loss_before: float
    loss_after: float


@dataclass(frozen=True)
class TrainingOffer:
    """Training without labels that could make up for part of what a refit loses.

    Attributes:
        macs: multiply-accumulates that it takes; None if unknown.
        installed: whether PyTorch is.
        accepted: whether it is short enough to be done without being asked for.
    """

    macs: float | None
    installed: bool
    accepted: bool


def training_offer(bench: Workbench, refitted: Workbench, settings: DistilSettings) -> TrainingOffer:
    """What training behind a refit would take.

    The work is counted, not timed, so that the same command does the same on a busy machine.

    Args:
        bench: the original and calibration samples.
        refitted: the pruned model behind a refit.
        settings: of the training; with `seconds` it is always accepted, since they bound it.
    """
    original, pruned = bench.cost.macs, refitted.cost.macs
    macs = None
    if original is not None and pruned is not None:
        taught = len(bench.splits.fit) * (2 if settings.mirror else 1)
        learnt = _FORWARD_AND_BACKWARD * settings.steps * settings.batch_size
        macs = float(taught * original + learnt * pruned)
    installed = find_spec("torch") is not None
    bounded = settings.seconds is not None or (macs is not None and macs <= settings.unasked_macs)
    return TrainingOffer(macs, installed, installed and bounded)


def require_training() -> None:
    """Check that PyTorch is there before any work is done for it.

    Raises:
        RuntimeUnavailableError: it is not.
    """
    if find_spec("torch") is None:
        raise RuntimeUnavailableError(
            "distillation needs PyTorch", hint='pip install "redtest-onnx[torch]", or @repair=refit'
        )


def require_trainable(model: Model) -> None:
    """Check that PyTorch is there and can run a model, before any work is done for its training.

    Raises:
        RuntimeUnavailableError: PyTorch is not there, or can't be imported.
        InputError: operators that PyTorch can't run here.
    """
    require_training()
    from redtest_onnx.bridge import check_trainable

    check_trainable(model)


def distilled(
    bench: Workbench, refitted: Model, settings: DistilSettings, progress: Progress | None = None
) -> tuple[Model, UnlabelledTraining]:
    """Train a refitted model to give what its original gives; its labels are not used.

    Args:
        bench: the original, with its branches inlined, and calibration samples.
        refitted: the pruned model behind a refit.
        settings: of the training.
        progress: called after each step.

    Raises:
        RuntimeUnavailableError: PyTorch is not installed, or can't be imported.
        InputError: operators that PyTorch can't run here.
    """
    require_training()
    import redtest_onnx.bridge  # noqa: F401 - tells what is wrong with PyTorch, if anything is
    from redtest_onnx.training.axes import SampleAxes
    from redtest_onnx.training.distil.distil import distil
    from redtest_onnx.training.distil.samples import DistilSamples

    splits, axes = bench.splits, SampleAxes.of(bench)
    samples = DistilSamples(bench.data, splits.fit, splits.choose, bench.mask, axes=axes)
    found = distil(
        *(bench.model, refitted, samples, distil_targets(bench, refitted)), settings, bench.options, progress
    )
    return found.model, UnlabelledTraining(found.steps, found.seconds, found.loss_before, found.loss_after)


def distil_targets(bench: Workbench, student: Model) -> list[DistilTarget]:
    """Outputs by their kinds, class scores in front of a softmax, and the ends of stages.

    Args:
        bench: the original.
        student: what became of it; tensors that it lacks, or has with fewer channels, are left out.
    """
    from redtest_onnx.training.distil.loss import DistilTarget

    made = {name for node in student.graph.node for name in node.output if name}
    found = [
        target
        for output in bench.outputs
        if output.steers
        for tensor in output.tensors
        if (target := _target(bench, tensor, made)) is not None
    ]
    named = {target.name for target in found} | {output.name for output in bench.outputs}
    ends = dict.fromkeys(layer.exit for layer in bench.layers("stage"))
    axes, shapes = bench.resolved.batch_axes, bench.shapes
    sizes = bench.successor(student).shapes.sizes
    found += [
        DistilTarget(end, "feature")
        for end in ends
        if end in made and end not in named and shapes.is_float(end) and axes.get(end) == 0
        if sizes.get(end) == shapes.sizes.get(end)
    ]
    return found


def _target(bench: Workbench, tensor: JudgedTensor, made: set[str]) -> DistilTarget | None:
    from redtest_onnx.training.distil.loss import DistilTarget
    from redtest_onnx.training.objective import final_softmax

    if tensor.name not in made or bench.shapes.dtypes.get(tensor.name, onnx.TensorProto.FLOAT) not in _FLOATS:
        return None
    if tensor.kind in SCORES and tensor.axis is not None:
        behind = final_softmax(bench.model, tensor.name)
        if behind is not None and behind[0] in made:
            return DistilTarget(behind[0], "classes", tensor.axis)
        if tensor.scale == "logits":
            return DistilTarget(tensor.name, "classes", tensor.axis)
        return DistilTarget(tensor.name, "values")
    if tensor.kind == "embedding":
        return DistilTarget(tensor.name, "embedding")
    return DistilTarget(tensor.name, "values") if tensor.kind in ("values", "detections") else None
