"""Texts as samples: tokenized, padded to the longest of each batch, and fed by the names of the inputs."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from redtest_onnx.data.dataset import Chosen, Feeds
from redtest_onnx.data.text_files import SUFFIXES, TextRows, read_texts
from redtest_onnx.data.token_tables import table_rows
from redtest_onnx.errors import InputError, RuntimeUnavailableError
from redtest_onnx.graph.caches import find_caches
from redtest_onnx.graph.masks import find_mask
from redtest_onnx.graph.model import Model, TensorSpec
from redtest_onnx.graph.model_folder import find_beside
from redtest_onnx.graph.next_tokens import scores_next_tokens
from redtest_onnx.graph.signature import plan_inputs

log = logging.getLogger(__name__)

_IDS = re.compile(r"(^|_)(input_)?ids$|tokens?$|(^|_)input$", re.IGNORECASE)
_TYPES = re.compile(r"token_type|segment", re.IGNORECASE)
_POSITIONS = re.compile(r"position", re.IGNORECASE)
_FLAG = re.compile(r"use_cache|cache_branch", re.IGNORECASE)
_LONGEST = 512  # without any word on it
_WINDOW = 128
_PADS = ("[PAD]", "<pad>", "<|pad|>", "<|endoftext|>", "</s>", "<eos>")


@dataclass(frozen=True)
class TextOptions:
    """How texts become inputs.

    Attributes:
        text_column: see `read_texts`.
        pair_column: see there.
        label_column: see there.
        tokenizer: a tokenizer.json; the one beside the model if None.
        max_length: longest sequence in tokens; what the tokenizer or the model allows if None.
        mask: the input that says which positions count; found by its name or use if None.
    """

    text_column: str | None = None
    pair_column: str | None = None
    label_column: str | None = None
    tokenizer: Path | None = None
    max_length: int | None = None
    mask: str | None = None

    def __post_init__(self) -> None:
        if self.max_length is not None and self.max_length < 1:
            raise InputError(f"@max_length is {self.max_length}, at least 1 is needed")


def holds_text(path: Path, model: Model, options: TextOptions | None) -> bool:
    """Whether a file is to be read as texts: .txt always, tables where a tokenizer or a column is named.

    A table beside a model that takes token ids is one as well, if its tokenizer is found.
    """
    if path.suffix.lower() not in SUFFIXES:
        return False
    if path.suffix.lower() == ".txt":
        return True
    if options is not None and (options.text_column or options.tokenizer):
        return True
    takes_ids = any(_IDS.search(spec.name) and spec.dtype in (6, 7) for spec in model.inputs)
    return takes_ids and model.path is not None and find_beside(model.path, "tokenizer.json") is not None


def open_texts(path: Path, model: Model, options: TextOptions | None = None) -> Texts:
    """Texts of a file as samples for a model.

    A decoder, with caches or without, gets windows of the joined texts, without padding; other models get one
    text, or one pair, per sample, and so does a decoder with labels or pairs.

    Raises:
        InputError: the file, the tokenizer or the model's inputs don't fit.
        RuntimeUnavailableError: the package `tokenizers` is not installed.
    """
    options = options or TextOptions()
    ids = _ids_input(model, options.mask)  # first: without ids no tokenizer is of use
    rows = read_texts(path, options.text_column, options.pair_column, options.label_column)
    tokenizer = _Tokenizer.open(model, options)
    decoder = bool(find_caches(model)) or scores_next_tokens(model)
    windows = decoder and rows.labels is None and rows.pairs is None
    encoded = tokenizer.windows(rows, _fixed_length(ids)) if windows else tokenizer.encode(rows)
    if not encoded:
        raise InputError("holds too little text for one window", where=str(path))
    labels = None if rows.labels is None else np.array(rows.labels, np.int64)
    return Texts(model, str(path), encoded, labels, tokenizer.pad, options.mask)


@dataclass(frozen=True, eq=False)
class Encoded:
    """One sample: its token ids, and which of two texts each token belongs to."""

    ids: npt.NDArray[np.int64]
    types: npt.NDArray[np.int64]


class Texts:
    """Tokenized texts.

    Args:
        model: what they are for.
        source: what messages call them.
        encoded: the samples.
        labels: [n] class of each sample; None without labels.
        pad: the token id that fills up sequences.
        mask: the input that the user says is the mask.
        length: length of all sequences; None pads each batch to its longest sample.
    """

    synthetic = False

    def __init__(
        self,
        model: Model,
        source: str,
        encoded: list[Encoded],
        labels: npt.NDArray[np.int64] | None,
        pad: int,
        mask: str | None = None,
        length: int | None = None,
    ) -> None:
        self._model, self.source, self._encoded, self._labels = model, source, encoded, labels
        self.pad, self.mask = pad, mask
        self._length = length
        found = find_mask(model, mask, pad)
        self._mask = found.input if found is not None and not found.of_ids else None
        self._inverted = found is not None and found.inverted
        self._ids = _ids_input(model, self._mask)
        fixed = _fixed_length(self._ids)
        if fixed is not None:
            self._length = fixed
            longest = max(len(sample.ids) for sample in encoded)
            if longest > fixed:
                log.warning("%s takes %d tokens: longer texts are cut", model.label, fixed)
        _check_inputs(model, self._ids, self._mask)
        largest, rows = max(int(sample.ids.max()) for sample in encoded), table_rows(model, self._ids.name)
        if rows is not None and largest >= rows:
            raise InputError(
                f"the tokenizer gives token ids up to {largest}; the model's table of tokens has {rows} rows",
                where=source,
                hint="@tokenizer names the one that the model was trained with",
            )

    @property
    def labelled(self) -> bool:
        """Whether there are labels."""
        return self._labels is not None

    def __len__(self) -> int:
        return len(self._encoded)

    @property
    def padded_by_batch(self) -> bool:
        """Whether a sample is as long as the longest one that it is read with."""
        return self._length is None

    def labels(self, indices: Chosen) -> npt.NDArray[np.int64] | None:
        """Class of each of the given samples, [n]; None without labels."""
        return None if self._labels is None else self._labels[np.asarray(indices)]

    def fixed_length(self) -> Texts:
        """The same samples, all as long as the longest one: for what needs equal sizes in all batches."""
        length = self._length or max(len(sample.ids) for sample in self._encoded)
        return Texts(self._model, self.source, self._encoded, self._labels, self.pad, self.mask, length)

    def inputs(self, indices: Chosen) -> Feeds:
        """One array per model input for the given samples.

        Ids, masks, types and positions are [n, tokens], tokens the longest of these samples; caches are
        empty.
        """
        samples = [self._encoded[int(k)] for k in indices]
        length = self._length or max(len(sample.ids) for sample in samples)
        ids = np.full((len(samples), length), self.pad, np.int64)
        types, counted = np.zeros_like(ids), np.zeros_like(ids)
        for row, sample in enumerate(samples):
            size = min(len(sample.ids), length)
            ids[row, :size], types[row, :size], counted[row, :size] = (
                sample.ids[:size],
                sample.types[:size],
                1,
            )
        positions = np.maximum(counted.cumsum(1) - 1, 0)
        mask = 1 - counted if self._inverted else counted
        by_role = {"ids": ids, "mask": mask, "types": types, "positions": positions}
        feeds: Feeds = {}
        for plan in plan_inputs(self._model, len(samples)):
            spec = next(spec for spec in self._model.inputs if spec.name == plan.name)
            role = _role(spec, self._ids, self._mask)
            if role in by_role:
                feeds[spec.name] = by_role[role].astype(spec.numpy_dtype)
            elif role == "flag":
                feeds[spec.name] = np.ones(plan.shape, spec.numpy_dtype)
            else:
                feeds[spec.name] = np.zeros(plan.shape, spec.numpy_dtype)
        return feeds


def _role(spec: TensorSpec, ids: TensorSpec, mask: str | None) -> str:
    if spec.name == ids.name:
        return "ids"
    if spec.name == mask:
        return "mask"
    if _FLAG.search(spec.name):
        return "flag"
    rank = len(spec.shape or ())
    if rank == 2 and _TYPES.search(spec.name):
        return "types"
    if rank == 2 and _POSITIONS.search(spec.name):
        return "positions"
    return "cache" if rank > 2 else "other"


def _ids_input(model: Model, mask: str | None) -> TensorSpec:
    whole = [spec for spec in model.inputs if spec.dtype in (6, 7) and len(spec.shape or ()) == 2]
    others = [
        s for s in whole if s.name != mask and not _TYPES.search(s.name) and not _POSITIONS.search(s.name)
    ]
    named = [spec for spec in others if _IDS.search(spec.name)]
    if not (named or others):
        raise InputError(
            "takes no token ids: texts can't be fed to it", where=model.label, hint="give other @data"
        )
    return (named or others)[0]


def _fixed_length(ids: TensorSpec) -> int | None:
    """The number of tokens that a model takes, where its file fixes it."""
    size = ids.shape[1] if ids.shape and len(ids.shape) == 2 else None
    return size if isinstance(size, int) else None


def _check_inputs(model: Model, ids: TensorSpec, mask: str | None) -> None:
    """Refuse models that need more than text."""
    caches = {cache.input for cache in find_caches(model)}
    strange = [
        spec.name
        for spec in model.inputs
        if _role(spec, ids, mask) in ("cache", "other") and spec.name not in caches
    ]
    if strange:
        raise InputError(
            f"texts can't feed its inputs {', '.join(strange)}",
            where=model.label,
            hint="give an .npz with an array for each input",
        )


@dataclass(frozen=True)
class _Tokenizer:
    """A tokenizer with what this package needs to know of it."""

    tokenizer: Any
    pad: int
    length: int

    @classmethod
    def open(cls, model: Model, options: TextOptions) -> _Tokenizer:
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise RuntimeUnavailableError(
                f"the package tokenizers is needed to read texts ({error})",
                hint='pip install "redtest-onnx[text]"',
            ) from error
        path = options.tokenizer
        if path is None and model.path is not None:
            path = find_beside(model.path, "tokenizer.json")
        if path is None:
            raise InputError(
                "no tokenizer.json was found beside the model", where=model.label, hint="name it: @tokenizer"
            )
        if not path.is_file():
            raise InputError("no such file", where=str(path), hint="check @tokenizer")
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the Rust library raises nothing more special
            raise InputError(f"can't be read as a tokenizer ({error})", where=str(path)) from error
        own = tokenizer.truncation["max_length"] if tokenizer.truncation else None
        stored_pad = tokenizer.padding["pad_id"] if tokenizer.padding else None
        length = options.max_length or min(
            (own, *_allowed(path, model), _LONGEST), key=lambda size: size if size else 1 << 30
        )
        assert length is not None
        # What the file says of truncation and padding is for its author's batches, not for ours.
        tokenizer.no_padding()
        tokenizer.no_truncation()
        special = next((tokenizer.token_to_id(p) for p in _PADS if tokenizer.token_to_id(p) is not None), 0)
        pad = stored_pad if stored_pad is not None else _configured(path, model, "pad_token_id")
        return cls(tokenizer, int(pad if pad is not None else special or 0), int(length))

    def encode(self, rows: TextRows) -> list[Encoded]:
        self.tokenizer.enable_truncation(self.length)
        texts: list[Any] = list(rows.texts)
        if rows.pairs is not None:
            texts = list(zip(rows.texts, rows.pairs, strict=True))
        return [
            Encoded(np.array(found.ids, np.int64), np.array(found.type_ids, np.int64))
            for found in self.tokenizer.encode_batch(texts)
            if found.ids
        ]

    def windows(self, rows: TextRows, fixed: int | None) -> list[Encoded]:
        """The texts one behind the other, cut into windows; short texts make one shorter window.

        Where the model fixes the length, windows have it: shorter ones would be padded, longer ones cut.
        """
        size = min(self.length, fixed or _WINDOW)
        ids = [token for found in self.tokenizer.encode_batch(list(rows.texts)) for token in found.ids]
        cut = [np.array(ids[k : k + size], np.int64) for k in range(0, len(ids), size)]
        whole = [window for window in cut if len(window) == size] or cut
        return [Encoded(window, np.zeros_like(window)) for window in whole]


def _allowed(tokenizer: Path, model: Model) -> tuple[int | None, ...]:
    """Longest sequences that the tokenizer's and the model's configuration allow."""
    found = [
        _entry(tokenizer.with_name("tokenizer_config.json"), "model_max_length"),
        _configured(tokenizer, model, "max_position_embeddings"),
        *(table_rows(model, spec.name) for spec in model.inputs if _POSITIONS.search(spec.name)),
    ]
    return tuple(size if isinstance(size, int) and 0 < size < 1 << 20 else None for size in found)


def _configured(tokenizer: Path, model: Model, key: str) -> int | None:
    beside = find_beside(model.path, "config.json") if model.path is not None else None
    value = _entry(beside or tokenizer.with_name("config.json"), key)
    return value if isinstance(value, int) else None


def _entry(path: Path, key: str) -> object:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return document.get(key) if isinstance(document, dict) else None
