"""An ONNX model as data, never changed in place, and the vocabulary to talk about its tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import onnx

from redtest_onnx.errors import InputError
from redtest_onnx.graph.reading import file_stamp
from redtest_onnx.graph.tensors import dtype_name as dtype_name
from redtest_onnx.graph.tensors import element_bits as element_bits
from redtest_onnx.graph.tensors import external_location as external_location
from redtest_onnx.graph.tensors import is_external as is_external
from redtest_onnx.graph.tensors import sparse_tensors as sparse_tensors
from redtest_onnx.graph.tensors import stored_tensors as stored_tensors
from redtest_onnx.graph.tensors import subgraphs as subgraphs
from redtest_onnx.graph.tensors import tensor_bytes as tensor_bytes
from redtest_onnx.graph.tensors import tensor_elements as tensor_elements
from redtest_onnx.graph.tensors import tensors as tensors

Value = TypeVar("Value")
Dim: TypeAlias = int | str | None
"""A dimension as the file declares it: a size, a symbol, or nothing."""

FLOAT: int = onnx.TensorProto.FLOAT


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
    no more memory than its graph. Those of a large file without such data stay in that file in the same way,
    see `weights_in`. Treat `proto` as read-only; every edit makes a new `Model`.

    Attributes:
        proto: the graph with the weights stored inside the file.
        path: the file; None for a model that was not saved yet.
        data_folder: where external data lies if that is not beside `path`.
        origin: what messages call a model that was made of a file.
        sizes: sizes of inputs that the user chose where the file leaves dimensions open; the file stays as
            it is.
        renamed: where removed layers took their caches with them: the names that this model's inputs and
            outputs had before, by those they have now; None where the signature is that of the file.
        weights_in: the ONNX file that `proto` refers to for its large weights, which are part of the model's
            own file wherever it is saved; None where `proto` holds them itself.
    """

    proto: onnx.ModelProto
    path: Path | None = None
    data_folder: Path | None = None
    origin: str | None = None
    sizes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    renamed: Mapping[str, str] | None = None
    weights_in: Path | None = None
    facts: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)
    """What other modules found out about the model, each once: it never changes."""
    family: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """What a model shares with those made of it, such as a file of their weights."""

    @property
    def graph(self) -> onnx.GraphProto:
        """The main graph."""
        return self.proto.graph

    @property
    def label(self) -> str:
        """How messages call this model."""
        return str(self.path) if self.path else (self.origin or self.graph.name or "the model")

    @property
    def folder(self) -> Path:
        """The folder that external data paths are relative to."""
        return self.data_folder or (self.path.parent if self.path else Path())

    def edited(self, proto: onnx.ModelProto) -> Model:
        """A changed version of this model, not saved yet, that refers to the same external data.

        Files before IR version 4 list initializers among the inputs; those that the change added join them.
        """
        if proto.ir_version < 4:
            listed = {info.name for info in proto.graph.input}
            proto.graph.input.extend(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
                for tensor in proto.graph.initializer
                if tensor.name not in listed
            )
        edited = Model(proto, None, self.folder, self.label, self.sizes, self.renamed, self.weights_in)
        return replace(edited, family=self.family)

    def with_sizes(self, sizes: Mapping[str, tuple[int, ...]]) -> Model:
        """This model with chosen sizes for the open dimensions of inputs.

        A first size of 1 leaves an open first dimension open: that is how one sample is written.

        Args:
            sizes: of inputs, without exception for each.

        Raises:
            InputError: no input has this name, another number of dimensions, or a fixed one of another size.
        """
        for name, shape in sizes.items():
            spec = next((spec for spec in self.inputs if spec.name == name), None)
            if spec is None:
                names = ", ".join(spec.name for spec in self.inputs)
                raise InputError(
                    f"no input is called {name!r}", where=self.label, hint=f"its inputs: {names}"
                )
            fits = spec.shape is None or (
                len(spec.shape) == len(shape)
                and all(
                    not isinstance(dim, int) or dim == size or (k == 0 and size == 1)
                    for k, (dim, size) in enumerate(zip(spec.shape, shape, strict=True))
                )
            )
            if not fits or any(size < 0 for size in shape):
                raise InputError(
                    f"sizes {list(shape)} don't fit the input {name!r}, which is {spec}", where=self.label
                )
        return replace(self, sizes={**self.sizes, **sizes}) if sizes else self

    def origin_of(self, name: str) -> str:
        """The name that an input or output had before layers were removed."""
        return name if self.renamed is None else self.renamed.get(name, name)

    def own_feeds(self, feeds: Mapping[str, Value]) -> dict[str, Value]:
        """What is fed to the model that this one was made from, by this one's names; as it is otherwise."""
        if self.renamed is None:
            return dict(feeds)
        names = {spec.name: self.origin_of(spec.name) for spec in self.inputs}
        return {name: feeds[before] for name, before in names.items() if before in feeds}

    @cached_property
    def initializers(self) -> dict[str, onnx.TensorProto]:
        """The main graph's initializers by name."""
        return {t.name: t for t in self.graph.initializer}

    @cached_property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What a caller must feed: graph inputs that no initializer gives a value (IR 3 lists both)."""
        specs = (TensorSpec.of(v) for v in self.graph.input if v.name not in self.initializers)
        return tuple(_sized(spec, self.sizes.get(spec.name)) for spec in specs)

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
        if self.weights_in is not None:
            return ()
        names = dict.fromkeys(external_location(t) for t in stored_tensors(self.proto) if is_external(t))
        return tuple(self.folder / name for name in names)

    @cached_property
    def sha256(self) -> str:
        """Hex digest of the .onnx file, of the serialised proto if unsaved; without external data."""
        digest = hashlib.sha256()
        if self.path is None:
            from redtest_onnx.graph.streaming import serialised_parts

            for part in serialised_parts(self):
                digest.update(part)
        else:
            with self.path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256")
        return digest.hexdigest()

    @cached_property
    def file_bytes(self) -> int:
        """Size of the model on disk with its external files, in bytes; of the proto if it was never saved."""
        if self.path is None:
            from redtest_onnx.graph.streaming import serialised_size

            if self.weights_in is not None:
                return serialised_size(self)
            return serialised_size(self) + sum(
                tensor_bytes(t) for t in stored_tensors(self.proto) if is_external(t)
            )
        return self.path.stat().st_size + sum(f.stat().st_size for f in self.external_files)

    def serialised(self) -> bytes:
        """The model as bytes, with the weights of `weights_in` and without external data."""
        from redtest_onnx.graph.streaming import serialised_parts

        found = self.facts.get("loadable")
        if isinstance(found, bytes) and self.weights_in is None:
            return found
        return b"".join(serialised_parts(self))

    def value(self, tensor: onnx.TensorProto) -> npt.NDArray[np.generic]:
        """The values of one of this model's tensors, read from the file that holds them.

        Raises:
            InputError: as `require_unchanged`.
        """
        return onnx.numpy_helper.to_array(self.held(tensor) if is_external(tensor) else tensor)

    def held(self, tensor: onnx.TensorProto) -> onnx.TensorProto:
        """A copy of an external tensor that holds its values itself, without name and documentation.

        Raises:
            InputError: as `require_unchanged`.
        """
        self.require_unchanged()
        entries = {entry.key: entry.value for entry in tensor.external_data}
        plain = onnx.TensorProto(data_type=tensor.data_type, dims=tensor.dims)
        with (self.folder / external_location(tensor)).open("rb") as file:
            file.seek(int(entries.get("offset", 0)))
            plain.raw_data = file.read(tensor_bytes(tensor))
        return plain

    def require_unchanged(self) -> None:
        """Check that the file in `weights_in` is the one that was read.

        Raises:
            InputError: another one has taken its place, or it was changed or removed.
        """
        if self.weights_in is None:
            return
        stamp = file_stamp(self.weights_in)
        if stamp is None or self.family.setdefault("stamp", stamp) != stamp:
            raise InputError(
                "was changed or removed after it was read, and weights are read where they are needed",
                where=str(self.weights_in),
                hint="read it again, and save results under other names",
            )


def _sized(spec: TensorSpec, sizes: tuple[int, ...] | None) -> TensorSpec:
    """The input with sizes chosen for its open dimensions."""
    if sizes is None:
        return spec
    declared = spec.shape if spec.shape is not None else (None,) * len(sizes)
    shape = tuple(
        dim if isinstance(dim, int) or (k == 0 and size == 1) else size
        for k, (dim, size) in enumerate(zip(declared, sizes, strict=True))
    )
    return replace(spec, shape=shape)


def first_line(error: BaseException) -> str:
    """The first non-empty line of an exception's text, for one-line messages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__


def _dim(dim: onnx.TensorShapeProto.Dimension) -> Dim:
    if dim.HasField("dim_value"):
        return dim.dim_value if dim.dim_value >= 0 else None
    return dim.dim_param or None
