"""Read ONNX files and refuse what is none; write them whole or not at all."""

from __future__ import annotations

import logging
import os
import shutil
from itertools import count
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from redtest_onnx.errors import InputError, OutputError
from redtest_onnx.graph.model import Model, external_location, is_external, stored_tensors
from redtest_onnx.graph.model_folder import open_folder
from redtest_onnx.graph.parsing import read_outline, read_proto
from redtest_onnx.graph.reading import copy_part, file_stamp, require_file
from redtest_onnx.graph.scratch import is_data_of, mentions
from redtest_onnx.graph.streaming import write_serialised
from redtest_onnx.graph.tensor_checks import external_range
from redtest_onnx.graph.tolerance import tolerate
from redtest_onnx.graph.validity import check, check_structure
from redtest_onnx.graph.writing import is_stream, writable, write_together

log = logging.getLogger(__name__)

_LARGE = 64 << 20  # bytes of a file whose large weights stay in it


def load(path: str | os.PathLike[str]) -> Model:
    """Read an ONNX file, or that in a model's folder, without the external weights and check that it is one.

    Raises:
        InputError: no such file, not an ONNX model, structurally invalid, or external data that is missing,
            too short or outside the model's folder.
    """
    path = Path(path)
    if not path.exists():
        raise InputError("no such file", where=str(path), hint="check the path")
    if path.is_dir():
        path = open_folder(path).model
    require_file(path)
    try:
        if path.stat().st_size == 0:
            raise InputError("the file is empty", where=str(path), hint="export or download the model again")
        model = _read(path)
    except DecodeError as error:
        raise InputError(
            "not an ONNX model, cut off in the middle, or nested too deeply to be read",
            where=str(path),
            hint="export or download it again; the file must hold a serialised ModelProto",
        ) from error
    except OSError as error:
        raise InputError(
            f"can't be read ({error.strerror})", where=str(path), hint="check permissions"
        ) from error
    return checked(model)


def _read(path: Path) -> Model:
    """The model of a file that is one; large weights stay in it.

    Raises:
        DecodeError: it is no ONNX model.
        OSError: it can't be read.
    """
    # Windows lets no file be replaced that is mapped into memory.
    if path.stat().st_size >= _LARGE and os.name == "posix":
        file = path.resolve()
        stamp = file_stamp(file)
        proto = read_outline(file)
        if proto is not None:
            family = {"stamp": stamp}
            return Model(proto, path, file.parent, weights_in=file, family=family)
    return Model(read_proto(path), path)


def parse(content: bytes | onnx.ModelProto) -> Model:
    """A model that is in memory, serialised or as a proto, after the checks of `load`.

    Raises:
        InputError: as `load`; external data is looked for in the working directory.
    """
    if isinstance(content, bytes):
        proto = onnx.ModelProto()
        try:
            proto.ParseFromString(content)
        except DecodeError as error:
            raise InputError(
                "these bytes are no ONNX model, or were cut off",
                hint="give the content of an .onnx file: a serialised ModelProto",
            ) from error
        content = proto
    return checked(Model(content))


def checked(model: Model) -> Model:
    """The model itself, if every stage can work with it.

    Raises:
        InputError: it is structurally invalid, or external data is missing.
    """
    check_structure(model)
    model, notes = tolerate(model)
    for note in notes:
        log.warning("%s: %s; ONNX Runtime takes that, other runtimes may not", model.label, note)
    check(model)
    return model


def save(model: Model, path: str | os.PathLike[str], *, force: bool = False) -> Model:
    """Write the model whole or not at all, with its external data in one file beside it.

    That file is called `<name>.data`, or `<name>.2.data` and so on where the name is taken: data that is
    there is never written over, since this model, or another one, may still read it. The data that an earlier
    save of this name made is removed once the new graph is in its place.

    Only the external tensors that the graph still uses are copied, streamed from the source file. A model
    that was not changed since it was read is copied byte for byte.

    Returns:
        The model as it now lies on disk; for a stream such as `/dev/null`, the model that was given.

    Raises:
        OutputError: the target exists and `force` is not set, can't be written, holds weights that the model
            reads, or is a stream and the model has external data.
    """
    path = Path(path)
    writable(path, force=force)
    proto, source = model.proto, model.path
    if any(os.path.realpath(file) == os.path.realpath(path) for file in model.external_files):
        raise OutputError(
            "holds weights that the model reads", where=str(path), hint="save it under another name"
        )
    external = model.weights_in is None and any(map(is_external, stored_tensors(proto)))
    if external and is_stream(path):
        if str(path) == os.devnull:
            return model
        raise OutputError(
            "can't take a model that keeps weights in files of their own",
            where=str(path),
            hint="name a file; its external data is written beside it",
        )
    if external:
        proto = onnx.ModelProto()
        proto.CopyFrom(model.proto)
        moved = [tensor for tensor in stored_tensors(proto) if is_external(tensor)]
        name, old = _data_names(path)
        write_together(
            {
                path.with_name(name): lambda target: copy_external(model.folder, moved, target, name),
                path: lambda target: target.write_bytes(proto.SerializeToString(deterministic=True)),
            },
            old=old,
        )
    elif source is not None:
        write_together({path: lambda target: shutil.copyfile(source, target)}, old=_data_names(path)[1])
    else:
        write_together({path: lambda target: write_serialised(model, target)}, old=_data_names(path)[1])
    if is_stream(path):
        return model
    return Model(proto, path) if model.weights_in is None else _read(path)


def _data_names(path: Path) -> tuple[str, list[str]]:
    """A free name for the external data of a model at `path`, and names that an older one there leaves.

    What another model of the folder mentions is not its alone and stays.
    """
    names = (f"{path.name}{'' if number == 1 else f'.{number}'}.data" for number in count(1))
    free = next(name for name in names if not os.path.lexists(path.with_name(name)))
    if is_stream(path) or not path.is_file():
        return free, []
    others = [file for file in path.parent.glob("*.onnx") if file != path]
    beside = [file.name for file in path.parent.iterdir() if is_data_of(path.name, file.name)]
    return free, [name for name in beside if mentions([path], name) and not mentions(others, name)]


def copy_external(folder: Path, used: list[onnx.TensorProto], target: Path, name: str) -> None:
    """Copy the values of external tensors from their files below `folder` into one file; point them there.

    Args:
        folder: what the tensors' locations are relative to.
        used: the tensors; changed.
        target: the file to write.
        name: its location as the tensors name it from now on.
    """
    with target.open("wb") as sink:
        for tensor in used:
            offset, length = external_range(tensor)
            position = -(-sink.tell() // 4096) * 4096 if length >= 1 << 20 else -(-sink.tell() // 64) * 64
            sink.write(
                b"\0" * (position - sink.tell())
            )  # page-aligned, so that runtimes can map large weights
            with (folder / external_location(tensor)).open("rb") as source:
                copy_part(source, offset, length, sink)
            del tensor.external_data[:]
            for key, value in (("location", name), ("offset", position), ("length", length)):
                tensor.external_data.add(key=key, value=str(value))
