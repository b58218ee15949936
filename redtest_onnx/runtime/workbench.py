"""One model with its data and how it is run: every fact about them is found once, when it is asked for."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import replace
from functools import cached_property

import numpy as np

from redtest_onnx.arrays import Indices
from redtest_onnx.data.batching import leading_indices
from redtest_onnx.data.dataset import Dataset, Feeds, Subset
from redtest_onnx.data.splits import Splits, sample_indices
from redtest_onnx.data.text import Texts
from redtest_onnx.errors import InputError
from redtest_onnx.graph.branches import InlinedModel, are_twins, inline_branches
from redtest_onnx.graph.cost import Cost, count_parameters, model_cost, parameter_bytes
from redtest_onnx.graph.index import GraphIndex, index_of
from redtest_onnx.graph.masks import Mask, find_mask
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.reinsert import InlinedBranch
from redtest_onnx.graph.shapes import Shapes, infer_shapes
from redtest_onnx.graph.signature import batch_axes, fixed_batch
from redtest_onnx.graph.view import with_separate_layers
from redtest_onnx.layers.granularity import Granularity
from redtest_onnx.layers.layer import Layer, find_layers
from redtest_onnx.runtime.answers import Answers
from redtest_onnx.runtime.evaluate import Evaluator
from redtest_onnx.runtime.first_run import survive_first_run
from redtest_onnx.runtime.guesses import may_be_ours, sizes_note
from redtest_onnx.runtime.inputs import fit_inputs, inputs_to_try, keep_decoded
from redtest_onnx.runtime.outputs.arrange import samples_per_run
from redtest_onnx.runtime.outputs.find import find_outputs
from redtest_onnx.runtime.outputs.kinds import ModelOutput
from redtest_onnx.runtime.session import Level, RunOptions, Session, runs_elsewhere
from redtest_onnx.runtime.session_room import drop_oldest, register_holder
from redtest_onnx.runtime.shapes import ResolvedShapes, resolve_shapes

_SESSIONS = 2  # kept open per model; each holds the weights once more
_EVALUATORS = 2  # each holds the outputs of the reference on its samples


class Workbench:
    """A model, samples for it and the options to run it with, and what follows from them.

    Stages take a workbench instead of these three. Nothing that it found about its model is computed twice;
    a model that was made of it gets a workbench of its own by `successor`.

    Args:
        model: the model; never changed.
        data: samples for its inputs.
        options: device and threads.
        seed: of the choice of samples and of every other random choice.
        evaluation: other samples that judge results; samples of `data` that were held out if None.
        splits: which samples serve which purpose; the seed decides if None.

    Raises:
        InputError: sizes that don't fit the inputs, or a first run in a process of its own that crashed.
    """

    def __init__(
        self,
        model: Model,
        data: Dataset,
        options: RunOptions | None = None,
        *,
        seed: int = 0,
        evaluation: Dataset | None = None,
        splits: Splits | None = None,
    ) -> None:
        self.options = options or RunOptions()
        first = self.options.isolate and model.origin is None and "survived" not in model.facts
        if first:
            survive_first_run(model, inputs_to_try(model, data), self.options)
        model, data = fit_inputs(model, data, self.options)
        if first:
            model.facts["survived"] = True
        self.model, self.data = model, data
        self.seed = seed
        self.evaluation = evaluation and keep_decoded(evaluation, self.options)
        self.answers: Answers | None = None  # to the samples of `judging`, by the pass that measured
        self._splits = splits
        self._source = model
        self._inlined: InlinedModel | None = None
        self._layers: dict[Granularity, tuple[Layer, ...]] = {}
        self._sessions: OrderedDict[Hashable, Session] = OrderedDict()
        self._evaluators: OrderedDict[Hashable, Evaluator] = OrderedDict()
        register_holder(self)

    def __repr__(self) -> str:
        return f"Workbench({self.model.label!r}, {self.data.source!r}, {self.options}, seed={self.seed})"

    @property
    def label(self) -> str:
        """What messages call the model."""
        return self._source.label

    @property
    def digest(self) -> str:
        """SHA-256 of the model as it was given, also where its branches are inlined."""
        return self._source.sha256

    @cached_property
    def view(self) -> InlinedModel:
        """The model with local functions and the branches it takes for this data inlined.

        What ties layers together apart from activations is out of the way, see `with_separate_layers`.

        Raises:
            InputError: the data can't be read, or a local function can't be inlined.
        """
        if self._inlined is not None:
            return self._inlined
        shared = [name for name, axis in batch_axes(self.model).items() if axis is None]
        if not shared or not any(node.op_type == "If" for node in self.model.graph.node):
            return with_separate_layers(inline_branches(self.model))
        fed = {name: self.sample[self.model.origin_of(name)] for name in shared}
        return with_separate_layers(inline_branches(self.model, fed))

    @cached_property
    def opened(self) -> Workbench:
        """The workbench of the view's model: what layers are found in, measured on and taken out of."""
        return self if self.view.model is self.model else self._beside(self.view.model, self.view.choices)

    @cached_property
    def twin(self) -> Workbench | None:
        """The workbench of the other branch of a merged decoder, which holds the same network; else None."""
        if len(self.view.choices) != 1 or self._inlined is not None:
            return None
        choice = self.view.choices[0]
        if not are_twins(self.model, choice.node):
            return None
        fed = {name: np.asarray(self.sample[self.model.origin_of(name)]) for name in choice.values}
        flipped = {name: np.logical_not(value).astype(value.dtype) for name, value in fed.items()}
        other = inline_branches(self.model, flipped)
        if len(other.choices) != 1 or other.choices[0].branch == choice.branch:
            return None
        bench = self.successor(self.model)
        bench.__dict__["view"] = with_separate_layers(other)
        return bench

    @cached_property
    def unopened(self) -> Workbench:
        """The workbench of the graph as the file has it, with its functions and branches closed."""
        same = self.view.model is self.model
        return self if same or self._inlined is not None else self._beside(self.model, ())

    def _beside(self, model: Model, choices: tuple[InlinedBranch, ...]) -> Workbench:
        """A workbench of this model in another form, which is not inlined any further."""
        bench = self.successor(model)
        bench._source, bench._inlined = self._source, InlinedModel(model, model, choices)
        return bench

    def successor(self, model: Model) -> Workbench:
        """The workbench of a model that was made of this one: same data, samples and options.

        Args:
            model: takes the same inputs.
        """
        return Workbench(
            model,
            self.data,
            self.options,
            seed=self.seed,
            evaluation=self.evaluation,
            splits=self.splits,
        )

    @property
    def index(self) -> GraphIndex:
        """Look-ups over the main graph of the view."""
        return index_of(self.view.model)

    @cached_property
    def resolved(self) -> ResolvedShapes:
        """Sizes of all tensors of the view, and the axes that hold samples.

        Raises:
            InputError: the model doesn't run on the data.
        """
        return resolve_shapes(self.view.model, self.leading, self.options)

    def infer_if_failing(self) -> InputError | None:
        """Be content with what inference tells of the sizes, where the model can't be run to see the others.

        Returns:
            Why it can't be run; None if it can, or needn't be.

        Raises:
            InputError: it can't be run, and that is not for synthetic inputs that are a guess.
        """
        try:
            self.resolved  # noqa: B018
        except InputError as error:
            if not may_be_ours(self):
                raise
            self._infer_only()
            return error
        return None

    def _infer_only(self) -> None:
        try:
            sizes = {name: array.shape for name, array in self.sample.items()}
        except InputError:
            sizes = {}
        batch = self.fixed_batch or 1
        inferred = replace(infer_shapes(self.view.model, sizes), samples=batch)
        self.__dict__["resolved"] = ResolvedShapes(batch, inferred, {})

    @property
    def shapes(self) -> Shapes:
        """Sizes and types of the view's tensors for the smallest batch that the model takes."""
        return self.resolved.shapes

    def layers(self, granularity: Granularity = "sub-layer") -> tuple[Layer, ...]:
        """The series of layers of the view.

        Args:
            granularity: how much a layer holds, see `layers.granularity.regroup`.
        """
        if granularity not in self._layers:
            found = find_layers(self.index, self.shapes, self.view.choices, granularity)
            self._layers[granularity] = found
        return self._layers[granularity]

    @cached_property
    def cost(self) -> Cost:
        """What the model stores, and what a run through the branches it takes costs."""
        outputs, stored = (spec.name for spec in self.model.outputs), index_of(self.model)
        cost = replace(model_cost(self.index, self.shapes, outputs), at=sizes_note(self.data))
        if self.view.model is self.model:  # else the view gives no caches, and not all branches
            return cost
        return replace(cost, parameters=count_parameters(stored), parameter_bytes=parameter_bytes(stored))

    @cached_property
    def outputs(self) -> tuple[ModelOutput, ...]:
        """What each output holds and how two models are compared there, see `find_outputs`.

        Raises:
            InputError: the options name an output or an axis that is not there.
        """
        return find_outputs(self)

    @cached_property
    def fixed_batch(self) -> int | None:
        """Number of samples that every run must have; None where the model leaves it open."""
        return fixed_batch(self.model)

    @cached_property
    def sample(self) -> Feeds:
        """Inputs of the smallest run: the first sample, or the first few for a fixed batch.

        Raises:
            InputError: the data can't be read.
        """
        return self._leading(self.fixed_batch or 1)

    def leading(self, count: int) -> Feeds:
        """Inputs for the first `count` samples, again from the start where there are fewer."""
        return self.sample if count == (self.fixed_batch or 1) else self._leading(count)

    def _leading(self, count: int) -> Feeds:
        # Texts are as long as the longest of a run: one sample again and again keeps its length.
        available = 1 if isinstance(self.data, Texts) else len(self.data)
        return self.data.inputs(leading_indices(count, available))

    @cached_property
    def mask(self) -> Mask | None:
        """The input that says which positions of a sequence count; None where all do.

        Raises:
            InputError: the input that the data names is none.
        """
        found = find_mask(self._source, *(getattr(self.data, name, None) for name in ("mask", "pad")))
        return found if found is not None and found.input in self.sample else None

    @cached_property
    def splits(self) -> Splits:
        """Which samples are fitted to, chosen by and judged on."""
        return self._splits or Splits.of(self.data, self.seed)

    @cached_property
    def judging(self) -> Subset:
        """The samples that judge results: those of `evaluation`, else the split for it."""
        if self.evaluation is None:
            return Subset(self.data, self.splits.judge)
        return Subset(self.evaluation, sample_indices(self.evaluation, len(self.evaluation), self.seed))

    @cached_property
    def samples_per_run(self) -> int:
        """Samples of a run that needs little memory, where the model leaves their number open."""
        held = self.cost.peak_activation_bytes or 0
        return samples_per_run(self.outputs, self.shapes.sizes, self.resolved.batch, held)

    def evaluator(self, samples: Subset | Indices | None = None) -> Evaluator:
        """What holds other models against this one.

        Args:
            samples: of this workbench's data by their indices, or others; `judging` if None.
        """
        samples = self.judging if samples is None else samples
        samples = Subset(self.data, samples) if isinstance(samples, np.ndarray) else samples
        key = id(samples.data), samples.indices.tobytes()
        if key not in self._evaluators:
            drop_oldest(self._evaluators, _EVALUATORS)
            self.answers = None  # what is judged by runs is held against no other numbers
            how = self.outputs, self.fixed_batch, self.samples_per_run
            self._evaluators[key] = Evaluator(self.session(), samples, *how)
        self._evaluators.move_to_end(key)
        return self._evaluators[key]

    def session(self, level: Level = "all", *, threads: int | None = None, deployed: bool = False) -> Session:
        """The model as given, ready to run; kept open for the next who asks, until others take its place.

        Args:
            level: graph optimisation.
            threads: as in `RunOptions`; those of the workbench if None.
            deployed: as in `Session`.

        Raises:
            InputError: ONNX Runtime refuses the model.
        """
        options = self.options if threads is None else replace(self.options, threads=threads)
        deployed = deployed and runs_elsewhere(options)
        key = level, options, deployed
        if key not in self._sessions:
            drop_oldest(self._sessions, _SESSIONS)
            self._sessions[key] = Session(self.model, options, level=level, deployed=deployed)
        self._sessions.move_to_end(key)
        return self._sessions[key]

    def release_sessions(self) -> None:
        """Free the sessions that are kept open, where memory is needed for others."""
        self._sessions.clear()

    def close(self) -> None:
        """Free the sessions and the outputs of evaluators; what is asked for later is made anew."""
        self._sessions.clear()
        self._evaluators.clear()
        for other in map(self.__dict__.get, ("opened", "unopened")):
            if other is not None and other is not self:
                other.close()

    def __enter__(self) -> Workbench:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
