"""Gram matrices of inner activations, reduced inside the graph while it runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from types import ModuleType

import numpy as np

from redtest_onnx.arrays import Indices
from redtest_onnx.data.batching import batches
from redtest_onnx.graph.masks import Mask
from redtest_onnx.graph.model import FLOAT, Model, tensor_bytes
from redtest_onnx.graph.probe.reduction import OLDEST_GRAM_OPSET, Form, Pooling, Tap, unpack_gram
from redtest_onnx.graph.shapes import Shape
from redtest_onnx.graph.tensors import LARGE_WEIGHT
from redtest_onnx.metrics.arrays import Array, namespace
from redtest_onnx.metrics.grams import linear_gram, only_rounding
from redtest_onnx.runtime.answers import Answers
from redtest_onnx.runtime.devices import resolve_device
from redtest_onnx.runtime.session_room import SPARED, is_large
from redtest_onnx.runtime.shapes import WHOLE, ResolvedShapes
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.probe_session import open_probe

_CACHED = 64
"""Samples in a run that may be cut: the tensors of more no longer fit the processor's caches."""
_RUN_BYTES = 1 << 27
"""Activations that such a run may hold: long recordings and large images are cut into smaller runs."""
_RUN_BYTES_LARGE = 3 << 23
"""As much beside weights that take most of the memory."""
_FEW_RUNS = 6
"""Runs up to which weights aren't laid out for products before: that takes as long as in seven runs."""


@dataclass(frozen=True)
class TapTarget:
    """An activation to measure: its name, sizes for the smallest batch, element type and batch axis.

    `channels_first`, `lifted`, `channels_last` and `mask` are as in `Tap`.
    """

    tensor: str
    shape: Shape
    dtype: int
    batch_axis: int
    channels_first: bool = False
    mask: Mask | None = None
    lifted: bool = False
    channels_last: bool = False

    @classmethod
    def seen(
        cls, tensor: str, seen: ResolvedShapes, channels_first: bool, mask: Mask | None = None
    ) -> TapTarget:
        """The target with the sizes that were seen in a run."""
        shapes, axis = seen.shapes, seen.batch_axes[tensor]
        sizes, dtype = shapes.sizes[tensor], shapes.dtypes.get(tensor, FLOAT)
        if axis == WHOLE:
            return cls(tensor, (1, *sizes), dtype, 0, lifted=True)
        return cls(tensor, sizes, dtype, axis, channels_first, mask)


@dataclass(frozen=True, eq=False)
class Grams:
    """Gram matrices of one batch, layer after layer, to be read once.

    Attributes:
        each: [n, n] float64, in order, of features less about their means; the next one may take the memory
            of the last.
        layers: their number.
        samples: n.
    """

    each: Iterator[Array]
    layers: int
    samples: int

    def __iter__(self) -> Iterator[Array]:
        return self.each

    def __len__(self) -> int:
        return self.layers


class GramReader:
    """Runs a model on batches of samples and returns the Gram matrices of its activations.

    Few features leave the graph as they are; many are reduced to their Gram there, which takes all samples in
    one run. Without Grams a processor runs a batch in several parts, and a model with a fixed batch size is
    run as often as it takes; their features are put together outside.

    Args:
        bench: the model and its samples, see `Workbench.opened`.
        targets: the activations.
        indices: the samples of each batch that will be read, as many in each.
        pooling: as in `Tap`.
        seed: of the choice of tokens.
        keep_features: never make Grams in the graph, for `read_features`.
        answers: takes outputs of the model on the way.
    """

    def __init__(
        self,
        bench: Workbench,
        targets: Sequence[TapTarget],
        indices: Sequence[Indices],
        pooling: Pooling,
        *,
        seed: int = 0,
        keep_features: bool = False,
        answers: Answers | None = None,
    ) -> None:
        fixed, model, samples = bench.fixed_batch, bench.model, len(indices[0])
        whole = resolve_device(bench.options.device) == "cuda"
        opset = model.opsets.get("ai.onnx", 0)
        wanted = pooling == "none" and not keep_features
        in_graph = wanted and fixed in (None, samples) and opset >= OLDEST_GRAM_OPSET
        # Tokens are drawn for the samples of a run: those of one batch shall not repeat each other's.
        uncut = in_graph or whole or pooling == "token"
        held = bench.cost.peak_activation_bytes or 1
        room = _RUN_BYTES_LARGE if is_large(model) else _RUN_BYTES
        parts = 1 if uncut else -(-samples // max(1, min(_CACHED, room // held)))
        self._per_run = fixed or -(-samples // parts)
        self._taps = [
            _tap(target, fixed or 1, self._per_run, pooling, in_graph=in_graph, whole=whole)
            for target in targets
        ]
        self._answers = answers
        kept = answers.names if answers is not None else ()
        runs = -(-samples // self._per_run) * len(indices)
        few = runs <= _FEW_RUNS and _is_costly_to_pack(model)
        self._session = open_probe(
            model, self._taps, bench.options, seed, kept, use="seldom" if few else "often"
        )
        self._data = bench.data
        self.source = bench.data.source
        self.features: tuple[int, ...] = tuple(tap.features for tap in self._taps)

    def read(self, indices: Indices) -> Grams:
        """Run the model; Gram matrices of the activations on the given samples.

        Returns:
            Those of features less about their means, in the memory of the device that ran the model.
        """
        seen = list(self._runs(indices))
        return Grams(self._grams(seen, len(indices)), len(self._taps), len(indices))

    def _grams(self, seen: list[dict[str, Array]], n: int) -> Iterator[Array]:
        xp = namespace(next(iter(seen[0].values())))
        gram = xp.empty((n, n))  # one for all: it stays in the processor's cache
        for tap in self._taps:
            if tap.form == "gram":
                unpack_gram(seen[0].pop(tap.output), n, gram)
                level = float(seen[0][tap.level])
                if only_rounding(float(gram.diagonal().max()), level, tap.features, np.float32):
                    gram[...] = 0
                yield gram
            else:
                yield linear_gram(_joined(xp, (run.pop(tap.output) for run in seen), n))

    def read_features(self, indices: Indices) -> list[Array]:
        """Features of the activations, [n, p] per layer; only with `keep_features`."""
        n = len(indices)
        seen = list(self._runs(indices))
        xp = namespace(next(iter(seen[0].values())))
        return [_joined(xp, (run.pop(tap.output) for run in seen), n) for tap in self._taps]

    def _runs(self, indices: Indices) -> Iterable[dict[str, Array]]:
        for chosen, _ in batches(indices, self._per_run, fixed=True):
            feeds = self._data.inputs(chosen)
            found = self._session.run_in_place(feeds)
            if self._answers is not None:
                self._answers.record(chosen, feeds, found)
            yield found


def _is_costly_to_pack(model: Model) -> bool:
    """Whether a model has much that ONNX Runtime would lay out anew; kernels of few bits can't do without."""
    packed = all(t.data_type == FLOAT for t in model.graph.initializer if tensor_bytes(t) > LARGE_WEIGHT)
    return packed and is_large(model, SPARED)


def _joined(xp: ModuleType, parts: Iterable[Array], n: int) -> Array:
    several = list(parts)
    return several[0][:n] if len(several) == 1 else xp.concatenate(several)[:n]


def _tap(
    target: TapTarget, batch: int, per_run: int, pooling: Pooling, *, in_graph: bool, whole: bool
) -> Tap:
    """How an activation leaves the graph.

    Args:
        target: the activation.
        batch: number of samples that its sizes are for.
        per_run: number of samples per run.
        pooling: as in `Tap`.
        in_graph: whether Grams can be made in the graph.
        whole: as in `Tap`.
    """
    axis = target.batch_axis
    sizes = list(target.shape)
    sizes[axis] = sizes[axis] // batch * per_run
    width = prod(sizes) // per_run
    form: Form = "gram" if in_graph and width > per_run else "features"
    seen = (target.tensor, tuple(sizes), target.dtype, per_run, axis)
    return Tap(
        *seen,
        pooling,
        form,
        target.channels_first,
        whole=whole,
        lifted=target.lifted,
        channels_last=target.channels_last,
        mask=target.mask,
    )
