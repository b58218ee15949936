"""The onnxruntime package: loaded when it is needed, its errors and its chatter."""

from __future__ import annotations

import io
import logging
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import onnx

from redtest_onnx.arrays import ArraysByName
from redtest_onnx.errors import InputError, RuntimeUnavailableError
from redtest_onnx.graph.model import TensorSpec, first_line

log = logging.getLogger(__name__)

_KINDS: Iterable[str] = (
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
# What ONNX Runtime's allocators, CUDA and the C++ library say when memory is used up.
# A message of ONNX Runtime begins with the place in its sources, and what it calls the kind of failure.
_PLACE = re.compile(r"^\S+\.(?:cc|h|cpp):\d+ .*?\) (?=[A-Z\[])(?:\[ONNXRuntimeError\] : \d+ : \w+ : )?")
_PLACE_INSIDE = re.compile(r"(?<=Status Message: )\S+\.(?:cc|h|cpp):\d+ .*?\) (?=\S)")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_OUT_OF_MEMORY = ("failed to allocate memory", "out of memory", "bad_alloc", "alloc_failed")


def onnxruntime() -> Any:
    """The onnxruntime module.

    Raises:
        RuntimeUnavailableError: no package of it is installed, or two that overwrote each other.
    """
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise RuntimeUnavailableError(
            f"ONNX Runtime is not installed ({error})",
            hint='pip install "redtest-onnx[cpu]", or "redtest-onnx[gpu]" on a machine with an NVIDIA GPU',
        ) from error
    if not hasattr(ort, "InferenceSession"):
        raise RuntimeUnavailableError(
            "ONNX Runtime is damaged: two of its packages overwrote each other, or one was removed",
            hint="pip uninstall onnxruntime onnxruntime-gpu, then install one of the two",
        )
    return ort


def version() -> str:
    """Version of ONNX Runtime."""
    return str(onnxruntime().__version__)


def support_table(name: str) -> str | None:
    """One of the tables of supported operators that the wheel ships; None if it doesn't."""
    path = Path(onnxruntime().__file__).parent / "tools" / "mobile_helpers" / name
    return path.read_text(encoding="utf-8") if path.is_file() else None


def failures(ort: Any) -> tuple[type[BaseException], ...]:
    """The exceptions with which ONNX Runtime refuses a model or a run."""
    state = ort.capi.onnxruntime_pybind11_state
    return (
        *(getattr(state, kind) for kind in _KINDS),
        onnx.checker.ValidationError,
        ValueError,
        RuntimeError,
    )


def reason(error: BaseException) -> str:
    """The first line of what ONNX Runtime says, without the place in its sources."""
    lines = str(error).strip().splitlines()
    return _PLACE_INSIDE.sub("", _PLACE.sub("", lines[0]))[:300] if lines else type(error).__name__


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of ONNX Runtime, CUDA or CuPy says that memory is used up."""
    text = f"{type(error).__name__} {error}".lower().replace("outofmemory", "out of memory")
    return isinstance(error, MemoryError) or any(words in text for words in _OUT_OF_MEMORY)


def out_of_memory(error: BaseException, where: str | None, device: str) -> InputError:
    """The error that users see when memory is used up."""
    return InputError(
        f"out of memory on {device}: {first_line(error)}",
        where=where,
        hint="take fewer samples per batch, or pooling mean"
        + ("" if device == "the CPU" else "; or run on the CPU, which often has more memory"),
    )


def failed_run(
    error: BaseException, where: str | None, declared: Iterable[TensorSpec], feeds: ArraysByName
) -> InputError:
    """The error that users see when a run fails on what is fed."""
    given = ", ".join(f"{name} {array.dtype}{list(array.shape)}" for name, array in feeds.items())
    # That texts are longer than a table of positions shows as a failed operator somewhere inside.
    ids = any(array.ndim == 2 and array.dtype.kind == "i" for array in feeds.values())
    shorten = "; if it takes fewer tokens, @max_length cuts texts" if ids else ""
    # A run that fails at a node was not refused for the sizes of its inputs, which the file declares.
    inside = "while running" in str(error)
    is_open = any(not isinstance(size, int) for spec in declared for size in spec.shape or ())
    traced = (
        "; sizes that its file declares open may be fixed inside, as tracing an example does: give inputs of "
        "the example's sizes, or export the model again"
    )
    return InputError(
        f"the run failed: {reason(error)}",
        where=where,
        hint=f"check that these inputs fit the model: {given}{shorten}{traced if inside and is_open else ''}",
    )


@contextmanager
def captured_stderr() -> Iterator[list[str]]:
    """What native code writes to stderr, as ONNX Runtime's log does, is kept.

    Yields:
        A list that holds the lines at the end of the context, without colours.
    """
    lines: list[str] = []
    try:
        kept = os.dup(2)
    except OSError:  # there is no stderr
        yield lines
        return
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            text = _COLOUR.sub("", file.read().decode("utf-8", "replace"))
            lines.extend(filter(None, map(str.strip, text.splitlines())))


@contextmanager
def quiet_stdout() -> Iterator[io.StringIO]:
    """What ONNX Runtime's Python code prints goes to the log: stdout belongs to results.

    Yields:
        What was printed.
    """
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            yield printed
    finally:
        for line in filter(None, map(str.strip, printed.getvalue().splitlines())):
            log.debug("ONNX Runtime: %s", line)
