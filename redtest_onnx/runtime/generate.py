"""Run a decoder as its users do: token by token, with its caches and without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from redtest_onnx.errors import InputError
from redtest_onnx.graph.caches import Cache, find_caches
from redtest_onnx.graph.masks import Mask, find_mask
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.signature import plan_inputs
from redtest_onnx.runtime.session import Session

_CLOSE = 1e-3  # relative; scores nearer than that may change places by rounding


@dataclass(frozen=True)
class Decoder:
    """The inputs and outputs by which a decoder is run.

    Attributes:
        ids: the input of token ids, [n, tokens].
        mask: of [n, past + tokens]; None if no input is one.
        positions: the input of positions, [n, tokens]; None if there is none.
        flags: inputs that say whether caches are used.
        scores: the output of next-token scores, [n, tokens, words].
        caches: pairs of inputs and outputs.
    """

    ids: str
    mask: Mask | None
    positions: str | None
    flags: tuple[str, ...]
    scores: str
    caches: tuple[Cache, ...]


def find_decoder(model: Model) -> Decoder | None:
    """How to run a decoder; None for a model that is none, or needs more than tokens and caches."""
    caches = find_caches(model)
    if not caches or any(cache.input is None or cache.output is None for cache in caches):
        return None
    known = {cache.input for cache in caches}
    rest = [spec for spec in model.inputs if spec.name not in known]
    mask = find_mask(model)
    own = None if mask is None or mask.of_ids else mask
    flags = [spec.name for spec in rest if "use_cache" in spec.name]
    positions = next((spec.name for spec in rest if "position" in spec.name), None)
    named = {positions, *flags, own and own.input}
    ids = [spec for spec in rest if spec.name not in named]
    given = {cache.output for cache in caches}
    scores = [spec for spec in model.outputs if spec.name not in given]
    if len(ids) != 1 or ids[0].dtype not in (6, 7) or len(scores) != 1:
        return None
    return Decoder(ids[0].name, own, positions, tuple(flags), scores[0].name, caches)


@dataclass(frozen=True)
class Generation:
    """Greedy decoding in both ways.

    Attributes:
        with_cache: the tokens when each step sees the last token and the caches.
        without_cache: the tokens when each step sees all tokens so far and empty caches.
        margin: the smallest relative distance of the two highest scores at the first token that differs; None
            where all tokens agree.
    """

    with_cache: tuple[int, ...]
    without_cache: tuple[int, ...]
    margin: float | None

    @property
    def agree(self) -> bool:
        """Whether the tokens are the same, but for a tie that rounding decides."""
        return self.margin is None or self.margin < _CLOSE


def generate(session: Session, prompt: Sequence[int], steps: int) -> Generation:
    """Decode greedily with caches and without.

    Args:
        session: of a decoder.
        prompt: token ids to start from.
        steps: number of tokens to generate.

    Raises:
        InputError: the model is no decoder that takes tokens and caches alone, or doesn't run.
    """
    model = session.model
    decoder = find_decoder(model)
    if decoder is None:
        raise InputError("is no decoder with caches that is fed tokens alone", where=model.label)
    runner = _Runner(model, decoder, session)
    cached, plain = list(prompt), list(prompt)
    state, new = runner.empty(), list(prompt)
    for _ in range(steps):
        scores, state = runner.step(new, state, len(cached) - len(new))
        new = [int(np.argmax(scores))]
        cached += new
    margin = None
    for k in range(steps):
        scores, _ = runner.step(plain, runner.empty(), 0)
        plain.append(int(np.argmax(scores)))
        if margin is None and plain[-1] != cached[len(prompt) + k]:
            top = np.sort(scores.astype(np.float64))[-2:]
            margin = float((top[1] - top[0]) / max(np.abs(top).max(), 1e-12))
    return Generation(tuple(cached[len(prompt) :]), tuple(plain[len(prompt) :]), margin)


class _Runner:
    """One step at a time of a decoder with one sample."""

    def __init__(self, model: Model, decoder: Decoder, session: Session) -> None:
        self._decoder, self._session = decoder, session
        self._specs = {spec.name: spec for spec in model.inputs}
        self._plans = {plan.name: plan for plan in plan_inputs(model, 1)}
        self._renamed = model.renamed

    def empty(self) -> dict[str, npt.NDArray[Any]]:
        """Caches before the first token."""
        return {
            cache.input: np.zeros(self._plans[cache.input].shape, self._specs[cache.input].numpy_dtype)
            for cache in self._decoder.caches
            if cache.input is not None
        }

    def step(
        self, tokens: Sequence[int], state: dict[str, npt.NDArray[Any]], past: int
    ) -> tuple[npt.NDArray[Any], dict[str, npt.NDArray[Any]]]:
        """Scores [words] of the next token, and the caches after these tokens."""
        decoder = self._decoder
        feeds = {decoder.ids: np.array([tokens]), **state}
        if decoder.mask is not None:
            feeds[decoder.mask.input] = np.full((1, past + len(tokens)), not decoder.mask.inverted)
        if decoder.positions is not None:
            feeds[decoder.positions] = np.arange(past, past + len(tokens))[None]
        for flag in decoder.flags:
            feeds[flag] = np.full(self._plans[flag].shape, past > 0)
        feeds = {name: value.astype(self._specs[name].numpy_dtype) for name, value in feeds.items()}
        found = self._session.run(
            feeds if self._renamed is None else {self._renamed.get(k, k): v for k, v in feeds.items()}
        )
        state = {c.input: found[c.output] for c in decoder.caches if c.input and c.output}
        return found[decoder.scores][0, -1], state
