"""Run parts of a model on the same samples again and again, without starting from its inputs each time."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import Any

import numpy as np
import onnx

from redtest_onnx.arrays import Counted, Indices
from redtest_onnx.data.batching import batches, counting
from redtest_onnx.graph.index import index_of
from redtest_onnx.graph.subgraph import Fence, live, segment
from redtest_onnx.runtime.devices import resolve_device
from redtest_onnx.runtime.outputs.arrange import BATCH
from redtest_onnx.runtime.session import RunOptions, Session
from redtest_onnx.runtime.threads import in_threads, thread_count
from redtest_onnx.runtime.workbench import Workbench

_RUN_BYTES = 1 << 27  # of the activations of one run
_MASKED_BYTES = 1 << 31  # the same for texts, which may be padded
_SHARE = 6  # of the memory for what is kept, for each of two models
_TINY_RUN = 1 << 20  # bytes fed to a run that is over before another thread has taken it over
_SMALL_RUN = 1 << 21  # bytes fed to a run that a second thread would not make faster
_SPREAD_RUN = 1 << 25  # bytes up to which a run on each thread is better than one on all


def samples_per_fit(bench: Workbench) -> int:
    """How many samples a run of a fit takes; which of them choose a penalty follows from it.

    So the length that masked texts are padded to has no part in it, as far as memory allows.
    """
    room = _MASKED_BYTES if bench.mask is not None else _RUN_BYTES
    held = bench.cost.peak_activation_bytes or 0
    return max(1, min(BATCH, room * bench.resolved.batch // max(held, 1)))


class PartialRunner:
    """A model on fixed samples, with the tensors in front of one of its nodes kept.

    Later tensors are computed from those; what would take more than the limit is not kept, and earlier
    tensors serve. So the memory does not grow with the number of samples beyond that.

    Args:
        bench: the model and samples. The weights behind the kept tensors may change in place at any time.
        indices: which of the samples.
        size: samples per run, where the model doesn't fix that.
        limit: bytes to keep; a sixth of `RunOptions.memory` if None.

    Attributes:
        counts: how many of the samples of each run count.
    """

    def __init__(
        self,
        bench: Workbench,
        indices: Indices,
        *,
        size: int,
        limit: int | None = None,
    ) -> None:
        self.model = bench.model
        self.options = bench.options
        self._index = index_of(bench.model)
        self._data = bench.data
        self._mask = bench.mask
        fixed = bench.fixed_batch
        self._runs = list(batches(indices, fixed or size, fixed=fixed is not None))
        self._limit = bench.options.memory // _SHARE if limit is None else limit
        self._kept: list[dict[str, Any]] = [{} for _ in self._runs]
        self._position = 0
        self.counts = tuple(count for _, count in self._runs)

    def keep(self, name: str, arrays: Sequence[Any]) -> None:
        """Start from one more tensor until the next advance; nothing may change in front of it any more."""
        if len(arrays) == len(self._kept):
            for kept, value in zip(self._kept, arrays, strict=True):
                kept[name] = value

    def follow(self, source: PartialRunner, reached: int, node: int) -> None:
        """Start behind a node in front of which another model computes the same on the same samples.

        The other one runs once for both. Nothing is kept, and all is computed from the inputs, where that
        would be more than the limit.

        Args:
            source: the other model; it is kept in front of `reached`, too.
            reached: its node.
            node: the node of this model.
        """
        front, size = live(self._index, node), 0
        kept: list[dict[str, Any]] = []
        for values in source.values(front, advance_to=reached):
            size += sum(getattr(value, "nbytes", 0) for value in values.values())
            if size * len(self._runs) > self._limit * (len(kept) + 1) or not _are_arrays(values.values()):
                return
            kept.append(values)
        self._kept, self._position = kept, node

    def counted(self, run: int) -> Counted:
        """[n, positions] which positions of the samples of a run count; None: all, or there are none."""
        if self._mask is None:
            return None
        chosen, count = self._runs[run]
        return self._mask.counted(self._data.inputs(chosen))[:count]

    def counting(self, values: Any, run: int) -> Any:
        """The rows of a run's values that belong to samples that count; see `batching.counting`."""
        chosen, count = self._runs[run]
        return counting(values, count, len(chosen))

    def values(self, names: Sequence[str], *, advance_to: int = 0) -> Generator[dict[str, Any], None, None]:
        """Tensors run by run, as arrays by name, with the samples that fill up a fixed batch.

        Args:
            names: the tensors.
            advance_to: keep the tensors in front of this node on the way, if it lies behind those kept now
                and they aren't too large. They serve once the last run was asked for.
        """
        advance = advance_to > self._position
        front = live(self._index, advance_to) if advance else ()
        fence = Fence.at(self.model, advance_to) if advance else None
        if names and advance and fence is None:
            for _ in self.values((), advance_to=advance_to):
                pass
            yield from self.values(names)
            return
        part = Part(self, [*names, *front], {}, fence=fence)
        kept: list[dict[str, Any]] = []
        size = 0

        def values_of(run: int) -> dict[str, Any]:
            return part(run)  # of the part of now, which is another once there is too much to keep

        for values in in_threads(values_of, range(len(self._runs)), part.workers):
            if advance:
                held = {name: values[name] for name in front}
                size += sum(getattr(value, "nbytes", 0) for value in held.values())
                kept.append(held)
                if size * len(self._runs) > self._limit * len(kept) or not _are_arrays(held.values()):
                    advance, kept = False, []
                    part = self.part(names)
                elif len(kept) == len(self._runs):
                    self._kept, self._position = kept, advance_to
            yield {name: values[name] for name in names}

    def part(self, names: Sequence[str], given: Mapping[str, Any] | None = None) -> Part:
        """What computes tensors with the weights of now, in one run at a time.

        Args:
            names: the tensors.
            given: examples of tensors, by name, to start from besides those that are kept.
        """
        return Part(self, names, given or {})


class Part:
    """The part of a model that computes some tensors from kept and given ones; its weights stay as they are.

    Args:
        runner: the model and its samples.
        names: the tensors to compute.
        given: examples of tensors that will be given.
        fence: what is computed on the way as if it were given.

    Attributes:
        workers: threads that call it for several runs at a time, as `RunOptions.threads`.
    """

    def __init__(
        self,
        runner: PartialRunner,
        names: Sequence[str],
        given: Mapping[str, Any],
        *,
        fence: Fence | None = None,
    ) -> None:
        self._runner, self._names, self._kept = runner, names, runner._kept
        types = {name: element_type(value) for name, value in {**runner._kept[0], **given}.items()}
        inputs = {spec.name for spec in runner.model.inputs}
        computed = [n for n in dict.fromkeys(names) if n not in types and n not in inputs]
        part = segment(runner.model, computed, types, fence)
        self._fed = [spec.name for spec in part.inputs]
        known = {**runner._kept[0], **given}
        fed = [getattr(known.get(name), "nbytes", None) for name in self._fed]
        options, self.workers = spread(runner.options, fed, len(runner.counts))
        self._session = Session(part, options, use="beside") if computed else None
        self._from_data = any(n not in types for n in (*self._fed, *names) if n in inputs)
        if self._from_data or not computed:
            self.workers = 1  # files are read in turn

    def __call__(self, run: int, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Arrays by name of one run, from what is kept and what is given for it."""
        runner = self._runner
        known = {**self._kept[run], **(given or {})}  # the runner may have moved on
        if self._from_data:
            known = {**runner._data.inputs(runner._runs[run][0]), **known}
        fed = {name: known[name] for name in self._fed}
        found = {} if self._session is None else self._session.run(fed)
        return {name: found[name] if name in found else known[name] for name in self._names}


def for_size(options: RunOptions, fed: Iterable[float | None]) -> RunOptions:
    """The options for a run that is fed so many bytes; None: unknown. Small ones stay on their thread.

    Waking a second one takes longer, and a session opens sooner without.
    """
    return replace(options, threads=1) if _total(fed) <= _SMALL_RUN else options


def spread(options: RunOptions, fed: Iterable[int | None], runs: int) -> tuple[RunOptions, int]:
    """How runs that are fed so many bytes use the threads: the options of one, and how many go at a time.

    Runs on a thread each keep more threads busy than one run on all; not the smallest, nor the largest.

    Args:
        options: all threads.
        fed: bytes of the arrays of a run; None: unknown.
        runs: how many there are.
    """
    total = _total(fed)
    if total > _SPREAD_RUN or runs < thread_count(options.threads):
        return for_size(options, [total]), 1
    beside = total > _TINY_RUN and resolve_device(options.device) == "cpu"
    return replace(options, threads=1), options.threads if beside else 1


def _total(fed: Iterable[float | None]) -> float:
    """Bytes in all; infinite where some are unknown."""
    return sum(inf if size is None else size for size in fed)


def _are_arrays(values: Iterable[Any]) -> bool:
    return all(isinstance(value, np.ndarray) for value in values)


def element_type(value: Any) -> int:
    """ONNX element type of an array."""
    return int(onnx.helper.np_dtype_to_tensor_dtype(value.dtype))
