"""Hold our image tensors against torchvision's transforms and Transformers' image processors.

    pip install torch torchvision transformers "redtest-onnx[cpu,images]"
    python tools/preprocessing_check.py

Prints the largest difference on generated images of several sizes, in steps of 255.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper, save
from PIL import Image

import redtest_onnx as rt

SIZES = ((300, 400), (231, 517), (640, 480), (224, 224), (1000, 257))
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
FILTERS = {"bilinear": 2, "bicubic": 3}
Floats = npt.NDArray[np.float32]


def write_images(folder: Path) -> list[Image.Image]:
    """Waves with noise, one image per size."""
    random = np.random.default_rng(0)
    folder.mkdir()
    for k, (height, width) in enumerate(SIZES):
        y, x = np.mgrid[:height, :width]
        wave = (np.sin(x / 17 + k) + np.cos(y / 23)) * 60 + 128
        values = np.stack([wave + random.normal(0, 20, wave.shape) for _ in range(3)], -1)
        Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(folder / f"{k}.png")
    return [Image.open(path).convert("RGB") for path in sorted(folder.iterdir())]


def write_model(path: Path) -> None:
    """A model of images of 224x224."""
    value = helper.make_tensor_value_info
    node = helper.make_node("GlobalAveragePool", ["pixel_values"], ["y"])
    shape = ["n", 3, 224, 224]
    graph = helper.make_graph(
        [node], "g", [value("pixel_values", TensorProto.FLOAT, shape)], [value("y", TensorProto.FLOAT, None)]
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def ours(folder: Path, config: dict[str, Any]) -> Floats:
    """What we make of the images with a processor's configuration beside the model."""
    (folder / "preprocessor_config.json").write_text(json.dumps(config), encoding="utf-8")
    model = rt.load(folder / "model.onnx")
    data = rt.open_data(str(folder / "images"), model)
    found: Floats = data.inputs(np.arange(len(SIZES)))["pixel_values"]
    return found


def references(images: list[Image.Image], name: str) -> Iterator[tuple[str, dict[str, Any], Floats]]:
    """Each reference with its configuration and its tensors."""
    from torchvision import transforms
    from torchvision.transforms import InterpolationMode
    from transformers.models import clip, vit

    shared = {"do_resize": True, "resample": FILTERS[name], "do_rescale": True, "rescale_factor": 1 / 255}
    shared |= {"do_normalize": True, "image_mean": MEAN, "image_std": STD}
    cropped = {
        **shared,
        "size": {"shortest_edge": 256},
        "do_center_crop": True,
        "crop_size": {"height": 224, "width": 224},
    }
    squashed = {**shared, "size": {"height": 224, "width": 224}}
    steps = [transforms.Resize(256, interpolation=InterpolationMode(name)), transforms.CenterCrop(224)]
    chain = transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    yield "torchvision", cropped, np.stack([chain(image).numpy() for image in images])
    for module, kind, config in ((clip, "CLIPImageProcessor", cropped), (vit, "ViTImageProcessor", squashed)):
        for suffix in ("Pil", ""):
            processor = getattr(module, kind + suffix, None)
            if processor is not None:
                prepare = processor(**config)
                made = [
                    np.asarray(prepare(image, return_tensors="np")["pixel_values"])[0] for image in images
                ]
                tensors = not suffix and hasattr(module, f"{kind}Pil")  # since Transformers 5
                said = {**config, "image_processor_type": kind, "use_fast": tensors}
                yield kind + suffix, said, np.stack(made)


def main() -> None:
    """Print a line per reference and filter."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = write_images(folder / "images")
        write_model(folder / "model.onnx")
        scale = np.array(STD).reshape(1, 3, 1, 1) * 255
        for interpolation in FILTERS:
            for reference, config, wanted in references(images, interpolation):
                apart = np.abs((ours(folder, config) - wanted) * scale).max()
                print(f"{reference}, {interpolation}: {apart:.4f} steps of 255")


if __name__ == "__main__":
    main()
