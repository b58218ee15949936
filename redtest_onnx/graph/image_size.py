"""The image size that a file or its processor's configuration names for itself."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from typing import Any

from redtest_onnx.graph.model import Model

_KEYS = ("imgsz", "image_size", "img_size", "input_size", "crop_size", "size", "resolution", "input_shape")
_CONFIGURATIONS = ("preprocessor_config.json", "processor_config.json")
_SMALLEST, _LARGEST = 8, 8192


def declared_image_size(model: Model) -> tuple[int, int] | None:
    """Height and width, from the file's metadata or a processor configuration in them or beside the file.

    Ultralytics writes `imgsz`, Hugging Face processors `crop_size` and `size`; values are numbers, lists or
    JSON objects with `height` and `width` or `shortest_edge`.
    """
    properties = {entry.key: _read(entry.value) for entry in model.proto.metadata_props}
    found = _search(properties)
    if found is not None or model.path is None:
        return found
    for name in _CONFIGURATIONS:
        try:
            text = (model.path.parent / name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        if (found := _search(_read(text))) is not None:
            return found
    return None


def _read(text: str) -> object:
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            continue
    return text


def _search(value: object, depth: int = 3) -> tuple[int, int] | None:
    """The first size under one of the usual keys, outermost first."""
    if not isinstance(value, Mapping) or not depth:
        return None
    by_key = {str(key).lower(): inner for key, inner in value.items()}
    for key in _KEYS:
        if key in by_key and (found := _size(by_key[key])) is not None:
            return found
    inner = (_search(inside, depth - 1) for inside in value.values())
    return next((found for found in inner if found is not None), None)


def _size(value: object) -> tuple[int, int] | None:
    """Height and width of a number, a list, or an object."""
    if isinstance(value, Mapping):
        if "height" in value and "width" in value:
            return _size([value["height"], value["width"]])
        return _size(value.get("shortest_edge"))
    if isinstance(value, str):
        numbers: list[Any] = [part for part in value.lower().replace(",", "x").split("x") if part]
        try:
            numbers = [int(part) for part in numbers]
        except ValueError:
            return None
    else:
        numbers = list(value) if isinstance(value, list | tuple) else [value]
    if not numbers or any(isinstance(n, bool) or not isinstance(n, int) for n in numbers):
        return None
    # [N, C, H, W], [C, H, W] or [H, W, C]; channels are few, images are not.
    large = [n for n in numbers if n >= _SMALLEST]
    if not large or len(numbers) > 4 or max(large) > _LARGEST:
        return None
    return (large[-2], large[-1]) if len(large) > 1 else (large[0], large[0])
