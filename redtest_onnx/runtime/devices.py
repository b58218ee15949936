"""Where models run: what was asked for, what is there, and ONNX Runtime's settings for it."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeAlias

import numpy as np
from onnx import TensorProto, helper

from redtest_onnx.errors import RuntimeUnavailableError, SettingError
from redtest_onnx.runtime.library import failures, onnxruntime, quiet_stdout, reason

log = logging.getLogger(__name__)

Device: TypeAlias = str
"""auto, cpu, cuda, or cuda:N."""

DEVICES = "auto, cpu, cuda or cuda:N"
_DEVICE = re.compile(r"auto|cpu|cuda(:\d{1,3})?")

CUDA_PROVIDER = "CUDAExecutionProvider"
CPU_PROVIDER = "CPUExecutionProvider"
CUDA_MEMORY = "cuda"
"""What ONNX Runtime calls the memory of a CUDA device."""

_FATAL, _ERROR = 4, 3


@dataclass(frozen=True)
class Place:
    """One device.

    Attributes:
        kind: cpu or cuda.
        index: which of several GPUs.
    """

    kind: Literal["cpu", "cuda"]
    index: int = 0

    def __str__(self) -> str:
        return "the CPU" if self.kind == "cpu" else f"cuda:{self.index}"


def check_device(device: Device) -> None:
    """Refuse what is no device.

    Raises:
        SettingError: neither auto, cpu, cuda nor cuda:N.
    """
    if not isinstance(device, str) or not _DEVICE.fullmatch(device):
        raise SettingError("device", device, ("auto", "cpu", "cuda", "cuda:0"))


def resolve_place(device: Device) -> Place:
    """Where models run: what was asked for, and for "auto" the first GPU if a trial ran on it.

    Raises:
        InputError: no such kind of device.
        RuntimeUnavailableError: a CUDA device was asked for by name and can't be used.
    """
    check_device(device)
    if device == "cpu":
        return Place("cpu")
    index = int(device.partition(":")[2] or 0)
    problem = cuda_problem(index)
    if problem is None:
        return Place("cuda", index)
    if device == "auto":
        log.info("running on the CPU: %s", problem)
        return Place("cpu")
    raise RuntimeUnavailableError(f"{device} can't be used: {problem}", hint=_hint())


def resolve_device(device: Device) -> Literal["cpu", "cuda"]:
    """The kind of device that models run on; see `resolve_place`."""
    return resolve_place(device).kind


def cuda_available() -> bool:
    """Whether the installed ONNX Runtime was built for CUDA."""
    return CUDA_PROVIDER in onnxruntime().get_available_providers()


@cache
def cuda_problem(index: int) -> str | None:
    """Why ONNX Runtime can't use a CUDA device, found by running a small model on it; None if it can.

    Asked once per process and device: a driver that is missing shows in no list of providers, and each
    attempt costs seconds and a page of messages.
    """
    ort = onnxruntime()
    if not cuda_available():
        return "this ONNX Runtime has no CUDA support"
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 4]) for name in "xy")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "x"], ["y"])], "trial", [x], [y])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    settings = ort.SessionOptions()
    settings.log_severity_level = _FATAL
    ort.set_default_logger_severity(_FATAL)
    try:
        with quiet_stdout() as printed:
            _preload(ort)
            session = ort.InferenceSession(
                proto.SerializeToString(),
                settings,
                providers=execution_providers(Place("cuda", index)),
                enable_fallback=0,
            )
            if CUDA_PROVIDER in session.get_providers():
                session.run(None, {"x": np.ones((4, 4), np.float32)})
                return None
    except failures(ort) as error:
        return f"ONNX Runtime's trial run on it failed ({reason(error)}); is there a GPU of that number?"
    finally:
        # A warning at each session: that CUDA is no plug-in.
        ort.set_default_logger_severity(_ERROR)
    said = next((line.strip() for line in printed.getvalue().splitlines() if line.strip()), "")
    problem = "ONNX Runtime could not load CUDA or cuDNN, or found no such device"
    return f"{problem} ({said})" if said else problem


def execution_providers(place: Place, *, exhaustive: bool = False) -> list[Any]:
    """ONNX Runtime's providers for a device, with their options.

    Args:
        place: the device.
        exhaustive: let cuDNN try all its algorithms at the first run of each convolution, which pays for
            sessions that run often; otherwise its rule of thumb chooses.
    """
    if place.kind == "cpu":
        return [CPU_PROVIDER]
    options = {
        "device_id": str(place.index),
        "use_tf32": "0",  # on by default, it moves similarities in the third digit
        "arena_extend_strategy": "kSameAsRequested",
        "cudnn_conv_algo_search": "EXHAUSTIVE" if exhaustive else "HEURISTIC",
    }
    return [(CUDA_PROVIDER, options), CPU_PROVIDER]


def _preload(ort: Any) -> None:
    """Load CUDA's libraries from Python packages, which ONNX Runtime finds only this way."""
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()


def _hint() -> str:
    if not cuda_available():
        return (
            'pip uninstall onnxruntime onnxruntime-gpu, then pip install "redtest-onnx[gpu]" (CUDA 13) or '
            '"redtest-onnx[gpu-cuda12]"; or run on the CPU'
        )
    return (
        "check with nvidia-smi that the driver sees the GPU, and that the CUDA and cuDNN packages fit it "
        '("redtest-onnx[gpu]" for CUDA 13, "redtest-onnx[gpu-cuda12]"); or run on the CPU'
    )
