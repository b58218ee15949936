"""What three public packages answer before and after the model file in them is exchanged for a pruned one.

    python tools/package_results.py --folder package-results --speech CLIP.raw

Packages are installed with `pip install --no-deps --target` into the folder; silero-vad needs PyTorch from
the environment that runs this. For each package its own preprocessing makes calibration samples: what it
feeds its model is written down. `prune --data SAMPLES --remove N` makes the model that takes the place of
the file, and the package answers the same questions as before. Lines of text are rendered, with other words
for calibration than for judging; speech is a clip of the webrtcvad package (its sdist has `test-audio.raw`,
16 bit, 8 kHz, one channel), laid into noise at random times, speeds and levels. The table goes into
docs/models.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).parents[1]
NEEDED = ("rapidocr-onnxruntime", "ddddocr", "silero-vad", "pyclipper", "shapely")
NEEDED += ("opencv-python-headless", "six", "pyyaml", "tqdm")
CALIBRATION, JUDGED = (96, 1), (60, 2)
"""Numbers of questions and their seeds."""
RATE, WINDOW = 16000, 512
HEADING = "## What packages answer with a pruned model\n"
HEAD = """
Written by `OMP_NUM_THREADS=1 python tools/package_results.py --folder DIR --speech CLIP.raw`. The model
file in an installed package is exchanged for what `prune --data SAMPLES --remove N` made of it, and the
package answers the same questions as before; samples are what the package feeds its model, of other
questions. *Agreement* is what `prune` reported; *right* are characters of rendered text, or windows of a
stream with speech in it.

| package | model | removed | parameters | MACs | agreement | right before | after | same answer | date |
|---|---|---:|---:|---:|---:|---:|---:|---:|---|
"""


@dataclass(frozen=True)
class Exchange:
    """A package, the file that is exchanged, and how many layers go."""

    package: str
    file: str
    what: str
    remove: int


EXCHANGES = (
    Exchange("rapidocr", "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx", "OCR recognition", 1),
    Exchange("ddddocr", "ddddocr/common_old.onnx", "int8 convolutions and recurrence", 1),
    Exchange("silero", "silero_vad/data/silero_vad.onnx", "voice activity, with states", 1),
)


def main() -> int:
    """Install, ask, exchange, ask again."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--folder", type=Path, required=True, help="where packages and results go")
    options.add_argument("--speech", type=Path, help="the clip")
    options.add_argument("--only", default="", help="packages whose name holds this text")
    options.add_argument("--page", type=Path, default=ROOT / "docs" / "models.md", help="gets the table")
    options.add_argument("--ask", help=argparse.SUPPRESS)
    options.add_argument("--questions", type=int, nargs=2, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.ask:
        return ask(given)
    site = given.folder / "site"
    if not site.is_dir():
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(site)]
        subprocess.run([*pip, *NEEDED], check=True)
    for exchange in EXCHANGES:
        if given.only in exchange.package:
            line = exchanged(exchange, site, given)
            print(line)
            write(given.page, line)
    return 0


def exchanged(exchange: Exchange, site: Path, given: argparse.Namespace) -> str:
    """The line of one package; its own file is back in place afterwards."""
    file = site / exchange.file
    samples, pruned, report = (
        given.folder / f"{exchange.package}{end}" for end in (".npz", ".onnx", ".json")
    )
    kept = given.folder / f"{exchange.package}.original.onnx"
    if not kept.exists():
        shutil.copy(file, kept)
    shutil.copy(kept, file)
    asked(exchange, site, CALIBRATION, given, samples)
    before = asked(exchange, site, JUDGED, given)
    command = ["prune", str(kept), "--data", str(samples), "--remove", str(exchange.remove), "--threads", "1"]
    command += ["-o", str(pruned), "--force", "--json", str(report)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-m", "redtest_onnx", *command], check=True, env=environment)
    try:
        shutil.copy(pruned, file)
        after = asked(exchange, site, JUDGED, given)
    finally:
        shutil.copy(kept, file)
    found = json.loads(report.read_text())
    share = [f"{found['after'][what] / found['before'][what]:.1%}" for what in ("parameters", "macs")]
    agreement = found["agreement"]["value"]
    rights = [f"{right(side['answers'], side['truth']):.1%}" for side in (before, after)]
    same = np.mean([a == b for a, b in zip(before["answers"], after["answers"], strict=True)])
    cells = [
        f"`{exchange.package}`",
        exchange.what,
        str(exchange.remove),
        *share,
        f"{agreement:.1%}",
        *rights,
    ]
    return f"| {' | '.join([*cells, f'{same:.1%}', str(date.today())])} |"


def asked(
    exchange: Exchange,
    site: Path,
    questions: tuple[int, int],
    given: argparse.Namespace,
    samples: Path | None = None,
) -> dict[str, Any]:
    """Answers of the installed package, in its own process; what its model is fed is kept in `samples`."""
    command = [sys.executable, __file__, "--ask", exchange.package, "--questions", *map(str, questions)]
    command += ["--folder", str(samples or "-"), *(["--speech", str(given.speech)] if given.speech else [])]
    environment = {**os.environ, "PYTHONPATH": str(site.resolve())}
    result = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    answers: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return answers


def right(answers: list[Any], truth: list[Any]) -> float:
    """Share of what is right: of characters less those to be edited, or of windows."""
    if isinstance(truth[0], str):
        edits = sum(distance(a, b) for a, b in zip(answers, truth, strict=True))
        return 1 - edits / sum(map(len, truth))
    return float(np.mean(np.array(answers) == np.array(truth)))


def distance(a: str, b: str) -> int:
    """Number of characters to insert, delete or replace."""
    row = list(range(len(b) + 1))
    for i, one in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, other in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (one != other))
    return row[-1]


def ask(given: argparse.Namespace) -> int:
    """In the process of a package: ask it, print its answers, keep what its model was fed."""
    import onnxruntime

    fed: list[dict[str, npt.NDArray[Any]]] = []
    run = onnxruntime.InferenceSession.run

    def watched(self: Any, names: Any, feeds: dict[str, Any], *more: Any) -> Any:
        fed.append({name: np.array(value) for name, value in feeds.items()})
        return run(self, names, feeds, *more)

    onnxruntime.InferenceSession.run = watched
    count, seed = given.questions
    asks: dict[str, Callable[..., tuple[list[Any], list[Any]]]] = {
        "rapidocr": ask_rapidocr,
        "ddddocr": ask_ddddocr,
        "silero": ask_silero,
    }
    answers, truth = asks[given.ask](count, seed, given.speech)
    if str(given.folder) != "-":
        np.savez(given.folder, **stacked(fed))
    print(json.dumps({"answers": answers, "truth": truth}))
    return 0


def stacked(fed: list[dict[str, npt.NDArray[Any]]]) -> dict[str, npt.NDArray[Any]]:
    """Samples along the axis that had one; of what fits together in size, and of many a part."""
    sizes = [tuple(value.shape for value in feeds.values()) for feeds in fed]
    usual = Counter(sizes).most_common(1)[0][0]
    fitting = [feeds for feeds, size in zip(fed, sizes, strict=True) if size == usual]
    step = max(1, len(fitting) // 400)
    found = {}
    for name, value in fitting[0].items():
        axis = value.shape.index(1) if 1 in value.shape else None
        values = [feeds[name] for feeds in fitting[::step]]
        found[name] = value if axis is None else np.concatenate(values, axis)
    return found


def ask_rapidocr(count: int, seed: int, _: Path | None) -> tuple[list[Any], list[Any]]:
    """Lines of words, read by the recogniser alone."""
    from rapidocr_onnxruntime import RapidOCR

    engine, answers, truth = RapidOCR(), [], []
    for text, image in lines(count, seed, 12, (320, 48)):
        result, _ = engine(np.asarray(image), use_det=False, use_cls=False)
        answers.append(result[0][0].strip() if result else "")
        truth.append(text)
    return answers, truth


def ask_ddddocr(count: int, seed: int, _: Path | None) -> tuple[list[Any], list[Any]]:
    """Words of four letters, as captchas have them."""
    import io

    import ddddocr

    engine, answers, truth = ddddocr.DdddOcr(show_ad=False), [], []
    for text, image in lines(count, seed, 4, (160, 64)):
        stream = io.BytesIO()
        image.save(stream, "PNG")
        answers.append(engine.classification(stream.getvalue()).lower())
        truth.append(text.lower())
    return answers, truth


def lines(count: int, seed: int, longest: int, size: tuple[int, int]) -> Iterator[tuple[str, Any]]:
    """Words in black on grey, a little noise over them."""
    from PIL import Image, ImageDraw, ImageFont

    random = np.random.default_rng(seed)
    letters = list("abcdefghijkmnpqrstuvwxyz23456789")
    for _ in range(count):
        text = "".join(random.choice(letters, longest))
        image = Image.new("RGB", size, tuple(random.integers(190, 256, 3).tolist()))
        pixels = int(size[1] * random.uniform(0.5, 0.65))
        font = ImageFont.load_default(pixels)
        place = (size[0] * 0.06, (size[1] - 1.2 * pixels) / 2)
        ImageDraw.Draw(image).text(place, text, tuple(random.integers(0, 90, 3).tolist()), font)
        noisy = np.asarray(image) + random.normal(scale=8, size=(size[1], size[0], 3))
        yield text, Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def ask_silero(count: int, seed: int, clip: Path | None) -> tuple[list[Any], list[Any]]:
    """Whether each window of a stream is speech."""
    import torch
    from silero_vad import get_speech_timestamps, load_silero_vad

    if clip is None:
        raise SystemExit("silero needs --speech")
    stream, spoken = speech(clip, count // 3, seed)
    found = get_speech_timestamps(torch.from_numpy(stream), load_silero_vad(onnx=True), sampling_rate=RATE)
    answers = np.zeros(len(stream), np.bool_)
    for part in found:
        answers[part["start"] : part["end"]] = True
    middles = np.arange(WINDOW // 2, len(stream), WINDOW)
    return answers[middles].tolist(), spoken[middles].tolist()


def speech(clip: Path, count: int, seed: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """A stream of noise with the clip laid in, and where it is."""
    random = np.random.default_rng(seed)
    stored = np.fromfile(clip, "<i2").astype(np.float32) / 32768
    sound, spoken = [], []
    for _ in range(count):
        pause = int(RATE * random.uniform(0.7, 2))
        length = int(2 * len(stored) / random.uniform(0.85, 1.15))
        words = np.interp(np.linspace(0, len(stored) - 1, length), np.arange(len(stored)), stored)
        words *= random.uniform(0.3, 0.9) / np.abs(words).max()
        sound += [np.zeros(pause), words]
        spoken += [np.zeros(pause, np.bool_), np.ones(length, np.bool_)]
    whole = np.concatenate(sound)
    whole += random.normal(scale=0.003, size=len(whole))
    return whole.astype(np.float32), np.concatenate(spoken)


def write(page: Path, line: str) -> None:
    """Put a line into the section of the page; those of other packages stay."""
    text = page.read_text(encoding="utf-8")
    before, _, old = text.partition(HEADING)
    rows = {row.split(" | ")[0]: row for row in old.splitlines() if row.startswith("| `")}
    rows[line.split(" | ")[0]] = line
    order = [f"| `{exchange.package}`" for exchange in EXCHANGES]
    body = "\n".join(rows[key] for key in order if key in rows)
    page.write_text(f"{before.rstrip()}\n\n{HEADING}{HEAD}{body}\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
