"""What the name of an output says that it holds."""

from __future__ import annotations

import re
from typing import Literal, TypeAlias

Meaning: TypeAlias = Literal["classes", "embedding", "values"]

_CLASSES = (
    "logit prob probability score class cls classifier classification confidence softmax label category vocab"
)
_EMBEDDING = "embed embedding feat feature vector pooled pooler descriptor representation"
_VALUES = (
    "box bbox coord coordinate landmark kps keypoint point regress regression regressor depth mask heatmap "
    "flow pose angle offset variable state hidden mel audio wave waveform sound image dist distance loc "
    "location reconstruct reconstruction reconstructed denoise denoised recon hat value noise"
)
_MEANINGS: dict[str, Meaning] = {
    **dict.fromkeys(_CLASSES.split(), "classes"),
    **dict.fromkeys(_EMBEDDING.split(), "embedding"),
    **dict.fromkeys(_VALUES.split(), "values"),
}
# What is told from a word even where others are written together with it, as in `predboxes`.
_ENDINGS = ("logit", "score", "box", "landmark", "keypoint", "heatmap", "mask", "embedding")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def meaning(name: str) -> Meaning | None:
    """What an output's name says that it holds, by the last of its words that says something.

    The last noun decides: `cls_embedding` is an embedding, `embedding_scores` are scores. Whole words count:
    `StatefulPartitionedCall`, TensorFlow's name for every output, is no state, and `transpose_1` no pose.

    Args:
        name: of the tensor.
    """
    for word in reversed(_WORD.findall(name)):
        found = _of_word(word.lower())
        if found is not None:
            return found
    return None


def _of_word(word: str) -> Meaning | None:
    for single in _singulars(word):
        if single in _MEANINGS:
            return _MEANINGS[single]
        ending = next((known for known in _ENDINGS if single.endswith(known)), None)
        if ending is not None:
            return _MEANINGS[ending]
    return None


def _singulars(word: str) -> list[str]:
    """The word, and what it may be the plural of."""
    found = [word]
    for plural, singular in (("ies", "y"), ("xes", "x"), ("ses", "s"), ("s", "")):
        if word.endswith(plural) and len(word) > len(plural):
            found.append(word[: -len(plural)] + singular)
    return found
