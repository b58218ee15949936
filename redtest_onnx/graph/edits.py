"""The contract of all edits of a graph.

An edit is a function from a `Model` and what to do to a `Model`: `surgery.remove_regions`,
`weights.change_operands`, `branches.inline_branches` with `InlinedModel.close`, and what is built of them.

It requires a model that passed the checks of `files.load`: nodes in the order they run in, no tensor made
twice.

It ensures, by `finished`:
* the model that was given is not changed; what is made is another one, without a place on disk, that refers
  to the same external data and is called alike in messages;
* inputs, outputs, operator sets, IR version and metadata are those of the model that was given; only
  `cache_edits.close_up` takes the caches of removed layers out of the signature;
* nodes that the edit does not concern stay as they are, in their order, names and documentation included;
* where nothing is to be changed the very model that was given comes back, so that `edited is not model` tells
  whether anything changed, and whatever was found out about the model stays known.

Layers are taken out by onnx-graphsurgeon, in `surgery` alone; other edits write protos.
"""

from __future__ import annotations

import onnx

from redtest_onnx.errors import InternalError
from redtest_onnx.graph.model import Model


def finished(model: Model, proto: onnx.ModelProto) -> Model:
    """The result of an edit, after a check of what edits ensure of the signature.

    Args:
        model: what was edited.
        proto: what became of its copy.

    Raises:
        InternalError: the edit changed what it must not; a bug of ours.
    """
    edited = model.edited(proto)
    for what in ("inputs", "outputs", "opsets"):
        before, after = getattr(model, what), getattr(edited, what)
        if before != after:
            raise InternalError(f"an edit changed {what} from {before} to {after}")
    if model.proto.ir_version != proto.ir_version:
        raise InternalError(f"an edit changed the IR version from {model.proto.ir_version}")
    return edited
