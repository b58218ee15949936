"""Agreement of outputs in the words of their kinds."""

from __future__ import annotations

from collections.abc import Iterable

from redtest_onnx.metrics.agreement.classes import MEASURE as TOP_CLASS
from redtest_onnx.metrics.agreement.summary import Agreement, OutputAgreement
from redtest_onnx.report.numbers import interval95, plural
from redtest_onnx.report.table import Cell, Shown
from redtest_onnx.runtime.outputs.kinds import ModelOutput

EMPTY = Shown(None, "")
"""A cell with nothing in it."""

_TOP_CLASS = ("classes", "dense", "tokens")
_SHOWN = 4  # outputs by name; of more, those that agree least

_WORDS = {
    "classes": "same answer as the original",
    "dense": "positions with the original's class",
    "tokens": "tokens with the original's class",
    "next-token": "same next token as the original",
    "embedding": "agreement of embeddings",
    "values": "agreement of values",
    "detections": "agreement in front of the detections",
    "elements": "equal elements",
}
_KINDS = {
    "classes": "class scores",
    "dense": "class scores per position",
    "tokens": "class scores per token",
    "next-token": "scores of the next token",
    "embedding": "an embedding",
    "values": "values",
    "detections": "detections",
    "elements": "elements",
    "ignore": "not judged",
}
_DETAILS = {
    "kl_nats": ("divergence from the original (KL, nats)", "{:.4f}"),
    "cosine": ("mean cosine with the original", "{:.4f}"),
    "spearman": ("order of similarities kept (Spearman)", "{:.4f}"),
    "same_neighbour": ("same nearest neighbour", "{:.2%}"),
    "matched_boxes": ("boxes matched with the original's (IoU 0.5)", "{:.2%}"),
}


def agreement_rows(agreement: Agreement, samples: int) -> list[tuple[Cell, ...]]:
    """Names and values, the outputs that agree least first where there are many.

    Args:
        agreement: of two models.
        samples: number of samples that it was measured on.
    """
    judged = [part for part in agreement.outputs if part.agreement is not None and part.steers]
    several = len(agreement.outputs) > 1
    shown = judged
    if len(judged) > _SHOWN:
        shown = sorted(judged, key=lambda part: part.agreement or 0.0)[:_SHOWN]
    rows = [row for part in shown for row in _rows(part, samples, named=several)]
    if len(judged) > len(shown):
        more = f"{len(judged) - len(shown)} more outputs (see --json)"
        rows.append((more, EMPTY, Shown(None, _rest(judged, shown)), EMPTY))
    return rows


def _rest(judged: list[OutputAgreement], shown: list[OutputAgreement]) -> str:
    """How well the outputs that are not shown agree: they may do so no better than those shown."""
    rest = sorted(part.agreement or 0.0 for part in judged if part not in shown)
    low, high = f"{rest[0]:.2%}", f"{rest[-1]:.2%}"
    return f"{low} each" if low == high else f"{low} to {high}"


def output_words(output: ModelOutput) -> str:
    """What an output is, and what told so."""
    where = "" if output.axis is None else f" along axis {output.axis}"
    return f"{_KINDS[output.kind]}{where} ({output.why})"


def agreement_notes(outputs: Iterable[OutputAgreement]) -> list[str]:
    """What to know of outputs that were not judged, or judged by something else."""
    notes: dict[str, list[str]] = {}
    for part in outputs:
        if part.note:
            notes.setdefault(part.note, []).append(part.name)
        elif part.kind in _TOP_CLASS and not part.measure.startswith(TOP_CLASS):
            # The same top class would be what the tables lead one to expect.
            notes.setdefault(f"judged by {part.measure}", []).append(part.name)
    words = {note: "Outputs" if len(names) > 1 else "Output" for note, names in notes.items()}
    return [f"{words[note]} {_listed(names)}: {note}." for note, names in notes.items()]


def interval_name(samples: int) -> str:
    """What a row with an interval is called."""
    return f"95% interval on {plural(samples, 'sample')}"


def _rows(part: OutputAgreement, samples: int, *, named: bool) -> list[tuple[Cell, ...]]:
    suffix = f" ({part.name})" if named else ""
    words = _WORDS.get(part.kind, "agreement")
    if part.kind in _TOP_CLASS and not part.measure.startswith(TOP_CLASS):
        words = "agreement of scores"
    share = Shown(part.agreement, f"{part.agreement:.2%}")
    rows: list[tuple[Cell, ...]] = [(f"{words}{suffix}", EMPTY, share, EMPTY)]
    if ends := interval95(part.interval):
        rows.append((f"{interval_name(samples)}{suffix}", EMPTY, ends, EMPTY))
    same = part.details.get("top_class")
    if words == "agreement of scores" and same is not None:
        rows.append((f"{_WORDS[part.kind]}{suffix}", EMPTY, Shown(same, f"{same:.2%}"), EMPTY))
    for key, (name, form) in _DETAILS.items():
        value = part.details.get(key)
        if value is not None:
            rows.append((f"{name}{suffix}", EMPTY, Shown(value, form.format(value)), EMPTY))
    return rows


def _listed(names: list[str]) -> str:
    shown = names if len(names) <= _SHOWN else [*names[: _SHOWN - 1], f"{len(names) - _SHOWN + 1} more"]
    return ", ".join(shown)
