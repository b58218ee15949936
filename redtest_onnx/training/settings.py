"""How a model is trained."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, TypeAlias, get_args

from redtest_onnx.checks import Between, Natural, Positive, Share, check_settings
from redtest_onnx.errors import InputError

Optimizer: TypeAlias = Literal["auto", "sgd", "adamw", "whitened"]
BatchNorm: TypeAlias = Literal["auto", "train", "frozen"]
Schedule: TypeAlias = Literal["cosine", "steps", "constant"]
Precision: TypeAlias = Literal["auto", "float32", "bfloat16", "float16"]
Augmentation: TypeAlias = Literal["crop", "flip"]
Task: TypeAlias = Literal["auto", "classification", "regression"]

OPTIMIZERS: tuple[Optimizer, ...] = get_args(Optimizer)
AUGMENTATIONS: tuple[Augmentation, ...] = get_args(Augmentation)
TASKS: tuple[Task, ...] = get_args(Task)


@dataclass(frozen=True)
class TrainingSettings:
    """What a run of training depends on, beside the model and the data.

    Attributes:
        epochs: passes over the training samples.
        batch_size: samples per step; over all processes of a distributed run together.
        optimizer: "whitened" is Adam in whitened coordinates of the linear operators, which goes on where a
            repair ended; all other weights are frozen. "auto" takes it with a teacher and no labels, else
            AdamW for models with layer normalisation and SGD for others.
        lr: highest learning rate; None for 0.02 with SGD, 0.0005 with AdamW and 0.0003 with "whitened".
        momentum: of SGD (Nesterov's).
        weight_decay: None for 0.0005 with SGD and 0.01 with AdamW; vectors and scalars don't decay, and
            "whitened" has none.
        schedule: the learning rate after warm-up: a half cosine down to 0, a tenth after half and after three
            quarters of the steps, or constant.
        warmup: share of the steps in which the learning rate rises.
        augment: changes to training images: "crop" pads by an eighth and crops back, "flip" mirrors half.
        label_smoothing: share of the target spread over all classes.
        teacher_weight: share of the loss that compares with the teacher, where there are labels too.
        temperature: softens the distributions that are compared (Hinton et al., arXiv 1503.02531).
        feature_weight: weight of the loss on tensors inside that student and teacher both have.
        clip: largest norm of the gradient.
        batch_norm: "train" tracks statistics, "frozen" keeps them; "auto" keeps them with "whitened".
        precision: of the forward pass; "auto" is bfloat16 on GPUs that have it and float32 elsewhere.
        task: what the outputs are; "auto" takes classification where there are labels or a final softmax.
        validation: share of the samples that choose the best epoch, if none are given for that.
        patience: epochs without improvement after which training stops; None to go on.
        seed: random seed.
    """

    epochs: Positive = 20
    batch_size: Positive = 64
    optimizer: Optimizer = "auto"
    lr: Annotated[float, Between(1e-12, 1e3)] | None = None
    momentum: Share = 0.9
    weight_decay: Annotated[float, Between(0, 10)] | None = None
    schedule: Schedule = "cosine"
    warmup: Share = 0.05
    augment: tuple[Augmentation, ...] = ()
    label_smoothing: Share = 0.0
    teacher_weight: Share = 0.5
    temperature: Annotated[float, Between(1e-3, 1e3)] = 2.0
    feature_weight: Annotated[float, Between(0)] = 0.0
    clip: Annotated[float, Between(1e-6)] = 5.0
    batch_norm: BatchNorm = "auto"
    precision: Precision = "auto"
    task: Task = "auto"
    validation: Annotated[float, Between(0.001, 0.9)] = 0.1
    patience: Positive | None = None
    seed: Natural = 0

    def __post_init__(self) -> None:
        check_settings(self)
        if self.optimizer == "whitened" and self.weight_decay:
            raise InputError(
                "@optimizer=whitened, taken with a teacher and no labels, has no @weight_decay",
                hint="@optimizer=sgd or @optimizer=adamw",
            )

    @property
    def statistics(self) -> Literal["train", "frozen"]:
        """What batch normalisation does with its running statistics."""
        if self.batch_norm == "auto":
            return "frozen" if self.optimizer == "whitened" else "train"
        return self.batch_norm

    def fixed(self) -> dict[str, Any]:
        """The settings as plain values, to be held against those of an interrupted run."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}
