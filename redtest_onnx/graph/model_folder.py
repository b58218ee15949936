"""Folders with a model, its configuration and tokenizer, as Hugging Face, Optimum and genai write them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redtest_onnx.errors import InputError, OutputError
from redtest_onnx.graph.scratch import make_scratch_folder

CONFIG, GENAI_CONFIG = "config.json", "genai_config.json"
# Which file of a folder is meant where several are there, and those that hold the same network.
_PREFERRED = (
    "model.onnx",
    "decoder_model_merged.onnx",
    "decoder_model.onnx",
    "decoder_with_past_model.onnx",
    "encoder_model.onnx",
)
_TOGETHER = ("decoder_model.onnx", "decoder_with_past_model.onnx", "decoder_model_merged.onnx")
_WITHIN = ("", "onnx")


@dataclass(frozen=True)
class ModelFolder:
    """What lies in a model's folder.

    Attributes:
        path: the folder.
        model: the ONNX file that is meant.
        partners: other files that hold the same network, such as a decoder's for the steps after the first.
        config: config.json; None if there is none.
        genai_config: genai_config.json; None if there is none.
        tokenizer: tokenizer.json; None if there is none.
    """

    path: Path
    model: Path
    partners: tuple[Path, ...]
    config: Path | None
    genai_config: Path | None
    tokenizer: Path | None


def open_folder(path: str | os.PathLike[str], model: str | None = None) -> ModelFolder:
    """Find the model and its side files in a folder.

    Args:
        path: the folder.
        model: which of its ONNX files is meant; found by the configuration and the usual names if None.

    Raises:
        InputError: there is no ONNX file in it, or several and none is the usual one.
    """
    path = Path(path)
    found = sorted(file for part in _WITHIN for file in (path / part).glob("*.onnx"))
    if not found:
        raise InputError("there is no ONNX file in the folder", where=str(path), hint=_export_hint(path))
    by_name = {file.name: file for file in found}
    genai = _existing(path / GENAI_CONFIG)
    wanted = [model] if model else [*(_genai_files(genai) if genai else []), *_PREFERRED]
    name = next((name for name in wanted if name in by_name), None)
    if name is None and len(found) == 1:
        name = found[0].name
    if name is None:
        names = ", ".join(str(file.relative_to(path)) for file in found)
        raise InputError(
            f"the folder holds several models: {names}", where=str(path), hint="name one of these files"
        )
    chosen = by_name[name]
    partners = [
        by_name[other] for other in _TOGETHER if name in _TOGETHER and other in by_name and other != name
    ]
    config = _existing(path / CONFIG) or _existing(chosen.parent / CONFIG)
    return ModelFolder(path, chosen, tuple(partners), config, genai, find_beside(chosen, "tokenizer.json"))


def is_model_folder(path: Path) -> bool:
    """Whether a folder holds one model with its side files, and not a collection of models."""
    return any((path / name).is_file() for name in (CONFIG, GENAI_CONFIG, "tokenizer.json"))


def find_beside(model: Path, name: str) -> Path | None:
    """A side file in a model's folder, or in the one above where the model lies in a folder `onnx`."""
    folders = [model.parent, *([model.parent.parent] if model.parent.name == "onnx" else [])]
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


@dataclass(frozen=True)
class RemovedBlocks:
    """Which of a network's blocks are gone.

    Attributes:
        count: how many there were.
        numbers: the numbers of those that are gone, from 0.
        part: "decoder", "encoder", or "" where the network is one.
    """

    count: int
    numbers: tuple[int, ...]
    part: str = ""

    @property
    def remaining(self) -> int:
        """How many are left."""
        return self.count - len(self.numbers)


def corrected_config(document: Mapping[str, Any], removed: RemovedBlocks) -> dict[str, Any]:
    """config.json or genai_config.json for a model without some blocks.

    Changed are numbers of layers, lists with an entry per layer, and lists of layers' numbers. Nested parts,
    such as `text_config` or `model.decoder`, are looked into.
    """
    kept = [k for k in range(removed.count) if k not in removed.numbers]
    place = {old: new for new, old in enumerate(kept)}
    found: dict[str, Any] = {}
    for key, value in document.items():
        if key in _other_part(removed.part):
            found[key] = value
        elif isinstance(value, dict):
            found[key] = corrected_config(value, removed)
        elif key in _counts(removed.part, document) and value == removed.count:
            found[key] = removed.remaining
        elif key == "max_window_layers" and isinstance(value, int):
            found[key] = sum(k < value for k in kept)
        elif isinstance(value, list) and len(value) == removed.count and _per_layer(key, value):
            found[key] = [value[k] for k in kept]
        elif isinstance(value, list) and key in _NUMBERS and all(isinstance(k, int) for k in value):
            found[key] = [place[k] for k in value if k in place]
        else:
            found[key] = value
    return found


_NUMBERS = frozenset({"layers", "full_attn_idxs", "attn_layer_indices", "cross_attention_layers"})


def _per_layer(key: str, value: list[Any]) -> bool:
    """Whether a list as long as the network holds an entry for each layer, and no numbers of layers."""
    if key in _NUMBERS and all(isinstance(item, int) and not isinstance(item, bool) for item in value):
        return False
    return "layer" in key or key in {
        "attention_types",
        "window_sizes",
        "block_types",
        "sliding_window_pattern",
    }


def _counts(part: str, document: Mapping[str, Any]) -> frozenset[str]:
    """Names of the number of layers; beside an encoder's own name the general one is the encoder's, too."""
    common = {"num_hidden_layers", "n_layer", "n_layers", "num_layers"}
    if part == "decoder":
        own = {"num_decoder_layers", "decoder_layers"}
        return frozenset(own if "encoder_layers" in document else own | common - {"num_layers"})
    if part == "encoder":
        return frozenset({"encoder_layers", *common})
    return frozenset({*common, "num_decoder_layers", "decoder_layers", "encoder_layers"})


def _other_part(part: str) -> frozenset[str]:
    """Parts of a configuration that speak of another network."""
    vision = {"vision_config", "audio_config", "vision", "speech", "embedding"}
    other = {"decoder": {"encoder"}, "encoder": {"decoder"}}.get(part, set())
    return frozenset(vision | other)


def save_folder(
    source: ModelFolder,
    output: Path,
    write: Mapping[Path, Callable[[Path], object]],
    removed: RemovedBlocks,
    *,
    skipped: Iterable[Path] = (),
    force: bool = False,
) -> tuple[Path, ...]:
    """Write a folder like another one with other models and a corrected configuration: all or nothing.

    Args:
        source: the folder to take side files from.
        output: the folder to write.
        write: what writes each model, by its file in the source.
        removed: the blocks that are gone.
        skipped: files that belong to the old models, such as their external data.
        force: whether an existing folder may be replaced.

    Returns:
        ONNX files of the source that were left out, since they hold the unpruned network.

    Raises:
        OutputError: the folder exists and `force` is not set, or can't be written.
    """
    folder_writable(source, output, force=force)
    left_out: list[Path] = []
    try:
        temporary = make_scratch_folder(output.parent)
        try:
            made = temporary / output.name
            made.mkdir()
            old = {path.resolve() for path in skipped}
            for file in sorted(path for path in source.path.rglob("*") if path.is_file()):
                target = made / file.relative_to(source.path)
                if any(part.startswith(".") for part in target.relative_to(made).parts):
                    continue
                if file in write or file.resolve() in old:
                    continue
                if file.suffix == ".onnx" and not file.name.startswith("encoder"):
                    left_out.append(file)
                    continue
                if ".onnx" in file.name and file.suffix != ".onnx" and not file.name.startswith("encoder"):
                    continue  # external data of what is left out
                target.parent.mkdir(parents=True, exist_ok=True)
                if file.name in (CONFIG, GENAI_CONFIG):
                    _correct(file, target, removed)
                else:
                    shutil.copyfile(file, target)
            for file, writer in write.items():
                target = made / file.relative_to(source.path)
                target.parent.mkdir(parents=True, exist_ok=True)
                writer(target)
            if output.exists():
                os.replace(output, temporary / "replaced")
            os.replace(made, output)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise OutputError(f"can't be written ({error.strerror})", where=str(output)) from error
    return tuple(left_out)


def folder_writable(source: ModelFolder, output: Path, *, force: bool) -> None:
    """Check that a folder may be written, before any work is done for it.

    Raises:
        OutputError: it exists and `force` is not set, is a file, holds the source, or can't be made.
    """
    own = source.path.resolve()
    if output.resolve() == own or own in output.resolve().parents or output.resolve() in own.parents:
        raise OutputError("lies in the model's own folder, or around it", where=str(output))
    if output.exists() and not output.is_dir():
        raise OutputError("is a file, not a folder", where=str(output), hint="name a folder for the result")
    if output.exists() and any(output.iterdir()) and not force:
        raise OutputError("the folder exists already", where=str(output), hint="@force replaces it")
    if not output.parent.is_dir() or not os.access(output.parent, os.W_OK):
        raise OutputError("its folder does not exist or can't be written", where=str(output))


def _correct(source: Path, target: Path, removed: RemovedBlocks) -> None:
    try:
        document = json.loads(source.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"is not JSON: {error}", where=str(source)) from error
    if isinstance(document, dict) and removed.numbers:
        document = corrected_config(document, removed)
    target.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _genai_files(config: Path) -> list[str]:
    try:
        model = json.loads(config.read_text(encoding="utf-8")).get("model", {})
    except (ValueError, OSError, AttributeError):
        return []
    parts = (model.get(part, {}) for part in ("decoder", "encoder"))
    return [part["filename"] for part in parts if isinstance(part, dict) and "filename" in part]


def _existing(path: Path) -> Path | None:
    return path if path.is_file() else None


def _export_hint(path: Path) -> str:
    torch = any(path.glob("*.safetensors")) or (path / "pytorch_model.bin").exists()
    if torch:
        return f"export it first: optimum-cli export onnx --model {path} exported/"
    return "name an .onnx file, or a folder that holds one"
