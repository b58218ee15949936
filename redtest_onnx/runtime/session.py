"""ONNX Runtime behind one small class: the only code that runs a model."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx

from redtest_onnx.errors import InputError, RuntimeUnavailableError
from redtest_onnx.graph.model import Model, TensorSpec, first_line
from redtest_onnx.graph.stored import loadable
from redtest_onnx.metrics.arrays import Array

Device = Literal["auto", "cpu", "cuda"]
Arrays = Mapping[str, npt.NDArray[np.generic]]

Level = Literal["none", "basic", "extended", "all"]

log = logging.getLogger(__name__)

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
        device: "auto" takes a CUDA device where ONNX Runtime can use one, and the CPU otherwise.
        threads: threads within an operator; 0 lets ONNX Runtime take all cores.
    """

    device: Device = "auto"
    threads: int = 0


class Session:
    """A model ready to run.

    Args:
        model: what to run; its external data is read by path, never through Python.
        options: device and threads.
        level: graph optimisation, "all" for speed, "basic" where inner tensors are measured: the layout pass
            of the higher levels would move reductions away from what they reduce.
        early_release: run operators in breadth-first order, which frees activations as soon as they are
            reduced, and keep no second set of buffers.
        save_optimised: where the graph goes as ONNX Runtime has rewritten it.

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
        save_optimised: Path | None = None,
    ) -> None:
        ort = onnxruntime()
        options = options or RunOptions()
        self.label = model.label
        self.options = options
        settings = ort.SessionOptions()
        settings.log_severity_level = 4
        settings.intra_op_num_threads = options.threads
        settings.graph_optimization_level = getattr(ort.GraphOptimizationLevel, _LEVELS[level])
        # Spinning threads starve whatever else shares the machine, our own linear algebra first of all.
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        settings.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(model.folder.resolve())
        )
        if early_release:
            settings.execution_order = ort.ExecutionOrder.PRIORITY_BASED
            # The pattern is one block for all activations, beside those of the run that it was learnt from.
            settings.enable_mem_pattern = False
        if save_optimised is not None:
            settings.optimized_model_filepath = os.fspath(save_optimised)
        providers = _providers(ort, options.device)
        try:
            self._session = ort.InferenceSession(loadable(model), settings, providers=providers)
        except _failures(ort) as error:
            raise InputError(
                f"ONNX Runtime {ort.__version__} refuses the model: {first_line(error)}",
                where=model.label,
                hint="export it for an opset and operators that this version supports, or update onnxruntime",
            ) from error
        self.device: Literal["cpu", "cuda"] = "cpu"
        if "CUDAExecutionProvider" in self._session.get_providers():
            self.device = "cuda"
        elif options.device == "auto" and cuda_available():
            log.warning("running on the CPU: ONNX Runtime could not load CUDA or found no device")
        if options.device == "cuda" and self.device != "cuda":
            raise RuntimeUnavailableError(
                "ONNX Runtime fell back to the CPU although --device cuda was asked for",
                where=model.label,
                hint="check that the CUDA and cuDNN libraries can be loaded, or use --device cpu",
            )
        self.output_names: tuple[str, ...] = tuple(o.name for o in self._session.get_outputs())

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

    def run(self, feeds: Arrays, outputs: Sequence[str] | None = None) -> dict[str, Any]:
        """Run once.

        Args:
            feeds: one array per model input.
            outputs: the outputs to return; all if None.

        Returns:
            Arrays by output name (lists for sequence outputs).

        Raises:
            InputError: the run fails, with ONNX Runtime's reason.
        """
        names = list(outputs or self.output_names)
        with self._reported(feeds):
            values = self._session.run(names, dict(feeds))
        return dict(zip(names, values, strict=True))

    def run_in_place(self, feeds: Arrays) -> dict[str, Array]:
        """Run once and leave the outputs where they were made.

        Args:
            feeds: one array per model input.

        Returns:
            Arrays by output name, without a copy: read-only NumPy arrays on the CPU, CuPy arrays on CUDA
            (NumPy where CuPy is not installed).

        Raises:
            InputError: as `run`.
        """
        take = array_from_dlpack(self.device)
        place = self.device if take is not None else "cpu"
        binding = self._session.io_binding()
        with self._reported(feeds):
            for name, array in feeds.items():
                binding.bind_cpu_input(name, np.ascontiguousarray(array))
            for name in self.output_names:
                binding.bind_output(name, place)
            self._session.run_with_iobinding(binding)
            binding.synchronize_outputs()
        take = take or np.from_dlpack
        return {
            name: take(value) for name, value in zip(self.output_names, binding.get_outputs(), strict=True)
        }

    @contextmanager
    def _reported(self, feeds: Arrays) -> Iterator[None]:
        """ONNX Runtime's failures as errors that users understand."""
        try:
            yield
        except _failures(onnxruntime()) as error:
            given = ", ".join(f"{name} {array.dtype}{list(array.shape)}" for name, array in feeds.items())
            raise InputError(
                f"the run failed: {first_line(error)}",
                where=self.label,
                hint=f"check that these inputs fit the model: {given}",
            ) from error


def array_from_dlpack(device: Literal["cpu", "cuda"]) -> Callable[[Any], Array] | None:
    """What makes an array of a device's value without a copy; None where CuPy is missing."""
    if device == "cpu":
        return np.from_dlpack
    try:
        import cupy
    except ImportError as error:
        log.warning("similarities are computed on the CPU: CuPy can't be loaded (%s)", first_line(error))
        return None
    return cupy.from_dlpack  # type: ignore[no-any-return]


def onnxruntime() -> Any:
    """The onnxruntime module.

    Raises:
        RuntimeUnavailableError: neither the CPU nor the GPU package is installed.
    """
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise RuntimeUnavailableError(
            f"ONNX Runtime is not installed ({error})",
            hint='pip install "redtest-onnx[cpu]", or "redtest-onnx[gpu]" on a machine with an NVIDIA GPU',
        ) from error
    return ort


def cuda_available() -> bool:
    """Whether the installed ONNX Runtime was built for CUDA."""
    return "CUDAExecutionProvider" in onnxruntime().get_available_providers()


def resolve_device(device: Device) -> Literal["cpu", "cuda"]:
    """Where models run: what was asked for, and for "auto" CUDA where it can be used."""
    if device != "auto":
        return device
    if cuda_available():
        return "cuda"
    log.info("running on the CPU: this ONNX Runtime has no CUDA support")
    return "cpu"


def version() -> str:
    """Version of ONNX Runtime."""
    return str(onnxruntime().__version__)


def support_table(name: str) -> str | None:
    """One of the tables of supported operators that the wheel ships; None if it doesn't."""
    path = Path(onnxruntime().__file__).parent / "tools" / "mobile_helpers" / name
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _providers(ort: Any, device: Device) -> list[Any]:
    if resolve_device(device) == "cpu":
        return ["CPUExecutionProvider"]
    if not cuda_available():
        raise RuntimeUnavailableError(
            "this ONNX Runtime has no CUDA support",
            hint='pip uninstall onnxruntime, then pip install "redtest-onnx[gpu]"; or use --device cpu',
        )
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()  # CUDA from Python packages is found only this way
    # TF32 is on by default and moves similarities in the third digit.
    cuda = ("CUDAExecutionProvider", {"use_tf32": "0", "arena_extend_strategy": "kSameAsRequested"})
    return [cuda, "CPUExecutionProvider"]


def _failures(ort: Any) -> tuple[type[BaseException], ...]:
    state = ort.capi.onnxruntime_pybind11_state
    kinds: Iterable[str] = (
        "EPFail",
        "Fail",
        "InvalidArgument",
        "InvalidGraph",
        "InvalidProtobuf",
        "ModelLoaded",
        "NoModel",
        "NoSuchFile",
        "NotImplemented",
        "RuntimeException",
    )
    return (*(getattr(state, kind) for kind in kinds), onnx.checker.ValidationError, ValueError, RuntimeError)
