"""Large weights of models that were not saved yet, in one file for all models that were made of each other.

ONNX Runtime maps the file into memory, once for all sessions, and no model is serialised to be run.
"""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Iterable
from dataclasses import replace

import onnx

from redtest_onnx.graph.model import Model, is_external, tensor_bytes
from redtest_onnx.graph.reading import in_parts
from redtest_onnx.graph.reduced import copied_without
from redtest_onnx.graph.scratch import make_scratch_folder
from redtest_onnx.graph.tensors import holds_much

_LARGE_MODEL = 32 << 20  # bytes of weights
_PAGE = 4096
_NAME = "weights.bin"


class WeightsFile:
    """Values of weights by name, each written once; a weight that was changed is written behind the others.

    Attributes:
        folder: holds the file, and is removed with this object.
    """

    def __init__(self) -> None:
        self.folder = make_scratch_folder()
        self._file = self.folder / _NAME
        self._file.touch()
        self._places: dict[str, list[tuple[int, int]]] = {}
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)

    def reference(self, tensor: onnx.TensorProto) -> onnx.TensorProto:
        """A tensor of the same name and size whose values lie in the file."""
        content = tensor.raw_data
        known = self._places.setdefault(tensor.name, [])
        place = next((place for place in known if self._holds(content, *place)), None)
        if place is None:
            place = self._append(content), len(content)
            known.append(place)
        found = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        found.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", _NAME), ("offset", place[0]), ("length", place[1])):
            found.external_data.add(key=key, value=str(value))
        return found

    def _append(self, content: bytes) -> int:
        with self._file.open("ab") as file:
            file.write(b"\0" * (-file.tell() % _PAGE))
            offset = file.tell()
            file.write(content)
        return offset

    def _holds(self, content: bytes, offset: int, length: int) -> bool:
        if length != len(content):
            return False
        with self._file.open("rb") as file:
            file.seek(offset)
            done = 0
            for part in in_parts(file, length):
                if not content.startswith(part, done):
                    return False
                done += len(part)
        return done == length


def sharing_weights(model: Model) -> Model:
    """The model with its large weights in the file that it shares with all models made of the same one.

    The model itself where it lies in a file of its own, its weights are small, or others hold them.
    """
    if model.path is not None or not is_large(model.proto) or _lies_elsewhere(model):
        return model
    if "sharing" not in model.facts:
        light = _without_weights(model.proto)
        model.facts["sharing"] = model_of(model, light, model.graph.initializer)
    shared = model.facts["sharing"]
    assert isinstance(shared, Model)
    return shared


def model_of(source: Model, proto: onnx.ModelProto, weights: Iterable[onnx.TensorProto]) -> Model:
    """A model to run that is made of another one and of weights of that, whose large values are not copied.

    They are in the file that all models share which were made of the same one, if they are large together.

    Args:
        source: what it is made of.
        proto: the new model but for these weights, which are added.
        weights: initializers of `source`.
    """
    weights = list(weights)
    if not _are_large(weights) or _lies_elsewhere(source):
        proto.graph.initializer.extend(weights)
        return source.edited(proto)
    file: WeightsFile = source.family.setdefault("weights", source.family.get("weights") or WeightsFile())
    # A model that was read never changes; the weights of others are held against the file.
    known: dict[str, onnx.TensorProto] = source.facts.setdefault("references", {}) if source.path else {}
    for tensor in weights:
        if holds_much(tensor):
            tensor = known.get(tensor.name) or known.setdefault(tensor.name, file.reference(tensor))
        proto.graph.initializer.append(tensor)
    return replace(source.edited(proto), data_folder=file.folder)


def _lies_elsewhere(model: Model) -> bool:
    """Whether some of a model's weights lie in other files than the shared one."""
    file = model.family.get("weights")
    own = isinstance(file, WeightsFile) and file.folder == model.folder
    return not own and any(map(is_external, model.graph.initializer))


def is_large(proto: onnx.ModelProto) -> bool:
    """Whether copies of a model's weights are worth saving."""
    return _are_large(proto.graph.initializer)


def _are_large(weights: Iterable[onnx.TensorProto]) -> bool:
    return sum(tensor_bytes(t) for t in weights if holds_much(t)) > _LARGE_MODEL


def _without_weights(proto: onnx.ModelProto) -> onnx.ModelProto:
    light = copied_without(proto, {"graph"})
    light.graph.CopyFrom(copied_without(proto.graph, {"initializer"}))
    return light
