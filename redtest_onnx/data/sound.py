"""Sounds (.wav, .flac): one channel, at the rate and length that the model takes."""

from __future__ import annotations

import io
from collections.abc import Callable
from math import gcd
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from redtest_onnx.data.images import folder_classes, numbered_classes
from redtest_onnx.data.members import Members
from redtest_onnx.data.records import Record, RecordData
from redtest_onnx.errors import InputError, RuntimeUnavailableError
from redtest_onnx.graph.model import Model, TensorSpec
from redtest_onnx.graph.signature import batch_axes

Result = TypeVar("Result")

SOUNDS = frozenset({".wav", ".flac"})


def open_sounds(members: Members, names: list[str], model: Model, sample_rate: int | None) -> RecordData:
    """Sounds as [samples] or [1, samples] in -1..1: channels averaged, resampled, cut or filled with zeros.

    Where the model leaves the length open, all sounds are cut to the length of the shortest.

    Args:
        members: the files.
        names: of the sounds.
        model: takes one signal.
        sample_rate: of the model, in Hz; None takes that of the files, which must then be the same in all.

    Raises:
        InputError: the model takes no signal, or the files have different rates.
        RuntimeUnavailableError: soundfile is not installed.
    """
    spec, axis = _signal(model, members.source)
    rates, lengths = zip(*(_header(members, name) for name in names), strict=True)
    if sample_rate is None and len(set(rates)) > 1:
        raise InputError(
            f"has sounds of {min(rates)} and of {max(rates)} Hz",
            where=members.source,
            hint="@sample_rate resamples them to what the model takes",
        )
    wanted = sample_rate or rates[0]
    dims = [dim for k, dim in enumerate(spec.shape or ()) if k != axis]
    length = dims[-1]
    if not isinstance(length, int):
        length = min(-(-count * wanted // rate) for count, rate in zip(lengths, rates, strict=True))
    shape = (*(1 for _ in dims[:-1]), length)
    classes = numbered_classes(names, members)

    def read(index: int) -> Record:
        signal = _decoded(members, names[index], wanted)
        fitted = np.zeros(length, np.float32)
        fitted[: min(length, len(signal))] = signal[:length]
        return {spec.name: fitted.reshape(shape)}

    return RecordData(
        members.source,
        model,
        len(names),
        read,
        folder_classes(names) if classes is None else classes,
        f"{length} samples at {wanted} Hz, channels averaged",
    )


def _signal(model: Model, source: str) -> tuple[TensorSpec, int]:
    """The model's input for a signal, and its axis of samples of the data set."""
    spec = model.inputs[0]
    axis = batch_axes(model)[spec.name]
    rest = [dim for k, dim in enumerate(spec.shape or ()) if k != axis]
    one = all(dim == 1 or not isinstance(dim, int) for dim in rest[:-1])
    if len(model.inputs) != 1 or axis is None or len(rest) not in (1, 2) or not one:
        raise InputError(
            f"sounds feed one input [n, length] or [n, 1, length]; {spec.name!r} is {spec}"
            + (f" of {len(model.inputs)} inputs" if len(model.inputs) > 1 else ""),
            where=source,
            hint="compute what the model takes, such as spectrograms, and write an .npz",
        )
    return spec, axis


def _header(members: Members, name: str) -> tuple[int, int]:
    """Rate in Hz and number of samples per channel."""
    return _opened(members, name, lambda file: (int(file.samplerate), int(file.frames)))


def _decoded(members: Members, name: str, rate: int) -> npt.NDArray[np.float32]:
    """One channel at a rate, [samples]."""
    signal, own = _opened(
        members, name, lambda file: (file.read(dtype="float32", always_2d=True), file.samplerate)
    )
    mono: npt.NDArray[np.float32] = signal.mean(axis=1)
    if own != rate:
        from scipy.signal import resample_poly

        common = gcd(rate, own)
        mono = resample_poly(mono, rate // common, own // common).astype(np.float32)
    return mono


def _opened(members: Members, name: str, use: Callable[[Any], Result]) -> Result:
    try:
        import soundfile
    except ImportError as error:
        raise RuntimeUnavailableError(
            "reading sounds needs soundfile", hint='pip install "redtest-onnx[sound]"'
        ) from error
    try:
        with soundfile.SoundFile(io.BytesIO(members.read(name))) as file:
            return use(file)
    except (soundfile.LibsndfileError, RuntimeError, ValueError) as error:
        raise InputError(f"is not a readable sound ({error})", where=f"{members.source}/{name}") from error
