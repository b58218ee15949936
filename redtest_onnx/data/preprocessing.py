"""How a model's images were prepared in training: the files that say so, found beside the model or given."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from redtest_onnx.data.image_pipeline import (
    INTERPOLATIONS,
    ImageOptions,
    Interpolation,
    Resampler,
    check_mean,
)
from redtest_onnx.errors import InputError
from redtest_onnx.graph.model import Model

_BESIDE = ("preprocessor_config.json", "config.json")
# Pillow's numbers of its filters, which image processors write.
_FILTERS: dict[int, Interpolation] = {
    0: "nearest",
    1: "lanczos",
    2: "bilinear",
    3: "bicubic",
    4: "box",
    5: "hamming",
}
_WHOLE = 384  # ConvNeXt's processor takes images of this size and more uncropped
_CROP_PCT = 0.875  # what timm assumes where its file says nothing
_GIVEN = ("mean", "std", "scale", "resize", "crop", "pad", "interpolation", "size", "layout", "resampler")
_TENSORS = 5  # from this version of Transformers on, processors resize tensors where torchvision is there


def image_options(model: Model, asked: ImageOptions, file: Path | None = None) -> tuple[ImageOptions, str]:
    """What was asked for, filled up with what the model's files say.

    Args:
        model: files beside it are looked at.
        asked: options of the user; each of them counts more than a file.
        file: the file to read instead.

    Returns:
        The options, and the file that they are from ("" if none).

    Raises:
        InputError: the given file can't be read or says nothing of images.
    """
    if file is not None:
        found = read_preprocessing(_json(file), str(file))
        if found is None:
            raise InputError(
                "says nothing about the preprocessing of images",
                where=str(file),
                hint="give a preprocessor_config.json, timm's config.json, or a JSON with resize_size, "
                "crop_size, mean and std as torchvision's presets have them",
            )
        return _merged(_as_written(found, file), asked), str(file)
    if model.path is None:
        return asked, ""
    for folder in dict.fromkeys((model.path.parent, model.path.parent.parent)):
        for name in _BESIDE:
            path = folder / name
            if path.is_file() and (found := read_preprocessing(_json(path), str(path))) is not None:
                return _merged(_as_written(found, path), asked), str(path)
    return asked, ""


def read_preprocessing(content: Mapping[str, Any], where: str) -> ImageOptions | None:
    """The options that a configuration stands for; None where it is about something else.

    Args:
        content: of a preprocessor_config.json of Transformers, a config.json of timm, or the parameters of
            torchvision's ImageClassification preset.
        where: what messages call it.

    Raises:
        InputError: values that are none.
    """
    try:
        if "pretrained_cfg" in content:
            return _timm(content["pretrained_cfg"])
        if "resize_size" in content and "crop_size" in content:
            return _torchvision(content)
        if "image_mean" in content or "do_resize" in content or "image_processor_type" in content:
            return _processor(content)
        if "input_size" in content and "mean" in content:
            return _timm(content)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(
            f"its preprocessing can't be understood ({type(error).__name__}: {error})",
            where=where,
            hint="@resize, @crop, @mean and @std say it instead",
        ) from error
    return None


def _as_written(options: ImageOptions, path: Path) -> ImageOptions:
    """The options with the resampler of the Transformers that wrote them, where the model's config names it.

    Processors that resize tensors and those that take Pillow images write the same file since version 5.
    """
    config = path.with_name("config.json")
    if options.resampler != "auto" or path.name != "preprocessor_config.json" or not config.is_file():
        return options
    version = str(_json(config).get("transformers_version", ""))
    major = version.partition(".")[0]
    return replace(options, resampler="torch") if major.isdecimal() and int(major) >= _TENSORS else options


def _resampler(content: Mapping[str, Any]) -> Resampler:
    """Whose filters a processor resizes with, as far as its own file tells."""
    kind, fast = str(content.get("image_processor_type", "")), content.get("use_fast")
    if fast is True or kind.endswith("Fast"):
        return "torch"
    return "pillow" if fast is False or kind.endswith("Pil") else "auto"


def _processor(content: Mapping[str, Any]) -> ImageOptions:
    """An image processor of Transformers: resize, centre crop, rescale, normalise, each where it is on."""
    resize, crop = None, None
    if content.get("do_resize", True) and content.get("size") is not None:
        resize = _processor_size(content["size"])
    if content.get("do_center_crop") and content.get("crop_size") is not None:
        crop = _pair(content["crop_size"])
    share = content.get("crop_pct")
    if share is not None and isinstance(resize, int):
        if resize < _WHOLE:
            resize, crop = int(resize / share), (resize, resize)
        else:
            resize = (resize, resize)
    normal = content.get("do_normalize", True)
    rescale = content.get("do_rescale", True)
    return ImageOptions(
        mean=_numbers(content.get("image_mean")) if normal else (),
        std=_numbers(content.get("image_std")) if normal else (),
        scale=float(content.get("rescale_factor", 1 / 255)) if rescale else 1.0,
        resize=resize,
        crop=crop,
        interpolation=_interpolation(content.get("resample", 2)),
        crop_rounding="down",
        resampler=_resampler(content),
    )


def _processor_size(size: Any) -> int | tuple[int, int] | None:
    if isinstance(size, Mapping):
        if "shortest_edge" in size and "longest_edge" not in size:
            return int(size["shortest_edge"])
        if "height" in size:
            return int(size["height"]), int(size["width"])
        raise ValueError(f"size {dict(size)}")
    return (int(size), int(size)) if isinstance(size, int) else _pair(size)


def _timm(content: Mapping[str, Any]) -> ImageOptions:
    """timm's configuration: the shorter side to size / crop_pct, then a crop of the middle."""
    size = tuple(int(side) for side in content["input_size"][-2:])
    height, width = size
    share = float(content.get("crop_pct") or _CROP_PCT)
    mode = content.get("crop_mode") or "center"
    shared: dict[str, Any] = {
        "mean": _numbers(content.get("mean")),
        "std": _numbers(content.get("std")),
        "scale": 1 / 255,
        "interpolation": _interpolation(content.get("interpolation") or "bilinear"),
    }
    enlarged = math.floor(height / share), math.floor(width / share)
    if mode == "squash":
        return ImageOptions(resize=enlarged, crop=(height, width), **shared)
    if mode != "center":
        raise ValueError(f"crop_mode {mode}")
    if height != width:
        raise ValueError(f"a centre crop of {height}x{width}, which is not square")
    return ImageOptions(resize=enlarged[0], crop=(height, width), **shared)


def _torchvision(content: Mapping[str, Any]) -> ImageOptions:
    """The parameters of torchvision's preset for classification."""
    resize = content["resize_size"]
    if isinstance(resize, list):
        resize = int(resize[0]) if len(resize) == 1 else _pair(resize)
    return ImageOptions(
        mean=_numbers(content.get("mean")),
        std=_numbers(content.get("std")),
        scale=1 / 255,
        resize=resize,
        crop=_pair(content["crop_size"]),
        interpolation=_interpolation(str(content.get("interpolation", "bilinear")).rpartition(".")[2]),
    )


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, Mapping):
        return int(value["height"]), int(value["width"])
    if isinstance(value, list | tuple):
        return int(value[0]), int(value[-1])
    return int(value), int(value)


def _numbers(values: Any) -> tuple[float, ...]:
    return tuple(map(float, values)) if values is not None else ()


def _interpolation(value: Any) -> Interpolation:
    if isinstance(value, int):
        return _FILTERS[value]
    name = str(value).lower()
    for known in INTERPOLATIONS:
        if name == known:
            return known
    raise ValueError(f"interpolation {value}")


def _merged(found: ImageOptions, asked: ImageOptions) -> ImageOptions:
    """The options found, less those that were given otherwise."""
    plain = ImageOptions()
    given = {
        field.name: getattr(asked, field.name)
        for field in fields(ImageOptions)
        if field.name in _GIVEN and getattr(asked, field.name) != getattr(plain, field.name)
    }
    if {"size", "pad"} & set(given) and not {"resize", "crop"} & set(given):
        given |= {"resize": None, "crop": None}
    if found.scale is not None and asked.scale is None:
        check_mean(asked.mean, found.scale)
    return replace(found, **given)


def _json(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"can't be read as JSON ({error})", where=str(path)) from error
    return content if isinstance(content, dict) else {}
