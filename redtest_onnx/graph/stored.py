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

    A copy is made once per model and lives as long as it does. Models with external data are small without
    it and stay in memory, where their folder can be named to ONNX Runtime.
    """
    if model.path is not None:
        return os.fspath(model.path)
    found = model.facts.get("loadable")
    if found is None:
        content = model.serialised()
        small = len(content) <= _IN_MEMORY or bool(model.external_files)
        found = model.facts["loadable"] = content if small else _on_disk(model, content)
    assert isinstance(found, str | bytes)
    return found


def _on_disk(model: Model, content: bytes) -> str:
    folder = make_scratch_folder()
    weakref.finalize(model, shutil.rmtree, folder, ignore_errors=True)
    path = folder / "model.onnx"
    path.write_bytes(content)
    return str(path)
