"""Read ONNX files and refuse what is none; write them whole or not at all."""

from __future__ import annotations

import logging
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from tempfile import mkdtemp

import networkx as nx
import onnx
from google.protobuf.message import DecodeError

from redtest_onnx.errors import InputError, OutputError
from redtest_onnx.graph.checkable import without_external
from redtest_onnx.graph.index import reads
from redtest_onnx.graph.model import (
    Model,
    external_location,
    first_line,
    is_external,
    tensor_bytes,
    tensors,
)
from redtest_onnx.graph.model_folder import open_folder
from redtest_onnx.graph.runtime_operators import runtime_only_operators, without_runtime_only
from redtest_onnx.graph.stored import loadable
from redtest_onnx.graph.text import broken_text

log = logging.getLogger(__name__)

_CHUNK = 1 << 20
_BROKEN = "export it again, or repair it with the tool that wrote it"


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
    try:
        if path.stat().st_size == 0:
            raise InputError("the file is empty", where=str(path), hint="export or download the model again")
        proto = onnx.load(path, format="protobuf", load_external_data=False)
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
    return checked(Model(proto, path))


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
    _check_structure(model)
    _check_order(model)
    for tensor in tensors(model.graph):
        if is_external(tensor):
            _check_external(model, tensor)
    _check_schema(model)
    return model


def full_check(model: Model) -> None:
    """Run `onnx.checker` with full shape and type inference.

    Raises:
        InputError: with the checker's own message.
    """
    external = any(is_external(tensor) for tensor in tensors(model.graph))
    try:
        if external or runtime_only_operators(model.proto):
            checked: onnx.ModelProto | str | bytes = without_runtime_only(without_external(model.proto))
        else:
            checked = loadable(model)
        onnx.checker.check_model(checked, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
        raise InputError(f"fails onnx.checker: {first_line(error)}", where=model.label) from error


def save(model: Model, path: str | os.PathLike[str], *, force: bool = False) -> Model:
    """Write the model atomically, with its external data beside it as `<name>.data`.

    Only the external tensors that the graph still uses are copied, streamed from the source file. A model
    that was not changed since it was read is copied byte for byte.

    Returns:
        The model as it now lies on disk.

    Raises:
        OutputError: the target exists and `force` is not set, or can't be written.
    """
    path = Path(path)
    writable(path, force=force)
    proto = model.proto
    source = model.path
    if any(is_external(tensor) for tensor in tensors(proto.graph)):
        proto = onnx.ModelProto()
        proto.CopyFrom(model.proto)
        external = [t for t in tensors(proto.graph) if is_external(t)]
        data_path = path.with_name(path.name + ".data")
        writable(data_path, force=force)
        write_together(
            {
                data_path: lambda target: copy_external(model.folder, external, target, data_path.name),
                path: lambda target: target.write_bytes(proto.SerializeToString(deterministic=True)),
            }
        )
    elif source is not None:
        write_atomic(path, lambda target: shutil.copyfile(source, target))
    else:
        content = model.serialised()
        write_atomic(path, lambda target: target.write_bytes(content))
    return Model(proto, path)


def writable(path: Path, *, force: bool) -> None:
    """Check that `path` may be written, before any work is done for it.

    Raises:
        OutputError: it exists and `force` is not set, is a folder, or its folder is missing or read-only.
    """
    if path.is_dir():
        raise OutputError("is a folder", where=str(path), hint="name a file inside it")
    if path.exists() and not force:
        raise OutputError("the file exists already", where=str(path), hint="@force=True overwrites it")
    if not path.parent.is_dir():
        raise OutputError("its folder does not exist", where=str(path), hint=f"mkdir -p {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise OutputError("its folder can't be written", where=str(path), hint="choose another place")


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file next to `path`, then rename it: all or nothing.

    Raises:
        OutputError: the file can't be written.
    """
    write_together({path: write})


def write_together(files: Mapping[Path, Callable[[Path], object]]) -> None:
    """As `write_atomic` for files of one folder that belong together: none is renamed before all are filled.

    Raises:
        OutputError: a file can't be written.
    """
    path = next(iter(files))
    try:
        folder = Path(mkdtemp(prefix=".redtest-", dir=path.parent))
        try:
            for path, write in files.items():
                write(folder / path.name)
            for path in files:
                os.replace(folder / path.name, path)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise OutputError(f"can't be written ({error.strerror})", where=str(path)) from error


def _twice(names: Iterable[str]) -> str | None:
    """The first name that comes more than once."""
    counts = Counter(filter(None, names))
    return next((name for name, count in counts.items() if count > 1), None)


def _check_order(model: Model) -> None:
    """Refuse nodes that read what nobody makes, or makes before them; ONNX wants them in order."""
    graph = model.graph
    makers = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
    ready = {v.name for v in graph.input} | {t.name for t in graph.initializer}
    ready.update(t.values.name for t in graph.sparse_initializer)
    for i, node in enumerate(graph.node):
        for name in reads(node):
            if name in ready or makers.get(name, i) < i:
                continue
            where = f"{model.label}, node {node.name or node.op_type!r}"
            if name not in makers:
                raise InputError(f"it reads {name!r}, which nothing makes", where=where, hint=_BROKEN)
            if not nx.is_directed_acyclic_graph(_flow(graph, makers)):
                raise InputError(f"its input {name!r} depends on its own output", where=where, hint=_BROKEN)
            raise InputError(
                f"it reads {name!r}, which a later node makes: nodes must stand in the order they run in",
                where=where,
                hint="sort the graph, with onnx_graphsurgeon's Graph.toposort() for example",
            )


def _flow(graph: onnx.GraphProto, makers: Mapping[str, int]) -> nx.DiGraph[int]:
    edges = ((makers[name], i) for i, node in enumerate(graph.node) for name in reads(node) if name in makers)
    return nx.DiGraph(edges)


def _check_structure(model: Model) -> None:
    """Refuse what would make every later stage guess."""
    graph = model.graph
    if not model.proto.ir_version or not (graph.node or graph.input):
        raise InputError(
            "not an ONNX model: it holds no graph",
            where=model.label,
            hint="export or download it again; the file must hold a serialised ModelProto",
        )
    if (field := broken_text(model.proto)) is not None:
        raise InputError(
            f"holds text that is not UTF-8, in {field}",
            where=model.label,
            hint="export or download it again; ONNX files hold UTF-8 only",
        )
    if not graph.output:
        raise InputError("the graph has no outputs", where=model.label, hint="export the model again")
    if not model.proto.opset_import:
        raise InputError("no operator set is declared", where=model.label, hint="export the model again")
    if twice := _twice(name for node in graph.node for name in node.output):
        raise InputError(f"two nodes make the same tensor {twice!r}", where=model.label, hint=_BROKEN)
    if twice := _twice(node.name for node in graph.node):
        raise InputError(
            f"two nodes are called {twice!r}, which ONNX Runtime refuses",
            where=model.label,
            hint="give every node a name of its own, or none",
        )


def _check_schema(model: Model) -> None:
    if beyond := runtime_only_operators(model.proto):
        log.info("%s: ONNX has no schema for %s; ONNX Runtime decides", model.label, ", ".join(beyond))
    try:
        onnx.checker.check_model(without_runtime_only(without_external(model.proto)))
    except (onnx.checker.ValidationError, ValueError) as error:
        raise InputError(
            f"not a valid ONNX model: {first_line(error)}",
            where=model.label,
            hint=_BROKEN,
        ) from error


def _external_range(tensor: onnx.TensorProto) -> tuple[int, int]:
    """Offset and length in bytes of the values in their file.

    Raises:
        ValueError: an entry is not a number.
    """
    entries = {e.key: e.value for e in tensor.external_data}
    return int(entries.get("offset", 0)), int(entries.get("length", tensor_bytes(tensor)))


def _check_external(model: Model, tensor: onnx.TensorProto) -> None:
    where, location = f"{model.label}, tensor {tensor.name!r}", external_location(tensor)
    folder = model.folder.resolve()
    file = (folder / location).resolve()
    if not location or not file.is_relative_to(folder):
        raise InputError(
            f"its external data {location!r} lies outside the model's folder",
            where=where,
            hint="keep the data file beside the model; paths that leave its folder are refused",
        )
    if not file.is_file():
        raise InputError(
            f"its external data file {location!r} is missing",
            where=where,
            hint=f"copy {location} into {folder}",
        )
    try:
        offset, length = _external_range(tensor)
    except ValueError as error:
        raise InputError("its external data has no valid offset and length", where=where) from error
    if offset < 0 or length < tensor_bytes(tensor) or offset + length > file.stat().st_size:
        raise InputError(
            f"its external data file {location!r} is too short",
            where=where,
            hint="copy or export the data file again",
        )


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
            offset, length = _external_range(tensor)
            position = -(-sink.tell() // 4096) * 4096 if length >= 1 << 20 else -(-sink.tell() // 64) * 64
            sink.write(
                b"\0" * (position - sink.tell())
            )  # page-aligned, so that runtimes can map large weights
            with (folder / external_location(tensor)).open("rb") as source:
                source.seek(offset)
                for start in range(0, length, _CHUNK):
                    sink.write(source.read(min(_CHUNK, length - start)))
            del tensor.external_data[:]
            for key, value in (("location", name), ("offset", position), ("length", length)):
                tensor.external_data.add(key=key, value=str(value))
