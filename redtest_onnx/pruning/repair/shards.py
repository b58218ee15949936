"""A refit to more samples than one machine reads: workers sum the equations of their shards, we add them up.

Operators are solved one after the other, as by `refit` without joint rounds. For each, every shard gives the
sums of its normal equations, which are a few matrices however many samples it holds; their total is solved
here and the corrected model handed to the workers for the next operator. A worker keeps nothing from one
piece of work to the next, so that what a dead one was doing can be done again by another.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path

import numpy as np

from redtest_onnx.engines.base import Engine
from redtest_onnx.engines.run import EngineOptions, run_on
from redtest_onnx.errors import InputError
from redtest_onnx.graph.files import load, save
from redtest_onnx.graph.index import index_of
from redtest_onnx.graph.linear_operators import linear_operators
from redtest_onnx.graph.model import Model
from redtest_onnx.pruning.plan import Plan
from redtest_onnx.pruning.repair.equations import CHECK_EVERY, Equations
from redtest_onnx.pruning.repair.partial_runner import PartialRunner, samples_per_fit
from redtest_onnx.pruning.repair.refit import Refit, record
from redtest_onnx.pruning.repair.targets import changed_tensors, gap_goals
from redtest_onnx.pruning.repair.working_model import WorkingModel
from redtest_onnx.runtime.threads import one_blas_thread
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analyze import Progress

OpenShard = Callable[[str], Workbench]
"""Opens the original with the samples of a shard, given its file; must be picklable."""


@dataclass(frozen=True)
class FitShards:
    """Samples to fit to that lie in several files, and where they are read.

    Attributes:
        files: one per shard; every worker must see them under these paths.
        open_shard: opens one.
        engine: where the equations are summed.
    """

    files: tuple[str, ...]
    open_shard: OpenShard
    engine: EngineOptions


@dataclass(frozen=True)
class ShardPiece:
    """What is asked of one shard: the number of its samples, or the sums of an operator over them.

    Attributes:
        file: the shard.
        number: its place among all.
        operator: position of the operator; None where samples are counted.
        samples: number of samples of all shards, for the sums.
    """

    file: str
    number: int
    operator: int | None = None
    samples: int = 0

    def __str__(self) -> str:
        return self.file


@dataclass(frozen=True)
class ShardSums:
    """Sums the equations of one operator over one shard; called in whatever process an engine runs it.

    Attributes:
        shards: the samples.
        folder: holds the model before each operator is solved, as NUMBER.onnx; beside the first shard, since
            all workers see that place.
        goals: tensors of the original that others are to hit than those of the same name.
    """

    shards: FitShards
    folder: Path
    goals: Mapping[str, str]

    @one_blas_thread(solvers=True)
    def __call__(self, piece: ShardPiece) -> int | Equations | None:
        """The number of samples, or the sums; None where shapes don't fit.

        Raises:
            InputError: the shard can't be read or doesn't fit the model.
        """
        bench = self.shards.open_shard(piece.file)
        if piece.operator is None:
            return len(bench.data)
        original = bench.opened
        model = load(self.folder / f"{piece.operator}.onnx")
        operator = linear_operators(model)[piece.operator]
        indices = np.arange(len(bench.data), dtype=np.int64)
        size = min(samples_per_fit(original), -(-len(indices) // CHECK_EVERY))
        before, now = (
            PartialRunner(side, indices, size=size) for side in (original, original.successor(model))
        )
        goal = self.goals.get(operator.target, operator.target)
        wanted = before.part([goal])
        equations = Equations(operator, piece.samples, now.options, seed=piece.number)
        names = [operator.input, operator.output, operator.target]
        for run, found in enumerate(now.values(names)):
            aim = before.counting(np.asarray(wanted(run)[goal]), run)
            x, output, value = (now.counting(found[tensor], run) for tensor in names)
            if value.shape != aim.shape or output.shape != value.shape:
                return None
            if not equations.add(x, aim - value, now.counted(run)):
                return None
        equations.finish()
        return equations


@one_blas_thread(solvers=True)
def refit_over_shards(
    bench: Workbench,
    pruned: Model,
    plan: Plan,
    shards: FitShards,
    *,
    progress: Progress | None = None,
) -> tuple[Model, tuple[Refit, ...], int]:
    """Solve the linear operators of a pruned model again, with equations over all samples of all shards.

    Args:
        bench: the model before.
        pruned: the model without the plan's layers.
        plan: what was taken out.
        shards: the samples.
        progress: called after each operator.

    Returns:
        The repaired model, what was done to each operator, and the number of samples.

    Raises:
        InputError: a shard can't be read, doesn't fit, or its worker died too often.
    """
    working = WorkingModel(pruned)
    goals = gap_goals(bench.index, plan, frozenset())
    changed = changed_tensors(bench.index, index_of(pruned))
    todo = [
        (position, operator)
        for position, operator in enumerate(working.operators)
        if operator.input in changed or operator.target in goals
    ]
    done: list[Refit] = []
    with tempfile.TemporaryDirectory(prefix="redtest-onnx-fit-", dir=Path(shards.files[0]).parent) as scratch:
        work = ShardSums(shards, Path(scratch), goals)
        with shards.engine.open(work) as engine:
            pieces = [ShardPiece(file, number) for number, file in enumerate(shards.files)]
            counts = _collected(engine, pieces)
            samples = sum(count for count in counts if isinstance(count, int))
            for k, (position, operator) in enumerate(todo):
                save(working.result(), Path(scratch) / f"{position}.onnx", force=True)
                asked = [replace(piece, operator=position, samples=samples) for piece in pieces]
                parts = _collected(engine, asked)
                (Path(scratch) / f"{position}.onnx").unlink()
                sums = [part for part in parts if isinstance(part, Equations)]
                whole = len(sums) == len(parts)
                correction = reduce(Equations.merged, sums).solve(diagnose=True) if whole else None
                if correction is not None:
                    working.correct(operator, correction.weight, correction.bias)
                    name = working.index.nodes[operator.node].name or operator.output
                    done.append(record(name, correction, 0))
                if progress:
                    progress(k + 1, len(todo), "repairing")
    return working.result(), tuple(done), samples


def _collected(
    engine: Engine[ShardPiece, int | Equations | None], pieces: Sequence[ShardPiece]
) -> list[int | Equations | None]:
    """What all shards give, in their order, whichever came first."""
    found: dict[ShardPiece, int | Equations | None] = {}
    for finished in run_on(engine, pieces):
        if finished.error is not None:
            raise InputError(finished.error, where=finished.piece.file)
        found[finished.piece] = finished.value
    return [found[piece] for piece in pieces]
