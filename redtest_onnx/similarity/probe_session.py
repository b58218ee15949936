"""Sessions that run a probe: as fast as ONNX Runtime runs the model itself, and no larger."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import onnx

from redtest_onnx.errors import InputError
from redtest_onnx.graph.model import Model, is_external
from redtest_onnx.graph.probe.reduction import Tap
from redtest_onnx.graph.probe.reorder import build_outline, complete
from redtest_onnx.graph.probe.taps import build_probe
from redtest_onnx.graph.scratch import scratch_folder
from redtest_onnx.graph.weights_file import sharing_weights
from redtest_onnx.runtime.devices import resolve_device
from redtest_onnx.runtime.session import RunOptions, Session, Use

# Rewriting stores the weights once more for a moment. Where they are larger than this, the operators are
# large, too, and gain little from it.
_LARGEST = 1 << 30

log = logging.getLogger(__name__)


def open_probe(
    model: Model,
    taps: Sequence[Tap],
    options: RunOptions,
    seed: int = 0,
    kept: Sequence[str] = (),
    use: Use = "often",
) -> Session:
    """A session that returns the reduced activations.

    On the CPU, ONNX Runtime first rewrites the probe with all its optimisations. Its layout pass puts the
    reductions last, so that no activation could be freed; they are moved back, and the result is run as it
    stands.

    Args:
        model: the model.
        taps: the activations and how they are reduced.
        options: device and threads.
        seed: as in `build_probe`.
        kept: tensors that leave the graph as they are, too.
        use: as in `Session`.

    Raises:
        InputError: ONNX Runtime refuses the model.
    """
    if resolve_device(options.device) == "cpu" and model.file_bytes <= _LARGEST:
        with scratch_folder() as folder:
            path = Path(folder) / "probe.onnx"
            try:
                outline = sharing_weights(build_outline(model, taps, seed, kept))
                Session(outline, options, save_optimised=path)
                proto = onnx.load(path, load_external_data=False)
            except InputError as error:
                log.info("measured without layout optimisation: %s", error.what)
            else:
                complete(proto, taps, model.opsets["ai.onnx"])
                # By path the weights are read once; from memory, external ones are found beside the model.
                rewritten = Model(proto, data_folder=outline.folder, renamed=model.renamed)
                rewritten.family.update(outline.family)
                if not any(map(is_external, outline.graph.initializer)):
                    onnx.save(proto, path)
                    rewritten = Model(onnx.ModelProto(), path, renamed=model.renamed)
                del proto
                return _named(Session(rewritten, options, level="none", early_release=True, use=use), model)
    probe = build_probe(model, taps, seed, kept)
    return _named(Session(probe, options, level="basic", early_release=True, use=use), model)


def _named(session: Session, model: Model) -> Session:
    """The session, whose errors name the model and not a file of ours."""
    session.label = model.label
    return session
