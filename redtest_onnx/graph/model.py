"""Load, validate and save ONNX files; a `Model` is one of them, never changed in place."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import mkdtemp
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError

from redtest_onnx.errors import InputError, OutputError

Dim: TypeAlias = int | str | None
"""A dimension as the file declares it: a size, a symbol, or nothing."""

FLOAT: int = onnx.TensorProto.FLOAT

log = logging.getLogger(__name__)

_CHUNK = 1 << 20


@dataclass(frozen=True)
class TensorSpec:
    """A model input or output: name, ONNX element type and declared dimensions.

    `shape` is None where the file declares no rank, `dtype` 0 where the value is no tensor.
    """

    name: str
    dtype: int
    shape: tuple[Dim, ...] | None

    @classmethod
    def of(cls, info: onnx.ValueInfoProto) -> TensorSpec:
        """Read a ValueInfoProto."""
        tensor = info.type.tensor_type
        shape = tuple(_dim(d) for d in tensor.shape.dim) if tensor.HasField("shape") else None
        return cls(info.name, tensor.elem_type, shape)

    @property
    def numpy_dtype(self) -> np.dtype[np.generic]:
        """The NumPy dtype of the values.

        Raises:
            InputError: the value is no tensor, or its type has no NumPy counterpart.
        """
        try:
            return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(self.dtype))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"input or output {self.name!r} has a type without arrays (ONNX type {self.dtype})",
                hint="export the model with plain tensors as inputs and outputs",
            ) from error

    def __str__(self) -> str:
        dims = "?" if self.shape is None else ", ".join("?" if d is None else str(d) for d in self.shape)
        return f"{dtype_name(self.dtype)}[{dims}]"


@dataclass(frozen=True)
class Model:
    """An ONNX model: the proto as it stands in the file and the place it came from.

    Weights in external files stay there (`proto` holds references only), so that a model of any size costs
    no more memory than its graph. Treat `proto` as read-only; every edit makes a new `Model`.

    Attributes:
        proto: the graph with the weights stored inside the file.
        path: the file; None for a model that was not saved yet.
        data_folder: where external data lies if that is not beside `path`.
    """

    proto: onnx.ModelProto
    path: Path | None = None
    data_folder: Path | None = None

    @property
    def graph(self) -> onnx.GraphProto:
        """The main graph."""
        return self.proto.graph

    @property
    def label(self) -> str:
        """How messages call this model."""
        return str(self.path) if self.path else (self.graph.name or "the model")

    @property
    def folder(self) -> Path:
        """The folder that external data paths are relative to."""
        return self.data_folder or (self.path.parent if self.path else Path())

    def edited(self, proto: onnx.ModelProto) -> Model:
        """A changed version of this model, not saved yet, that refers to the same external data."""
        return Model(proto, data_folder=self.folder)

    @cached_property
    def initializers(self) -> dict[str, onnx.TensorProto]:
        """The main graph's initializers by name."""
        return {t.name: t for t in self.graph.initializer}

    @cached_property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What a caller must feed: graph inputs that no initializer gives a value (IR 3 lists both)."""
        return tuple(TensorSpec.of(v) for v in self.graph.input if v.name not in self.initializers)

    @cached_property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The graph outputs in order."""
        return tuple(TensorSpec.of(v) for v in self.graph.output)

    @property
    def opsets(self) -> dict[str, int]:
        """Operator set versions by domain; the default domain is `ai.onnx`."""
        return {o.domain or "ai.onnx": o.version for o in self.proto.opset_import}

    @cached_property
    def external_files(self) -> tuple[Path, ...]:
        """Files beside the model that hold weights, in order of first use."""
        names = dict.fromkeys(_location(t) for t in tensors(self.graph) if is_external(t))
        return tuple(self.folder / name for name in names)

    @cached_property
    def sha256(self) -> str:
        """Hex digest of the .onnx file, of the serialised proto if unsaved; without external data."""
        digest = hashlib.sha256()
        if self.path is None:
            digest.update(self.proto.SerializeToString(deterministic=True))
        else:
            with self.path.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
        return digest.hexdigest()

    @cached_property
    def file_bytes(self) -> int:
        """Size of the model on disk with its external files, in bytes; of the proto if it was never saved."""
        if self.path is None:
            external = sum(tensor_bytes(t) for t in tensors(self.graph) if is_external(t))
            return int(self.proto.ByteSize()) + external
        return self.path.stat().st_size + sum(f.stat().st_size for f in self.external_files)

    def value(self, tensor: onnx.TensorProto) -> npt.NDArray[np.generic]:
        """The values of one of this model's tensors, read from its external file where it has one."""
        return onnx.numpy_helper.to_array(tensor, base_dir=str(self.folder))


def load(path: str | os.PathLike[str]) -> Model:
    """Read an ONNX file without the external weights and check that it is one.

    Raises:
        InputError: no such file, not an ONNX model, structurally invalid, or external data that is missing,
            too short or outside the model's folder.
    """
    path = Path(path)
    if not path.exists():
        raise InputError("no such file", where=str(path), hint="check the path")
    if path.is_dir():
        raise InputError("is a folder, not an ONNX file", where=str(path), hint=_folder_hint(path))
    try:
        if path.stat().st_size == 0:
            raise InputError("the file is empty", where=str(path), hint="export or download the model again")
        proto = onnx.load(path, format="protobuf", load_external_data=False)
    except DecodeError as error:
        raise InputError(
            "not an ONNX model, or cut off in the middle",
            where=str(path),
            hint="export or download it again; the file must hold a serialised ModelProto",
        ) from error
    except OSError as error:
        raise InputError(
            f"can't be read ({error.strerror})", where=str(path), hint="check permissions"
        ) from error
    model = Model(proto, path)
    _check_structure(model)
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
    try:
        onnx.checker.check_model(_without_external(model.proto), full_check=True)
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
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    external = [t for t in tensors(proto.graph) if is_external(t)]
    if external:
        data_path = path.with_name(path.name + ".data")
        writable(data_path, force=force)
        write_atomic(data_path, lambda target: _copy_external(model.folder, external, target, data_path.name))
    source = model.path
    if source is not None and not external:
        write_atomic(path, lambda target: shutil.copyfile(source, target))
    else:
        content = proto.SerializeToString(deterministic=True)
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
        raise OutputError("the file exists already", where=str(path), hint="--force overwrites it")
    if not path.parent.is_dir():
        raise OutputError("its folder does not exist", where=str(path), hint=f"mkdir -p {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise OutputError("its folder can't be written", where=str(path), hint="choose another place")


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file next to `path`, then rename it: all or nothing.

    Raises:
        OutputError: the file can't be written.
    """
    try:
        folder = Path(mkdtemp(prefix=".redtest-", dir=path.parent))
        try:
            temporary = folder / path.name
            write(temporary)
            os.replace(temporary, path)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise OutputError(f"can't be written ({error.strerror})", where=str(path)) from error


def _without_external(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its external weights as inputs, which the checker can read without their files."""
    if not any(is_external(t) for t in proto.graph.initializer):
        return proto
    checked = onnx.ModelProto()
    checked.CopyFrom(proto)
    listed = {v.name for v in checked.graph.input}
    for i in reversed(range(len(checked.graph.initializer))):
        tensor = checked.graph.initializer[i]
        if is_external(tensor):
            if tensor.name not in listed:
                info = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
                checked.graph.input.append(info)
            del checked.graph.initializer[i]
    return checked


def tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """All stored tensors of a graph and its subgraphs: initializers and tensor attributes."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
    for child in subgraphs(graph.node):
        yield from tensors(child)


def subgraphs(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.GraphProto]:
    """The graphs directly inside the given nodes (branches of If, bodies of Loop and Scan)."""
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield attribute.g
            yield from attribute.graphs


def is_external(tensor: onnx.TensorProto) -> bool:
    """Whether the values lie in another file."""
    return tensor.data_location == onnx.TensorProto.EXTERNAL


def tensor_bytes(tensor: onnx.TensorProto) -> int:
    """Size of the values in bytes."""
    return tensor_elements(tensor.dims) * element_bits(tensor.data_type) // 8


def tensor_elements(dims: Iterable[int]) -> int:
    """Number of elements for the given dimensions."""
    count = 1
    for dim in dims:
        count *= dim
    return count


def element_bits(dtype: int) -> int:
    """Bits one element of an ONNX type takes; 0 for types without a fixed size (strings)."""
    name = dtype_name(dtype)
    if name in {"string", "undefined"}:
        return 0
    if name.endswith("int4") or name.startswith("float4"):
        return 4
    if name.endswith("int2"):
        return 2
    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(dtype)).itemsize * 8


def dtype_name(dtype: int) -> str:
    """The ONNX name of an element type in lower case, `float` for 1."""
    try:
        return str(onnx.TensorProto.DataType.Name(dtype)).lower()
    except ValueError:
        return f"type{dtype}"


def first_line(error: BaseException) -> str:
    """The first non-empty line of an exception's text, for one-line messages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__


def _dim(dim: onnx.TensorShapeProto.Dimension) -> Dim:
    if dim.HasField("dim_value"):
        return dim.dim_value if dim.dim_value >= 0 else None
    return dim.dim_param or None


def _folder_hint(path: Path) -> str:
    inside = sorted(path.glob("*.onnx"))
    return f"name one of its models, such as {inside[0]}" if inside else "name an .onnx file"


def _check_structure(model: Model) -> None:
    """Refuse what would make every later stage guess."""
    graph = model.graph
    if not model.proto.ir_version or not (graph.node or graph.input):
        raise InputError(
            "not an ONNX model: it holds no graph",
            where=model.label,
            hint="export or download it again; the file must hold a serialised ModelProto",
        )
    if not graph.output:
        raise InputError("the graph has no outputs", where=model.label, hint="export the model again")
    if not model.proto.opset_import:
        raise InputError("no operator set is declared", where=model.label, hint="export the model again")


def _check_schema(model: Model) -> None:
    try:
        onnx.checker.check_model(_without_external(model.proto))
    except (onnx.checker.ValidationError, ValueError) as error:
        raise InputError(
            f"not a valid ONNX model: {first_line(error)}",
            where=model.label,
            hint="export it again, or repair it with the tool that wrote it",
        ) from error


def _location(tensor: onnx.TensorProto) -> str:
    return next((e.value for e in tensor.external_data if e.key == "location"), "")


def _external_range(tensor: onnx.TensorProto) -> tuple[int, int]:
    """Offset and length in bytes of the values in their file.

    Raises:
        ValueError: an entry is not a number.
    """
    entries = {e.key: e.value for e in tensor.external_data}
    return int(entries.get("offset", 0)), int(entries.get("length", tensor_bytes(tensor)))


def _check_external(model: Model, tensor: onnx.TensorProto) -> None:
    where, location = f"{model.label}, tensor {tensor.name!r}", _location(tensor)
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


def _copy_external(folder: Path, used: list[onnx.TensorProto], target: Path, name: str) -> None:
    """Copy the values of `used` from their files below `folder` into `target`; point the tensors there."""
    with target.open("wb") as sink:
        for tensor in used:
            offset, length = _external_range(tensor)
            position = -(-sink.tell() // 4096) * 4096 if length >= 1 << 20 else -(-sink.tell() // 64) * 64
            sink.write(
                b"\0" * (position - sink.tell())
            )  # page-aligned, so that runtimes can map large weights
            with (folder / _location(tensor)).open("rb") as source:
                source.seek(offset)
                for start in range(0, length, _CHUNK):
                    sink.write(source.read(min(_CHUNK, length - start)))
            del tensor.external_data[:]
            for key, value in (("location", name), ("offset", position), ("length", length)):
                tensor.external_data.add(key=key, value=str(value))
