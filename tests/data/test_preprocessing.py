"""Images prepared as in training: our tensors against transforms written here from the definitions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from nets import Net
from PIL import Image

import redtest_onnx as rt
from redtest_onnx.data.resampling import resize_bytes

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZES = ((300, 400), (401, 257), (224, 224), (180, 350), (97, 61))
STEP = 1 / 255


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photograph-like images of several sizes."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for k, (height, width) in enumerate(SIZES):
        coarse = Image.fromarray(rng.integers(0, 256, (7, 9, 3), np.uint8)).resize((width, height), 3)
        noisy = np.asarray(coarse).astype(int) + rng.integers(-20, 20, (height, width, 3))
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(folder / f"{k}.png")
    return folder


def network(path: Path, side: int = 224) -> rt.Model:
    net = Net(x=["n", 3, side, side])
    model = net.model(net("Relu", "x"))
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model.proto, path)
    return rt.load(path)


def ours(folder: Path, model: rt.Model, **options: Any) -> np.ndarray:
    return rt.open_data(folder, model, **options).inputs(range(len(SIZES)))["x"]


def normalised(image: Image.Image) -> np.ndarray:
    values = (np.asarray(image, np.float64) / 255 - MEAN) / STD
    return values.transpose(2, 0, 1)


def shorter_side(image: Image.Image, side: int, filter_: int) -> Image.Image:
    """As torchvision and the image processors resize: the longer side is cut to a whole number."""
    width, height = image.size
    if width < height:
        return image.resize((side, int(side * height / width)), filter_)
    return image.resize((int(side * width / height), side), filter_)


def middle(image: Image.Image, side: int, *, down: bool) -> Image.Image:
    """The crop of torchvision rounds to the nearest, that of the processors down."""
    width, height = image.size
    left, top = ((length - side) / 2 for length in (width, height))
    left, top = (int(left), int(top)) if down else (round(left), round(top))
    return image.crop((left, top, left + side, top + side))


def images(folder: Path) -> list[Image.Image]:
    def read(path: Path) -> Image.Image:
        with Image.open(path) as image:
            return image.copy()  # which leaves no file open

    return [read(folder / f"{k}.png") for k in range(len(SIZES))]


def assert_close(found: np.ndarray, expected: list[np.ndarray]) -> None:
    """At most one step of 255, in units of the normalised values."""
    assert np.abs(found - np.stack(expected)).max() <= STEP / min(STD) + 1e-5


CLIP = {
    "image_processor_type": "CLIPImageProcessor",
    "do_resize": True,
    "size": {"shortest_edge": 224},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": MEAN,
    "image_std": STD,
}
VIT = {
    "image_processor_type": "ViTImageProcessor",
    "do_resize": True,
    "size": {"height": 224, "width": 224},
    "resample": 2,
    "do_rescale": True,
    "rescale_factor": 0.00392156862745098,
    "do_normalize": True,
    "image_mean": MEAN,
    "image_std": STD,
}
CONVNEXT = {**VIT, "size": {"shortest_edge": 224}, "crop_pct": 0.875, "resample": 3}
TIMM = {
    "architecture": "resnet50",
    "pretrained_cfg": {
        "input_size": [3, 224, 224],
        "interpolation": "bicubic",
        "crop_pct": 0.95,
        "crop_mode": "center",
        "mean": MEAN,
        "std": STD,
    },
}
TORCHVISION = {
    "resize_size": [256],
    "crop_size": [224],
    "mean": MEAN,
    "std": STD,
    "interpolation": "InterpolationMode.BILINEAR",
}
REFERENCES: dict[str, tuple[str, dict[str, Any], Any]] = {
    "clip": (
        "preprocessor_config.json",
        CLIP,
        lambda image: middle(shorter_side(image, 224, 3), 224, down=True),
    ),
    "vit": ("preprocessor_config.json", VIT, lambda image: image.resize((224, 224), 2)),
    "convnext": (
        "preprocessor_config.json",
        CONVNEXT,
        lambda image: middle(shorter_side(image, 256, 3), 224, down=True),
    ),
    "timm": ("config.json", TIMM, lambda image: middle(shorter_side(image, 235, 3), 224, down=False)),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_files_beside_the_model_are_followed(name: str, folder: Path, tmp_path: Path) -> None:
    file, content, transform = REFERENCES[name]
    model = network(tmp_path / "model.onnx")
    (tmp_path / file).write_text(json.dumps(content))
    assert_close(ours(folder, model), [normalised(transform(image)) for image in images(folder)])


def test_a_file_that_is_given_counts_more(folder: Path, tmp_path: Path) -> None:
    model = network(tmp_path / "onnx" / "model.onnx")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(VIT))  # where exporters to onnx/ leave it
    (tmp_path / "preset.json").write_text(json.dumps(TORCHVISION))
    vit = [normalised(image.resize((224, 224), 2)) for image in images(folder)]
    assert_close(ours(folder, model), vit)
    preset = [normalised(middle(shorter_side(image, 256, 2), 224, down=False)) for image in images(folder)]
    assert_close(ours(folder, model, preprocess=tmp_path / "preset.json"), preset)


def test_options_say_the_same(folder: Path, tmp_path: Path) -> None:
    options = rt.ImageOptions(mean=MEAN, std=STD, resize=256, crop=(224, 224), interpolation="bicubic")
    expected = [normalised(middle(shorter_side(image, 256, 3), 224, down=False)) for image in images(folder)]
    assert_close(ours(folder, network(tmp_path / "model.onnx"), images=options), expected)


def test_an_option_counts_more_than_a_file(folder: Path, tmp_path: Path) -> None:
    model = network(tmp_path / "model.onnx")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(VIT))
    data = rt.open_data(folder, model, images=rt.ImageOptions(mean=(0.5,), interpolation="nearest"))
    image = images(folder)[0].resize((224, 224), 0)
    expected = ((np.asarray(image, float) / 255 - 0.5) / STD).transpose(2, 0, 1)
    np.testing.assert_allclose(data.inputs([0])["x"][0], expected, atol=1e-5)


def test_without_a_word_the_aspect_ratio_stays(tmp_path: Path) -> None:
    wide = np.zeros((100, 300, 3), np.uint8)
    wide[:, 100:200] = 255  # a square in the middle fills what is taken
    Image.fromarray(wide).save(tmp_path / "a.png")
    model = network(tmp_path / "net" / "model.onnx", 50)
    data = rt.open_data(tmp_path, model)
    assert data.inputs([0])["x"][0, :, :, 3:-3].min() == 1
    assert "resized to cover 50x50" in data.preparation  # type: ignore[attr-defined]
    padded = rt.open_data(tmp_path, model, images=rt.ImageOptions(pad=True)).inputs([0])["x"][0]
    assert padded[:, 17:].max() == 0
    assert padded[:, :16, 20:30].min() == 1


def test_what_says_nothing_is_refused_where_it_is_given(folder: Path, tmp_path: Path) -> None:
    model = network(tmp_path / "model.onnx")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    assert ours(folder, model).shape == (len(SIZES), 3, 224, 224)  # not about images: left alone
    with pytest.raises(rt.InputError, match="says nothing about the preprocessing"):
        ours(folder, model, preprocess=tmp_path / "config.json")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(rt.InputError, match="can't be read as JSON"):
        ours(folder, model, preprocess=tmp_path / "broken.json")
    (tmp_path / "other.json").write_text(json.dumps({**CLIP, "resample": 17}))
    with pytest.raises(rt.InputError, match="can't be understood"):
        ours(folder, model, preprocess=tmp_path / "other.json")


def test_options_that_contradict_are_refused() -> None:
    with pytest.raises(rt.InputError, match="whole image"):
        rt.ImageOptions(pad=True, resize=256)
    with pytest.raises(rt.RedtestError, match="interpolation"):
        rt.ImageOptions(interpolation="cubic")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("beside", "torch"),
    [
        ({"image_processor_type": "CLIPImageProcessor"}, False),
        ({"image_processor_type": "CLIPImageProcessorFast"}, True),
        ({"image_processor_type": "CLIPImageProcessorPil", "version": "5.24.0"}, False),
        ({"image_processor_type": "CLIPImageProcessor", "version": "5.24.0"}, True),
        ({"image_processor_type": "CLIPImageProcessor", "version": "4.57.6"}, False),
        ({"image_processor_type": "CLIPImageProcessor", "version": "5.24.0", "use_fast": False}, False),
        ({"use_fast": True}, True),
    ],
)
def test_images_are_resized_as_the_processor_that_wrote_the_file_does(
    beside: dict[str, Any], torch: bool, folder: Path, tmp_path: Path
) -> None:
    model = network(tmp_path / "model.onnx")
    if version := beside.pop("version", None):
        (tmp_path / "config.json").write_text(json.dumps({"transformers_version": version}))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**CLIP, **beside}))
    data = rt.open_data(folder, model)
    said = "as torchvision does on tensors" if torch else "as Pillow does"
    assert f"(bicubic {said})" in data.preparation  # type: ignore[attr-defined]
    asked: Any = "pillow" if torch else "torch"
    other = rt.open_data(folder, model, images=rt.ImageOptions(resampler=asked))
    assert said not in other.preparation  # type: ignore[attr-defined]
    image = images(folder)[0]
    resized = _by_torch(image, 224) if torch else shorter_side(image, 224, 3)
    wanted = normalised(middle(resized, 224, down=True))
    np.testing.assert_allclose(data.inputs([0])["x"][0], wanted, atol=1e-5)
    assert not np.array_equal(data.inputs([0])["x"], other.inputs([0])["x"])


def _by_torch(image: Image.Image, side: int) -> Image.Image:
    """The shorter side resized as torchvision does on tensors."""
    size = shorter_side(image, side, 3).size[::-1]
    return Image.fromarray(resize_bytes(np.asarray(image), size, "bicubic"))
