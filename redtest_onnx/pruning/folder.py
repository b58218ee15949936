"""Write a pruned model where it is wanted: as a file, or as a folder like the one it came from."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from redtest_onnx.data.synthetic import Synthetic
from redtest_onnx.graph.files import load, save
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.model_folder import folder_writable, open_folder, save_folder
from redtest_onnx.graph.writing import writable
from redtest_onnx.layers.blocks import removed_blocks
from redtest_onnx.pruning.follow import prune_partner
from redtest_onnx.pruning.prune import Pruning
from redtest_onnx.runtime.workbench import Workbench

_PARTNER_SAMPLES = 64


def default_output(model: Path) -> Path:
    """Where a pruned model goes by default: beside the model, with `.pruned` in its name."""
    if model.is_dir():
        return model.resolve().with_name(model.resolve().name + ".pruned")
    return model.with_suffix(".pruned.onnx")


def check_output(model: Path, output: Path, *, force: bool) -> None:
    """Check that the result may be written, before any work is done for it.

    Raises:
        OutputError: see `writable` and `folder_writable`.
    """
    if model.is_dir():
        folder_writable(open_folder(model), output, force=force)
    else:
        writable(output, force=force)


def save_pruned(
    bench: Workbench, pruning: Pruning, model: Path, output: Path, *, force: bool = False
) -> tuple[str, ...]:
    """Write a pruned model.

    A folder gets all that was in the original's: configurations with the new number of blocks, the tokenizer,
    and other files that hold the same network, such as a decoder's for the steps after the first, pruned
    alike. Variants of the model that were not pruned (quantised ones, for example) are left out.

    Args:
        bench: of the original.
        pruning: the result.
        model: the file or folder that the original came from.
        output: the file or folder to write.
        force: whether it may be replaced.

    Returns:
        What a user should know about it, in words.

    Raises:
        OutputError: it can't be written.
        InputError: a partner file holds other layers.
    """
    if not model.is_dir():
        save(pruning.model, output, force=force)
        return tuple(_inlined(bench.model, pruning.model))
    folder = open_folder(model)
    write: dict[Path, Callable[[Path], object]] = {folder.model: partial(_write, pruning.model)}
    skipped = list(bench.model.external_files)
    notes = _inlined(bench.model, pruning.model)
    pruned_view = bench.successor(pruning.model).view.model
    for path in folder.partners:
        partner = load(path)
        skipped += partner.external_files
        followed = _followed(bench, pruned_view, pruning, partner)
        write[path] = partial(_write, followed)
        notes.append(f"{path.name} holds the same network: pruned alike.")
    names = [step.region for step in pruning.plan.steps]
    part = folder.model.name.split("_")[0] if folder.model.name.startswith(("decoder", "encoder")) else ""
    removed = removed_blocks(bench.model, pruning.model, pruning.analysis.layers, names, part)
    left_out = save_folder(folder, output, write, removed, skipped=skipped, force=force)
    if left_out:
        notes.append(f"Left out, since not pruned: {', '.join(path.name for path in left_out)}.")
    if folder.config is not None or folder.genai_config is not None:
        notes.append(f"Configuration: {removed.count} -> {removed.remaining} blocks.")
    return tuple(notes)


def _inlined(before: Model, after: Model) -> list[str]:
    """What became of local functions, whose nodes have no names of their own once they are inlined."""
    count = len(before.proto.functions) - len(after.proto.functions)
    if count <= 0:
        return []
    return [f"{count} local function{'s are' if count > 1 else ' is'} inlined where the graph called it."]


def _followed(bench: Workbench, pruned_view: Model, pruning: Pruning, partner: Model) -> Model:
    if pruning.plan.empty:
        return partner
    data = Synthetic(partner, bench.seed, _PARTNER_SAMPLES, {})
    with Workbench(partner, data, bench.options, seed=bench.seed) as other:
        return prune_partner(bench, pruned_view, pruning.plan, other)


def _write(model: Model, target: Path) -> None:
    save(model, target)
