"""Open samples for a model: by path, from what a program holds, or synthetic ones."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypedDict, Unpack

import numpy.typing as npt

from redtest_onnx.data.dataset import Dataset
from redtest_onnx.data.images import ImageOptions
from redtest_onnx.data.text import TextOptions
from redtest_onnx.errors import InputError
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.reading import require_file
from redtest_onnx.graph.shapes import Shape
from redtest_onnx.graph.signature import takes_one_sample

KNOWN = (
    ".npz, .npy, .txt, a folder, .zip or .tar of images, sounds or arrays, .parquet, .arrow, .feather, "
    ".jsonl, .csv, texts in a .tsv (with @text_column), or FILE.py:FUNCTION"
)

DataLike: TypeAlias = (
    str
    | os.PathLike[str]
    | npt.NDArray[Any]
    | Mapping[str, npt.ArrayLike]
    | Sequence[Any]
    | Iterable[Any]
    | Dataset
    | None
)
"""Samples by path, in memory, from a loader or another data set, or none."""


class Reading(TypedDict, total=False):
    """How files become a model's inputs.

    Keys:
        images: how images become inputs; what they leave open is taken from the model's own configuration.
        sample_rate: of sounds, in Hz.
        preprocess: a file that says how images were prepared in training; one beside the model if None.
        text: how texts (.txt, .jsonl, .csv, .tsv, .parquet) become inputs.
    """

    images: ImageOptions | None
    sample_rate: int | None
    preprocess: str | os.PathLike[str] | None
    text: TextOptions | None


def open_data(
    data: DataLike,
    model: Model,
    *,
    split: str | None = None,
    shapes: dict[str, Shape] | None = None,
    seed: int = 0,
    count: int | None = None,
    **reading: Unpack[Reading],
) -> Dataset:
    """Open samples for a model.

    Args:
        data: an .npz with arrays named like the model's inputs and perhaps `labels`, plain or per split as
            `SPLIT/NAME`; an .npy for a model with one input; a folder, .zip or .tar of images, sounds or
            arrays, whose subfolders are classes; a table (.parquet, .arrow, .feather, .jsonl, .csv);
            FILE.py:FUNCTION, which runs that file; what a program holds, see `held.from_held`: arrays
            [n, ...] by name of the input, perhaps with `labels`, or one array for a model with one input,
            lists, other data sets, loaders, iterables of batches; a `Dataset`, which is returned; None for
            synthetic inputs.
        model: what they are for.
        split: which split of an .npz; `calibration` if there is one, and the plain arrays otherwise.
        shapes: sizes for synthetic inputs.
        seed: of synthetic inputs.
        count: number of synthetic samples; 2560, or fewer of a large model, if None.
        reading: `images`, `sample_rate`, `preprocess`, `text`: how files become inputs, see `Reading`.

    Raises:
        InputError: nothing there, no samples in it, not a kind of file we know, or it does not fit the
            model's inputs.
        RuntimeUnavailableError: the package that reads this kind is not installed.
        TypeError: a keyword is none of these.
    """
    if unknown := reading.keys() - Reading.__annotations__.keys():
        raise TypeError(f"open_data() got an unexpected keyword argument {min(unknown)!r}")
    if data is None:
        from redtest_onnx.data.synthetic import Synthetic

        return Synthetic(model, seed, count, shapes or {})
    found = _opened(data, model, split, reading)
    if not len(found):
        raise InputError("holds no samples", where=found.source, hint="one at least is needed")
    return found


def _opened(data: DataLike, model: Model, split: str | None, reading: Reading) -> Dataset:
    """Samples that exist; see `open_data`."""
    from redtest_onnx.data.archives import open_archive
    from redtest_onnx.data.arrays import open_npy, open_npz
    from redtest_onnx.data.held import from_held
    from redtest_onnx.data.per_sample import holds_samples, open_per_sample
    from redtest_onnx.data.tables import TABLES, open_table
    from redtest_onnx.data.text import holds_text, open_texts
    from redtest_onnx.data.user_code import call_function, names_function

    text, images = reading.get("text"), reading.get("images")
    preprocess = reading.get("preprocess")
    if not isinstance(data, str | os.PathLike):
        return from_held(data, model, _image_options(model, images, preprocess))
    if names_function(os.fspath(data)):
        return call_function(os.fspath(data), model, _image_options(model, images, preprocess))
    path = Path(data)
    if not path.exists():
        raise InputError("no such file or folder", where=str(path), hint="check @data")
    if not path.is_dir():
        require_file(path)
    suffix = path.suffix.lower()
    if split is not None and suffix != ".npz":
        raise InputError(f"has no split {split!r}: only an .npz has splits", where=str(path))
    if holds_text(path, model, text):
        return open_texts(path, model, text)
    if suffix == ".npz":
        return open_npz(path, model, split)
    if suffix == ".npy":
        return open_npy(path, model)
    if suffix in TABLES:
        return open_table(path, model, _image_options(model, images, preprocess))
    if (path.is_dir() or suffix == ".zip") and takes_one_sample(model) and holds_samples(path):
        return open_per_sample(path, model)
    if path.is_dir() or suffix in (".zip", ".tar") or path.name.lower().endswith((".tar.gz", ".tgz")):
        rate = reading.get("sample_rate")
        opened: Dataset = open_archive(path, model, _image_options(model, images, preprocess), rate)
        return opened
    raise InputError(
        f"unsupported data format ({path.suffix or 'no suffix'})", where=str(path), hint=f"known are {KNOWN}"
    )


def _image_options(
    model: Model, asked: ImageOptions | None, preprocess: str | os.PathLike[str] | None
) -> ImageOptions:
    from redtest_onnx.data.preprocessing import image_options

    options, _ = image_options(model, asked or ImageOptions(), Path(preprocess) if preprocess else None)
    return options
