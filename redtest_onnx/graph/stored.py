"""What ONNX Runtime loads: the file that a model came from, or one serialised copy of it, made once."""

from __future__ import annotations

import os
import shutil
import weakref

from redtest_onnx.graph.model import Model
from redtest_onnx.graph.scratch import make_scratch_folder

# Copies up to this size stay in memory; larger ones go to a temporary file, so that the graph and its copy
# are not held in memory together.
_IN_MEMORY = 32 << 20


def loadable(model: Model) -> str | bytes:
    """The model as a path, or as bytes: the file where the file is what we hold, else a copy.

    A copy is made once per model and lives as long as it does. Models with external data, or with weights in
    the file they were read from, are small without them and stay in memory, where the folder of these can be
    named to ONNX Runtime. It maps them then, and what it packs anew it unmaps.
    """
    if model.path is not None and model.weights_in is None:
        return os.fspath(model.path)
    model.require_unchanged()
    found = model.facts.get("loadable")
    if found is None:
        content = model.proto.SerializeToString(deterministic=True)
        in_memory = len(content) <= _IN_MEMORY or model.weights_in is not None or model.external_files
        found = model.facts["loadable"] = content if in_memory else _on_disk(model, content)
    assert isinstance(found, str | bytes)
    return found


def _on_disk(model: Model, content: bytes) -> str:
    folder = make_scratch_folder()
    weakref.finalize(model, shutil.rmtree, folder, ignore_errors=True)
    path = folder / "model.onnx"
    path.write_bytes(content)
    return str(path)
