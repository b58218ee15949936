"""A function of the user that gives samples: `--data loader.py:function`. Its file is run."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from inspect import signature
from pathlib import Path
from typing import Any

from redtest_onnx.data.dataset import Dataset
from redtest_onnx.data.held import from_held
from redtest_onnx.data.image_pipeline import ImageOptions
from redtest_onnx.errors import InputError
from redtest_onnx.graph.model import Model


def names_function(text: str) -> bool:
    """Whether a text is of the form FILE.py:NAME, which asks for code to be run."""
    file, colon, name = text.rpartition(":")
    return bool(colon) and file.endswith(".py") and name.isidentifier()


def open_function(text: str) -> Callable[..., Any]:
    """The function that FILE.py:NAME stands for; the file is run.

    Raises:
        InputError: no such file or function, or the file fails.
    """
    file, _, name = text.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise InputError("no such file", where=file, hint="@data=loader.py:function runs a function of yours")
    spec = spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's own code
        raise InputError(f"fails: {type(error).__name__}: {error}", where=file) from error
    function = getattr(module, name, None)
    if not callable(function):
        named = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise InputError(f"has no function {name!r}", where=file, hint=f"it has {', '.join(named) or 'none'}")
    result: Callable[..., Any] = function
    return result


def call_function(text: str, model: Model, images: ImageOptions) -> Dataset:
    """The samples that a function of the user returns; it may take the model.

    Raises:
        InputError: it fails, or returns no samples.
    """
    function = open_function(text)
    try:
        result = function(model) if len(signature(function).parameters) else function()
    except Exception as error:  # the user's own code
        raise InputError(f"fails: {type(error).__name__}: {error}", where=text) from error
    return from_held(result, model, images, text)
