"""ONNX Runtime behind one small class: the only code that runs a model."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx

from redtest_onnx.arrays import ArraysByName
from redtest_onnx.checks import Natural, check_settings
from redtest_onnx.errors import RefusedModelError, RuntimeUnavailableError
from redtest_onnx.graph.bfloat16 import holds_bfloat16, in_float32
from redtest_onnx.graph.model import Model, TensorSpec, first_line
from redtest_onnx.graph.stored import loadable
from redtest_onnx.graph.weights_file import sharing_weights
from redtest_onnx.metrics.arrays import Array
from redtest_onnx.runtime import devices
from redtest_onnx.runtime.device_arrays import array_taker, synchronise
from redtest_onnx.runtime.devices import Device as Device
from redtest_onnx.runtime.devices import check_device, execution_providers, resolve_device, resolve_place
from redtest_onnx.runtime.interrupt import stoppable
from redtest_onnx.runtime.latency_command import command_words
from redtest_onnx.runtime.library import (
    failed_run,
    failures,
    is_out_of_memory,
    onnxruntime,
    out_of_memory,
    quiet_stdout,
)
from redtest_onnx.runtime.outputs.kinds import OutputKind
from redtest_onnx.runtime.providers import Provider, assigned_nodes, open_session
from redtest_onnx.runtime.session_room import make_room

Level = Literal["none", "basic", "extended", "all"]
Use = Literal["often", "seldom", "once", "beside"]

log = logging.getLogger(__name__)

_BFLOAT16 = onnx.TensorProto.BFLOAT16

_LEVELS: dict[Level, str] = {
    "none": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}


_ELEMENT_TYPES = {name.lower(): code for name, code in onnx.TensorProto.DataType.items()}
"""ONNX element types by ONNX Runtime's names of them."""


@dataclass(frozen=True)
class RunOptions:
    """How models are run.

    Attributes:
        device: "auto" takes the first CUDA device where ONNX Runtime can use one, and the CPU otherwise;
            "cpu"; "cuda" is the first GPU, "cuda:1" the second.
        threads: threads within an operator; 0 lets ONNX Runtime take all cores.
        providers: execution providers that the model is deployed on, in order of preference: latency and
            comparisons of outputs are measured on them; similarities are not.
        latency_command: a command that tells the latency of a model instead, see `run_latency_command`.
        output_kinds: what the user says of outputs, by name; what is not said is found from the graph.
        isolate: run each model once in a process of its own first, so that a crash of ONNX Runtime becomes
            an error.
        memory: bytes of samples and activations that are kept to be used again; what is beyond is read or
            computed anew, and operators that are refitted in pairs see fewer samples. A run, and the
            equations of one operator, take theirs besides.

    Raises:
        InputError: no such device, or a negative number of threads or bytes.
    """

    device: Device = "auto"
    threads: Natural = 0
    providers: tuple[Provider, ...] = ()
    latency_command: str | None = None
    output_kinds: tuple[tuple[str, OutputKind], ...] = ()
    isolate: bool = False
    memory: Natural = 3 << 29

    def __post_init__(self) -> None:
        check_settings(self)
        check_device(self.device)
        if self.latency_command is not None:
            command_words(self.latency_command)


def runs_elsewhere(options: RunOptions) -> bool:
    """Whether a deployed session differs from others: by its providers, or on a GPU by its kernels."""
    return bool(options.providers) or resolve_device(options.device) != "cpu"


class Session:
    """A model ready to run.

    Each session holds the weights once more. Before that of a large model is opened, those that others keep
    for later use are closed.

    Args:
        model: what to run; its external data is read by path, never through Python.
        options: device and threads.
        level: graph optimisation, "all" for speed, "basic" where inner tensors are measured: the layout pass
            of the higher levels would move reductions away from what they reduce.
        early_release: run operators in breadth-first order, which frees activations as soon as they are
            reduced, and keep no second set of buffers.
        deployed: run the model as its users will: on the providers that were asked for, and with a long
            search for the fastest kernels, which pays for sessions that run often.
        use: "often" keeps a pool of memory, which grows to what the largest run takes and more. "seldom" does
            so, too, but weights are read as they lie in their file, which takes less time and memory to open
            and a little more to run. "beside" others there is no pool, so that what is freed serves them,
            too; "once" there is neither.
        save_optimised: where the graph goes as ONNX Runtime has rewritten it; the session is not run.

    Raises:
        RuntimeUnavailableError: ONNX Runtime or the asked device is missing.
        InputError: ONNX Runtime refuses the model.
    """

    def __init__(
        self,
        model: Model,
        options: RunOptions | None = None,
        *,
        level: Level = "all",
        early_release: bool = False,
        deployed: bool = False,
        use: Use = "often",
        save_optimised: Path | None = None,
    ) -> None:
        ort = onnxruntime()
        make_room(model)
        options = options or RunOptions()
        self.opener: Callable[[], Session] = partial(
            Session,
            model,
            options,
            level=level,
            early_release=early_release,
            deployed=deployed,
            use=use,
        )
        """Opens another session in the same way."""
        self._pooled = use in ("often", "seldom")
        self.label = model.label
        self.model = model
        self.options = options
        self._renamed = model.renamed
        settings = ort.SessionOptions()
        settings.log_severity_level = 4
        settings.intra_op_num_threads = options.threads
        settings.graph_optimization_level = getattr(ort.GraphOptimizationLevel, _LEVELS[level])
        # Spinning threads starve whatever else shares the machine, our own linear algebra first of all.
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if use in ("once", "seldom") or save_optimised is not None:
            settings.add_session_config_entry("session.disable_prepacking", "1")
        settings.enable_cpu_mem_arena = self._pooled
        if early_release:
            settings.execution_order = ort.ExecutionOrder.PRIORITY_BASED
            # The pattern is one block for all activations, beside those of the run that it was learnt from.
            settings.enable_mem_pattern = False
        if save_optimised is not None:
            settings.optimized_model_filepath = os.fspath(save_optimised)
        self.provider_names: tuple[str, ...] = ()
        self.output_names: tuple[str, ...] = ()
        if any(spec.dtype == _BFLOAT16 for spec in (*model.inputs, *model.outputs)):
            model = _with_kernels(model)
        model = sharing_weights(model)
        settings.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(model.folder.resolve())
        )
        if deployed and options.providers:
            self.place = devices.Place("cpu")  # feeds and outputs are the host's
            self._session = open_session(ort, loadable(model), settings, options.providers, model.label)
            self.provider_names = tuple(self._session.get_providers())
            self.output_names = tuple(o.name for o in self._session.get_outputs())
            return
        self.place = resolve_place(options.device)
        providers = execution_providers(self.place, exhaustive=deployed)
        try:
            with quiet_stdout():
                self._session = self._open(ort, model, settings, providers)
        except failures(ort) as error:
            if is_out_of_memory(error):
                raise out_of_memory(error, model.label, str(self.place)) from error
            raise RefusedModelError(
                f"ONNX Runtime {ort.__version__} refuses the model: {first_line(error)}",
                where=model.label,
                hint="export it for an opset and operators that this version supports, or update onnxruntime",
            ) from error
        if self.place.kind == "cuda" and devices.CUDA_PROVIDER not in self._session.get_providers():
            raise RuntimeUnavailableError(
                f"ONNX Runtime fell back to the CPU although a trial ran on {self.place}",
                where=model.label,
                hint="check that the GPU is still there and has free memory, or run on the CPU",
            )
        self.output_names = tuple(o.name for o in self._session.get_outputs())

    def assigned_nodes(self) -> Mapping[str, tuple[tuple[str, str], ...]]:
        """Name and operator of the nodes that each provider took; of deployed sessions with providers.

        Raises:
            RuntimeUnavailableError: this ONNX Runtime does not tell.
        """
        return assigned_nodes(self._session)

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        """The kind of device it runs on."""
        return self.place.kind

    def _open(self, ort: Any, model: Model, settings: Any, providers: list[Any]) -> Any:
        """The session; where kernels for bfloat16 are missing, that of the model in float32."""
        # Without its own fallback a device that fails at a run would be replaced silently.
        try:
            return ort.InferenceSession(loadable(model), settings, providers=providers, enable_fallback=0)
        except failures(ort):
            if not holds_bfloat16(model):
                raise
            source = loadable(sharing_weights(_with_kernels(model)))
            return ort.InferenceSession(source, settings, providers=providers, enable_fallback=0)

    @property
    def output_specs(self) -> dict[str, TensorSpec]:
        """The outputs with types and dimensions as ONNX Runtime infers them; type 0 for what is no tensor."""
        found = {}
        for output in self._session.get_outputs():
            element = output.type.removeprefix("tensor(").removesuffix(")")
            dtype = _ELEMENT_TYPES.get(element, 0) if output.type.startswith("tensor(") else 0
            dims = tuple(dim if isinstance(dim, int) else dim or None for dim in output.shape)
            found[output.name] = TensorSpec(output.name, dtype, dims if dtype else None)
        return found

    def _own_feeds(self, feeds: ArraysByName) -> dict[str, npt.NDArray[np.generic]]:
        """What is fed, by the names of this model's inputs, where removed layers took their caches along."""
        if self._renamed is None:
            return dict(feeds)
        names = {i.name: self._renamed.get(i.name, i.name) for i in self._session.get_inputs()}
        return {name: feeds[before] for name, before in names.items() if before in feeds}

    def run(
        self, feeds: ArraysByName, outputs: Sequence[str] | None = None, *, borrowed: bool = False
    ) -> dict[str, Any]:
        """Run once.

        Args:
            feeds: one array per model input.
            outputs: the outputs to return; all if None.
            borrowed: leave them in the session's pool of memory, which lives as long as one of them does,
                with its weights and the largest run's activations; for outputs that are used up at once.

        Returns:
            Arrays by output name (lists for sequence outputs).

        Raises:
            InputError: the run fails, with ONNX Runtime's reason.
        """
        names = list(outputs or self.output_names)
        feeds = self._own_feeds(feeds)
        with self._reported(feeds), stoppable(onnxruntime().RunOptions()) as run_options:
            values = self._session.run(names, self._fed(feeds), run_options)
        return dict(zip(names, values if borrowed or not self._pooled else map(_owned, values), strict=True))

    def _fed(self, feeds: ArraysByName) -> dict[str, npt.NDArray[np.generic]]:
        """What goes into the run: bfloat16 in float32."""
        if all(array.dtype.kind != "V" for array in feeds.values()):
            return dict(feeds)
        return {name: a.astype(np.float32) if a.dtype.kind == "V" else a for name, a in feeds.items()}

    def run_in_place(self, feeds: ArraysByName) -> dict[str, Array]:
        """Run once and leave the outputs where they were made.

        Args:
            feeds: one array per model input.

        Returns:
            Arrays by output name, without a copy where ONNX Runtime has DLPack: read-only NumPy arrays on the
            CPU, CuPy arrays on CUDA (NumPy where CuPy can't be used). On CUDA they must be used up before the
            session runs again, which waits for CuPy's kernels but not for arrays that are still held.

        Raises:
            InputError: as `run`.
        """
        if any(array.dtype.kind in "OUS" for array in feeds.values()):
            return self.run(feeds)  # strings can't be bound
        take = array_taker(self.place)
        on_device = self.place.kind == "cuda" and take is not None
        memory = (devices.CUDA_MEMORY, self.place.index) if on_device else ("cpu", 0)
        take = take or array_taker(devices.Place("cpu"))
        assert take is not None
        synchronise(self.place)
        binding = self._session.io_binding()
        feeds = self._own_feeds(feeds)
        with self._reported(feeds):
            for name, array in self._fed(feeds).items():
                binding.bind_cpu_input(name, np.ascontiguousarray(array))
            for name in self.output_names:
                binding.bind_output(name, *memory)
            with stoppable(onnxruntime().RunOptions()) as run_options:
                self._session.run_with_iobinding(binding, run_options)
            binding.synchronize_outputs()
        return {
            name: take(value) for name, value in zip(self.output_names, binding.get_outputs(), strict=True)
        }

    @contextmanager
    def _reported(self, feeds: ArraysByName) -> Iterator[None]:
        """ONNX Runtime's failures as errors that users understand."""
        try:
            yield
        except failures(onnxruntime()) as error:
            if is_out_of_memory(error):
                raise out_of_memory(error, self.label, str(self.place)) from error
            raise failed_run(error, self.label, self.model.inputs, feeds) from error


def _owned(value: Any) -> Any:
    """An output in memory of its own, outside the pool of the session that made it; lists as they are."""
    return value.copy() if isinstance(value, np.ndarray) and not value.flags.owndata else value


def _with_kernels(model: Model) -> Model:
    """A bfloat16 model in float32, which is made once."""
    if "float32" not in model.facts:
        log.warning(
            "%s is run in float32: ONNX Runtime lacks kernels or arrays for its bfloat16 here", model.label
        )
        model.facts["float32"] = in_float32(model)
    converted = model.facts["float32"]
    assert isinstance(converted, Model)
    return converted
