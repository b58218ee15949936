"""Everything that one command will write, checked before any work is done for it."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from redtest_onnx.data.user_code import names_function
from redtest_onnx.errors import OutputError, RuntimeUnavailableError
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.scratch import mentions, remove_litter
from redtest_onnx.graph.writing import is_stream, writable

_IMAGES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff"})

_DRAWN = frozenset({".png", ".svg", ".pdf"})
_DRAWING = {"matplotlib": "matplotlib", "PIL": "Pillow"}


@dataclass(frozen=True)
class Outputs:
    """The files of one command, by the options that name them.

    Attributes:
        files: option and path of each; streams such as `/dev/stdout` are not among them.
    """

    files: tuple[tuple[str, Path], ...]

    @classmethod
    def of(
        cls,
        named: Mapping[str, Path | str | None],
        *,
        force: bool,
        kept: Mapping[str, Path | None] | None = None,
        reads: Iterable[Path | None] = (),
        models: Iterable[Path] = (),
    ) -> Outputs:
        """Refuse outputs that are read, exist or can't be written; remove what killed runs left there.

        Args:
            named: path by option; None and "-" are no files.
            force: whether those that exist may be written over.
            kept: likewise, for files that are added to or gone on with.
            reads: what the command reads, see `spare`.
            models: models that it reads later on, and folders of them, with their external data.

        Raises:
            OutputError: naming the option and the file.
            RuntimeUnavailableError: a picture was asked for, and what draws it is not installed.
        """
        given = [(option, Path(path)) for option, path in named.items() if path is not None and path != "-"]
        more = [(option, path) for option, path in (kept or {}).items() if path is not None]
        for folder in {Path(tempfile.gettempdir()), *(path.parent for _, path in (*given, *more))}:
            remove_litter(folder)
        for _, path in given:
            writable(path, force=True)
            if path.suffix.lower() in _DRAWN:
                _require_drawing(path)
        for _, path in more:
            writable(path, force=True)
        files = [(option, path) for option, path in (*given, *more) if not is_stream(path)]
        taken: dict[str, str] = {}
        for option, path in files:
            for place in _places(path):
                if taken.setdefault(place, option) != option:
                    raise OutputError(
                        f"is named by {taken[place]} and by {option}",
                        where=str(path),
                        hint="give each output a file of its own",
                    )
        _refuse_data(files)
        found = cls(tuple(files))
        found.spare(*reads)
        for path in models:
            found._refuse(path, _is_model_of)
        # Last, since --force helps here and nowhere above.
        for _, path in given:
            writable(path, force=force)
        return found

    def spare(self, *reads: Path | Model | None) -> None:
        """Refuse outputs that are inputs: models, the data beside them, samples, whatever is read.

        Args:
            reads: files that the command reads, and folders of images; a model stands for its file and its
                external data.

        Raises:
            OutputError: naming the option and the file. `--force` does not help.
        """
        for path in (path for read in reads if read is not None for path in _files(read)):
            self._refuse(path, _is_image_of)

    def _refuse(self, read: Path, is_part_of: Callable[[Path, Path], bool]) -> None:
        for option, output in self.files:
            if _is_same(output, read) or is_part_of(output, read):
                raise OutputError(
                    f"{option} would overwrite what is read",
                    where=str(output),
                    hint="name another file; --force does not overwrite inputs",
                )


def _refuse_data(files: list[tuple[str, Path]]) -> None:
    """Refuse an output where another one, a model, may put its external data."""
    for option, path in files:
        for model, place in files:
            named = re.fullmatch(rf"{re.escape(place.name)}(\.\d+)?\.data", path.name, re.IGNORECASE)
            same = os.path.realpath(place.parent) == os.path.realpath(path.parent)
            if named and same and place.suffix == ".onnx":
                raise OutputError(
                    f"is where {model} may put its weights, and is named by {option}",
                    where=str(path),
                    hint="give each output a file of its own",
                )


def _files(read: Path | Model) -> Iterator[Path]:
    if isinstance(read, Path):
        text = str(read)
        yield Path(text.rpartition(":")[0]) if names_function(text) else read
    else:
        yield from read.external_files
        if read.path is not None:
            yield read.path


def _places(path: Path) -> set[str]:
    """Where a file is written, and what a link there leads to."""
    entry = os.path.join(os.path.realpath(path.parent), path.name)
    return {entry, os.path.realpath(path)}


def _is_same(output: Path, read: Path) -> bool:
    if _places(output) & _places(read):
        return True
    try:
        return os.path.samefile(output, read)  # hard links, and file systems without upper and lower case
    except OSError:
        return False


def _is_image_of(output: Path, folder: Path) -> bool:
    """Whether an output is there already as an image of a folder."""
    inside = folder.is_dir() and output.is_file() and output.resolve().is_relative_to(folder.resolve())
    return inside and output.suffix.lower() in _IMAGES


def _is_model_of(output: Path, path: Path) -> bool:
    """Whether an output is there already as a model of a folder, or as data of one there, or of one model."""
    folder = path if path.is_dir() else path.parent
    if not (output.is_file() and output.resolve().is_relative_to(folder.resolve())):
        return False
    models = [*path.rglob("*.onnx")] if path.is_dir() else [path]
    return any(
        place.suffix == ".onnx" if place in models else mentions(models, place.name)
        for place in {output, output.resolve()}
    )


def _require_drawing(path: Path) -> None:
    missing = [name for module, name in _DRAWING.items() if find_spec(module) is None]
    if missing:
        raise RuntimeUnavailableError(
            f"pictures need {' and '.join(missing)}",
            where=str(path),
            hint='pip install "redtest-onnx[report]", or leave the picture out',
        )
