"""Which positions of a sequence count: the attention mask among a model's inputs, or its padding."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from redtest_onnx.errors import InputError
from redtest_onnx.graph import operators as ops
from redtest_onnx.graph.index import GraphIndex, index_of
from redtest_onnx.graph.mask_polarity import marks_padding
from redtest_onnx.graph.model import Model, TensorSpec
from redtest_onnx.graph.size_origins import constant

_NAME = re.compile(r"mask", re.IGNORECASE)
_OTHER = re.compile(r"masked|causal|loss|head_mask|bbox|image|pixel|global", re.IGNORECASE)
_PADDING = re.compile(r"pad(ding)?_?mask|mask_?pad", re.IGNORECASE)
_INTEGERS = (onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.BOOL, onnx.TensorProto.INT8)
_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
# Operator -> input positions that take a mask, or the lengths made of one.
_PORTS: dict[str, tuple[int, ...]] = {
    "Attention": (3,),
    ops.MS + "Attention": (3,),
    ops.MS + "MultiHeadAttention": (4,),
    ops.MS + "GroupQueryAttention": (5,),
    ops.MS + "EmbedLayerNormalization": (7,),
    ops.MS + "DecoderMaskedMultiHeadAttention": (3,),
}


@dataclass(frozen=True)
class Mask:
    """Where it stands which positions count.

    Attributes:
        input: the model's input [samples, positions]. A decoder's mask covers its past, too: then the last
            positions are those of the current run.
        pad: the value that marks padding, where the input holds token ids; None where everything but 0 (or
            false) counts.
        inverted: whether the input is a mask whose 1 or true marks padding; then that is `pad`.
    """

    input: str
    pad: int | None = None
    inverted: bool = False

    @property
    def of_ids(self) -> bool:
        """Whether the input holds token ids, and is no mask itself."""
        return self.pad is not None and not self.inverted

    def counted(
        self, feeds: Mapping[str, npt.NDArray[Any]], positions: int | None = None
    ) -> npt.NDArray[np.bool_]:
        """[samples, positions] which positions count.

        Args:
            feeds: what a run is fed.
            positions: number of positions of the run; the last so many where the mask covers more.
        """
        given = feeds[self.input]
        counted: npt.NDArray[np.bool_] = given != self.pad if self.pad is not None else given.astype(bool)
        return counted if positions is None else counted[:, counted.shape[1] - positions :]

    def fits(self, feeds: Mapping[str, npt.NDArray[Any]], shape: tuple[int, ...]) -> bool:
        """Whether a tensor [samples, positions, ...] of a run holds the positions that the mask speaks of."""
        given = feeds[self.input]
        return len(shape) >= 3 and shape[0] == given.shape[0] and shape[1] == self._current(feeds)

    def _current(self, feeds: Mapping[str, npt.NDArray[Any]]) -> int:
        """Positions of the run itself: those of the token ids beside the mask, if there are any."""
        given = feeds[self.input]
        beside = [
            array.shape[1]
            for name, array in feeds.items()
            if name != self.input and array.ndim == 2 and array.dtype.kind in "iu" and "ids" in name
        ]
        shorter = [size for size in beside if size <= given.shape[1]]
        return shorter[0] if shorter else int(given.shape[1])


def find_mask(model: Model, name: str | None = None, pad: int | None = None) -> Mask | None:
    """The mask of a model's own sequence, by its name or by the way its values take.

    Args:
        model: the model.
        name: the input that the user says it is.
        pad: the token id that fills up sequences, for a model that is fed ids only.

    Raises:
        InputError: there is no such input, or it is not [samples, positions].
    """
    if name is not None:
        return _asked_for(model, name, pad)
    candidates = [spec for spec in model.inputs if _may_be_mask(spec)]
    named = [spec for spec in candidates if _NAME.search(spec.name) and not _OTHER.search(spec.name)]
    own = [spec for spec in named if not spec.name.startswith("encoder_")] or named
    index = index_of(model)
    if own:
        return as_mask(model, index, own[0])
    masking = [spec for spec in candidates if spec.dtype in _INTEGERS and masks_attention(index, spec.name)]
    if masking:
        return as_mask(model, index, masking[0])
    ids = [spec for spec in candidates if spec.dtype in _INTEGERS]
    for spec in ids:
        found = pad if pad is not None else _compared_with(model, index, spec.name)
        if found is not None:
            return Mask(spec.name, found)
    return None


def as_mask(model: Model, index: GraphIndex, spec: TensorSpec) -> Mask:
    """An input as a mask, whichever way round it is."""
    inverted = marks_padding(model, index, spec.name)
    if inverted is None:
        inverted = spec.dtype == onnx.TensorProto.BOOL and _PADDING.search(spec.name) is not None
    return Mask(spec.name, 1, inverted=True) if inverted else Mask(spec.name)


def masks_attention(index: GraphIndex, name: str) -> bool:
    """Whether an input reaches what attention weights are computed of, but applies no weights before."""
    reached, stack = {name}, [name]
    while stack:
        tensor = stack.pop()
        for reader in index.readers.get(tensor, ()):
            node = index.nodes[reader]
            kind = ops.qualified(node)
            ports = _PORTS.get(kind, ())
            if any(port < len(node.input) and node.input[port] == tensor for port in ports):
                return True
            if kind in ("Add", "Where") and _feeds_softmax(index, node):
                return True
            if reader in index.weighted or kind in ops.SIZE_ONLY:
                continue
            for made in node.output:
                if made and made not in reached and made not in index.activations:
                    reached.add(made)
                    stack.append(made)
    return False


def _feeds_softmax(index: GraphIndex, node: onnx.NodeProto) -> bool:
    """Whether scores are softmaxed right behind a node, perhaps after a cast, a clip or a reshape."""
    name = node.output[0]
    if name not in index.activations:
        return False
    for _ in range(5):
        readers = [index.nodes[reader] for reader in index.readers.get(name, ())]
        if any(reader.op_type == "Softmax" for reader in readers):
            return True
        if len(readers) != 1 or readers[0].op_type not in ("Cast", "Reshape", "Max", "Identity", "Clip"):
            return False
        name = readers[0].output[0]
    return False


def _compared_with(model: Model, index: GraphIndex, name: str) -> int | None:
    """The constant that token ids are compared with to mask attention: the padding's id."""
    for reader in index.readers.get(name, ()):
        node = index.nodes[reader]
        if node.op_type not in ("Equal", "Greater"):
            continue
        if not masks_attention(index, node.output[0]):
            continue
        for other in node.input:
            value = constant(model, index, other)
            if value is not None and value.size == 1:
                return int(value.reshape(-1)[0])
    return None


def _may_be_mask(spec: TensorSpec) -> bool:
    return len(spec.shape or ()) == 2 and spec.dtype in (*_INTEGERS, *_FLOATS)


def _asked_for(model: Model, name: str, pad: int | None) -> Mask:
    spec = next((spec for spec in model.inputs if spec.name == name), None)
    if spec is None:
        names = ", ".join(spec.name for spec in model.inputs)
        raise InputError(
            f"the model has no input {name!r} to be the mask; its inputs are {names}", where=model.label
        )
    if len(spec.shape or ()) != 2:
        raise InputError(
            f"the input {name!r} can't be the mask: it is {spec}, not [samples, positions]",
            where=model.label,
        )
    index = index_of(model)
    return Mask(name, pad) if _looked_up(index, name) else as_mask(model, index, spec)


def _looked_up(index: GraphIndex, name: str) -> bool:
    """Whether an input holds ids that rows of a table are looked up by, so that padding is one of them."""
    for reader in index.readers.get(name, ()):
        node = index.nodes[reader]
        kind = ops.qualified(node)
        if kind in ops.TABLES and (kind != "Gather" or node.input[1] == name):
            return True
        if kind in ops.CARRIERS and _looked_up(index, node.output[0]):
            return True
    return False
