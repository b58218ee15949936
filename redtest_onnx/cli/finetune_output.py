"""Where a fine-tuned model goes: a file for a file, a folder for a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redtest_onnx.cli.console import Screen
from redtest_onnx.errors import InputError
from redtest_onnx.graph.files import save
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.model_folder import RemovedBlocks, folder_writable, open_folder, save_folder


def default_output(model: Path) -> Path:
    """Beside the model, with `.finetuned` in its name."""
    if model.is_dir():
        return model.resolve().with_name(f"{model.resolve().name}.finetuned")
    return model.with_suffix(".finetuned.onnx")


def check_folder(model: Path, output: Path, *, force: bool) -> None:
    """Check before any work that the folder of a model's folder may be written; nothing to do for a file.

    Raises:
        InputError: other files of the folder hold the same network, whose weights would differ then.
        OutputError: see `folder_writable`.
    """
    if not model.is_dir():
        return
    folder = open_folder(model)
    if folder.partners:
        names = ", ".join(path.name for path in (folder.model, *folder.partners))
        raise InputError(
            f"{names} hold the same network, and one of them is trained",
            where=str(model),
            hint=f"name the file: {folder.model}",
        )
    folder_writable(folder, output, force=force)


@contextmanager
def kept_if_interrupted(screen: Screen, checkpoint: Path) -> Iterator[None]:
    """Say how a training that is interrupted is resumed, once there is something to resume.

    Args:
        screen: where.
        checkpoint: its state.
    """
    try:
        yield
    except KeyboardInterrupt:
        if checkpoint.exists():
            screen.note(
                f"The state is kept in {checkpoint}; the same command with --resume continues from it."
            )
        else:
            screen.note(f"There is nothing to resume: {checkpoint} was not written yet.")
        raise


def save_tuned(tuned: Model, model: Path, output: Path, *, force: bool) -> tuple[Path, ...]:
    """Write a model as a file, or as a folder with the side files of the one that it came from.

    Returns:
        The files that hold the model.
    """
    if not model.is_dir():
        return (output, *save(tuned, output, force=force).external_files)
    folder = open_folder(model)
    written = output / folder.model.relative_to(folder.path)
    save_folder(
        folder,
        output,
        {folder.model: lambda target: save(tuned, target)},
        RemovedBlocks(0, ()),
        skipped=tuned.external_files,
        force=force,
    )
    return (written, *(path for path in written.parent.iterdir() if path.name.startswith(f"{written.name}.")))
