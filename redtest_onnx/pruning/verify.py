"""What must hold for a rewritten model before it is returned or written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx

from redtest_onnx.errors import InputError, InternalError
from redtest_onnx.graph.cache_edits import SignatureChange, signature_changes, unpaired
from redtest_onnx.graph.caches import find_caches
from redtest_onnx.graph.channel_edits import silence_channels
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.validity import full_check
from redtest_onnx.pruning.apply import apply_plan
from redtest_onnx.pruning.divergence import finite, first_divergence, first_infinite
from redtest_onnx.pruning.narrowing import kept_channels, taken_channels
from redtest_onnx.pruning.plan import Plan
from redtest_onnx.runtime.generate import find_decoder, generate
from redtest_onnx.runtime.session import Level, Session
from redtest_onnx.runtime.session_room import is_large
from redtest_onnx.runtime.workbench import Workbench

LEVELS: tuple[Level, ...] = ("none", "basic", "extended", "all")


def verify(bench: Workbench, rewritten: Workbench, *, levels: Sequence[Level] = LEVELS) -> None:
    """Check a rewritten model against what it came from.

    Same inputs and outputs but for the caches of removed layers, see `check_signature`; same operator sets,
    IR version and metadata; passes onnx.checker with full inference
    where the original does; loads in ONNX Runtime at every optimisation level and gives finite values where
    the original does.

    Args:
        bench: the original.
        rewritten: what became of it.
        levels: at which it has not run yet.

    Raises:
        InternalError: the contract is broken. That is a bug of ours; the model must not be written.
        InputError: the removal makes values overflow that were finite.
    """
    check_signature(bench.model, rewritten.model)
    for what, before, after in _contract(bench.model, rewritten.model):
        if before != after:
            raise InternalError(f"{what} changed from {before} to {after}")
    if _passes(bench.model) and not _passes(rewritten.model):
        raise InternalError("the rewritten model does not pass onnx.checker")
    feeds = bench.sample
    for level in levels:
        # The fastest is used again; the others are for this alone.
        once = level != "all"
        session = (
            Session(rewritten.model, rewritten.options, level=level, use="once")
            if once
            else rewritten.session()
        )
        outputs = session.run(feeds)
        del session  # of a large model, before the next is opened
        infinite = [name for name in outputs if not finite(outputs[name])]
        if not infinite:
            continue
        before = _outputs(bench)
        broken = [name for name in infinite if finite(before[rewritten.model.origin_of(name)])]
        if broken:
            where = first_infinite(rewritten)
            begins = f" (it begins at {where})" if where else ""
            raise InputError(
                f"without these layers {', '.join(broken)} overflows{begins}: the result would be of no use",
                where=bench.label,
                hint="remove fewer layers, or other ones (@protect, @criterion)",
            )


def _outputs(bench: Workbench) -> dict[str, Any]:
    """What the model gives for its sample, without a session that stays open if it is large."""
    large = is_large(bench.model)
    session = Session(bench.model, bench.options, use="once") if large else bench.session()
    return session.run(bench.sample)


_PROMPT, _STEPS = 4, 6


def verify_generation(bench: Workbench, rewritten: Workbench) -> None:
    """Check that a decoder decodes the same tokens with its caches and without, if the original does.

    Raises:
        InternalError: the original decodes the same tokens in both ways, and the rewritten model doesn't.
    """
    decoder = find_decoder(rewritten.model)
    before = None if decoder is None else find_decoder(bench.model)
    if decoder is None or before is None:
        return
    ids = np.asarray(bench.sample[before.ids]).reshape(-1)[:_PROMPT]
    prompt = [int(token) for token in ids]
    try:
        if not generate(bench.session(), prompt, _STEPS).agree:
            return
    except InputError:
        return  # the model is not run with one sample and empty caches
    found = generate(rewritten.session(), prompt, _STEPS)
    if not found.agree:
        raise InternalError(
            f"with caches the pruned decoder says {found.with_cache}, without {found.without_cache}"
        )


def check_signature(original: Model, rewritten: Model) -> tuple[SignatureChange, ...]:
    """Check that the signature is the same but for caches that left it in pairs, and the others' numbers.

    Returns:
        Those changes; none where no layer with a cache was removed.

    Raises:
        InternalError: anything else changed. That is a bug of ours.
    """
    if rewritten.renamed is None or rewritten.renamed == original.renamed:
        for what in ("inputs", "outputs"):
            if (before := getattr(original, what)) != (after := getattr(rewritten, what)):
                raise InternalError(f"{what} changed from {before} to {after}")
        return ()
    try:
        changes = signature_changes(original, rewritten)
    except InputError as error:
        raise InternalError(error.what) from error
    if half := list(unpaired(changes, find_caches(original))):
        raise InternalError(f"only one side of the cache {half[0]!r} was removed")
    return changes


def verify_removal(bench: Workbench, rewritten: Model, plan: Plan) -> None:
    """Check that removing layers changed nothing else: what lies behind a gap follows from what it hands on.

    To see that, the model runs at the optimisation level "none".

    Args:
        bench: the model before, with its branches inlined.
        rewritten: the model without the plan's layers, before any repair.
        plan: what was taken out.

    Raises:
        InternalError: naming the first tensor that differs. That is a bug of ours.
    """
    if plan.widths:
        whole, kept = apply_plan(bench, replace(plan, widths=())), kept_channels(plan)
        verify_removal(bench, whole, replace(plan, widths=()))
        silent = bench.successor(silence_channels(whole, kept))
        found = first_divergence(silent, rewritten, (), taken_channels(whole, plan))
    else:
        found = first_divergence(bench, rewritten, plan.steps)
    if found is not None:
        raise InternalError(f"the rewritten model computes something else: {found}")


def _contract(original: Model, rewritten: Model) -> Iterator[tuple[str, object, object]]:
    yield "opsets", original.opsets, rewritten.opsets
    for what in ("ir_version", "producer_name", "producer_version", "domain", "model_version", "doc_string"):
        yield what, getattr(original.proto, what), getattr(rewritten.proto, what)
    for before, after in ((original.proto, rewritten.proto), (original.graph, rewritten.graph)):
        yield "metadata", _metadata(before), _metadata(after)


def _metadata(proto: onnx.ModelProto | onnx.GraphProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in proto.metadata_props}


def _passes(model: Model) -> bool:
    try:
        full_check(model)
    except InputError:
        return False
    return True
