"""What training minimises: the error on labels, the distance to a teacher, or both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional

from redtest_onnx.bridge.module import OnnxModule
from redtest_onnx.errors import InputError
from redtest_onnx.graph.caches import find_caches
from redtest_onnx.graph.index import index_of
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.shapes import infer_shapes
from redtest_onnx.runtime.outputs.rows import data_dependent_part
from redtest_onnx.training.axes import SampleAxes
from redtest_onnx.training.positions import without_uncounted
from redtest_onnx.training.settings import TrainingSettings

_TINY = 1e-12
# The element types a loss can compare.
_FLOATS = frozenset({onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16})


class TappedModule(nn.Module):
    """A model whose forward pass also returns tensors inside it, so that any wrapper sees one forward.

    Args:
        module: from `to_torch`.
        names: tensors to return.
        axes: of the model; samples are in front if None.
    """

    def __init__(self, module: OnnxModule, names: tuple[str, ...], axes: SampleAxes | None = None) -> None:
        super().__init__()
        self.module = module
        self.names = names
        self._axes = axes or SampleAxes()

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Values by name, with samples in front."""
        return self._axes.samples_first(self.module.tensors(self.names, **inputs))


@dataclass(frozen=True)
class TrainingObjective:
    """A loss.

    Attributes:
        scores: the tensors that stand for the outputs: what goes into a final softmax, else the output.
        classify: whether scores are logits of classes.
        class_axis: their axis of classes; None where the rank tells.
        features: tensors inside that student and teacher both have.
        labelled: whether labels are used.
        taught: whether there is a teacher.
        settings: the weights of the parts.
        positional: tensors that hold the positions of a sequence, of which a mask leaves some out.
        axes: of the model.
        variances: of the teacher's tensors over samples, where a run is one sample and can't tell them.
    """

    scores: tuple[str, ...]
    classify: bool
    class_axis: int | None
    features: tuple[str, ...]
    labelled: bool
    taught: bool
    settings: TrainingSettings
    positional: frozenset[str] = frozenset()
    axes: SampleAxes = field(default_factory=SampleAxes)
    variances: Mapping[str, float] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """All tensors the loss needs."""
        return tuple(dict.fromkeys((*self.scores, *self.features)))

    def loss(
        self,
        student: Mapping[str, Tensor],
        labels: Tensor | None,
        teacher: Mapping[str, Tensor] | None,
        counted: Tensor | None = None,
    ) -> Tensor:
        """The loss of a batch.

        Args:
            student: values of `names`, samples in front.
            labels: classes, int64 [n]; None without labels.
            teacher: values of `names`; None without a teacher.
            counted: [n, positions] which positions count; None where all do.

        Returns:
            A scalar, float32.
        """
        settings = self.settings
        total = torch.zeros((), device=next(iter(student.values())).device)
        share = settings.teacher_weight if self.labelled else 1.0
        if self.labelled and labels is not None:
            error = functional.cross_entropy(
                self._logits(student), labels, label_smoothing=settings.label_smoothing
            )
            total = total + (1 - share if teacher is not None else 1.0) * error
        if teacher is not None:
            distances = [self._distance(name, student[name], teacher[name], counted) for name in self.scores]
            total = total + share * torch.stack(distances).mean()
            if self.features:
                apart = [
                    self._relative_error(name, student[name], teacher[name], counted)
                    for name in self.features
                ]
                total = total + settings.feature_weight * torch.stack(apart).mean()
        return total

    def right(self, student: Mapping[str, Tensor], labels: Tensor, count: int) -> int:
        """How many of the first `count` samples have their largest score at the label."""
        found = self._logits(student)[:count].argmax(1) == labels[:count]
        return int(found.sum())

    def _logits(self, values: Mapping[str, Tensor]) -> Tensor:
        """Scores of the first output, [n, classes]."""
        scores = values[self.scores[0]].float()
        return scores.reshape(len(scores), -1)

    def _counted(self, name: str, counted: Tensor | None) -> Tensor | None:
        return counted if name in self.positional else None

    def _distance(self, name: str, ours: Tensor, theirs: Tensor, counted: Tensor | None) -> Tensor:
        """Kullback-Leibler divergence of softened distributions, or the error relative to the variance."""
        if not self.classify:
            return self._relative_error(name, ours, theirs, counted)
        rank, counted = ours.dim(), self._counted(name, counted)
        axis = -1 if rank == 3 else 1
        if self.class_axis is not None:
            axis = self.axes.moved(name, self.class_axis, rank)
        ours, theirs = (without_uncounted(values, counted, axis) for values in (ours, theirs))
        heat = self.settings.temperature
        ours = functional.log_softmax(ours.float() / heat, axis)
        theirs = functional.log_softmax(theirs.float() / heat, axis)
        positions = ours.numel() / ours.shape[axis]
        return functional.kl_div(ours, theirs, reduction="sum", log_target=True) / positions * heat**2

    def _relative_error(self, name: str, ours: Tensor, theirs: Tensor, counted: Tensor | None) -> Tensor:
        """Mean squared difference as a share of the teacher's variance."""
        counted = self._counted(name, counted)
        if ours.shape != theirs.shape:
            raise InputError(
                f"student and teacher give {list(ours.shape)} and {list(theirs.shape)} for the same tensor",
                hint="@feature_weight=0 compares outputs only; the teacher must be the original model",
            )
        wanted = without_uncounted(theirs.float(), counted)
        error = functional.mse_loss(without_uncounted(ours.float(), counted), wanted)
        if name in self.variances:
            return error / max(self.variances[name], _TINY)
        # One number has no variance; it is held against itself.
        scale = wanted.var(correction=0) if wanted.numel() > 1 else wanted.square().sum()
        return error / scale.clamp_min(_TINY)


def make_objective(
    model: Model,
    settings: TrainingSettings,
    *,
    labelled: bool,
    teacher: Model | None,
    features: tuple[str, ...],
    axes: SampleAxes | None = None,
) -> TrainingObjective:
    """Decide what to minimise.

    Args:
        model: what is trained.
        settings: see `TrainingSettings`.
        labelled: whether the data has labels.
        teacher: the model to imitate.
        features: tensors inside both models to compare, used if `settings.feature_weight` is positive.
        axes: of the model; samples are in front if None.

    Raises:
        InputError: there are neither labels nor a teacher, or no output is of floating point.
    """
    softmaxes = {name: final_softmax(model, name) for name in _trained_tensors(model)}
    if not softmaxes:
        raise InputError("has no output of floating point to train", where=model.label)
    classify = labelled or any(softmaxes.values())
    if settings.task != "auto":
        classify = settings.task == "classification"
    labelled = labelled and classify
    if not labelled and teacher is None:
        raise InputError(
            "nothing to learn from: the data has no labels and there is no teacher",
            where=model.label,
            hint="give labelled @data, or the original model as @teacher",
        )
    before = {name: found[0] if found and classify else name for name, found in softmaxes.items()}
    scores = tuple(before.values())
    if teacher is not None:
        missing = [name for name in scores if name not in _tensors(teacher)]
        scores = tuple(before) if missing else scores
    class_axes = {found[1] for found in softmaxes.values() if found}
    return TrainingObjective(
        scores,
        classify,
        class_axes.pop() if len(class_axes) == 1 else None,
        features if settings.feature_weight > 0 and teacher is not None else (),
        labelled,
        teacher is not None,
        settings,
        axes=axes or SampleAxes(),
    )


def final_softmax(model: Model, output: str) -> tuple[str, int | None] | None:
    """The logits behind an output, and their axis of classes if the file names it; None without softmax."""
    makers = {name: node for node in model.graph.node for name in node.output}
    node = makers.get(output)
    while node is not None and node.op_type in ("Identity", "Cast"):
        node = makers.get(node.input[0])
    if node is None or node.op_type not in ("Softmax", "LogSoftmax"):
        return None
    axis = next((a.i for a in node.attribute if a.name == "axis"), None)
    return node.input[0], axis


def common_features(student: Model, teacher: Model, candidates: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the candidates that both graphs compute."""
    both = _tensors(student) & _tensors(teacher)
    return tuple(name for name in candidates if name in both)


def _tensors(model: Model) -> set[str]:
    return {name for node in model.graph.node for name in node.output if name}


def _trained_tensors(model: Model) -> list[str]:
    """The floating-point outputs; for detections, whose rows depend on values, what lies in front.

    Where layers lie behind a choice of as many rows, as in mixtures of experts, they learn from the output.
    Caches of single layers follow the layers in front of them; in a pruned model they have other numbers.
    """
    shapes, found = infer_shapes(model, {}), dict[str, None]()
    caches = {cache.output for cache in find_caches(model) if cache.number is not None}
    for spec in [spec for spec in model.outputs if spec.name not in caches] or model.outputs:
        part = data_dependent_part(index_of(model), shapes, spec.name)
        if part is not None and not (part.layers_behind and part.keeps_sizes and spec.dtype in _FLOATS):
            found.update(dict.fromkeys(name for name, _, _ in part.front))
        elif spec.dtype in _FLOATS:
            found[spec.name] = None
    return list(found)
