"""JSON Schemas of the documents: the fields that other programs may rely on."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_INTEGER: Schema = {"type": "integer", "minimum": 0}
_COUNT: Schema = {"type": ["integer", "null"], "minimum": 0}
_NUMBER: Schema = {"type": ["number", "null"]}
_TEXT: Schema = {"type": "string"}
_OPTIONAL_TEXT: Schema = {"type": ["string", "null"]}
_FLAG: Schema = {"type": "boolean"}


def _object(required: dict[str, Schema], **optional: Schema) -> Schema:
    return {"type": "object", "required": list(required), "properties": {**required, **optional}}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


_SPEC = _object({"name": _TEXT, "dtype": _TEXT, "shape": {"type": ["array", "null"]}})
_MODEL = _object(
    {
        "path": _OPTIONAL_TEXT,
        "sha256": _TEXT,
        "ir_version": _INTEGER,
        "opsets": {"type": "object", "additionalProperties": {"type": "integer"}},
        "producer": _TEXT,
        "inputs": _list(_SPEC),
        "outputs": _list(_SPEC),
        "parameters": _INTEGER,
        "parameter_bytes": _INTEGER,
        "macs": _COUNT,
        "peak_activation_bytes": _COUNT,
    }
)
_LAYER = _object(
    {
        "index": _INTEGER,
        "name": _TEXT,
        "kind": _TEXT,
        "input": _OPTIONAL_TEXT,
        "tensor": _TEXT,
        "shape": {"type": ["array", "null"], "items": {"type": "integer"}},
        "parameters": _INTEGER,
        "macs": _COUNT,
        "removable": _FLAG,
        "reason": _OPTIONAL_TEXT,
    }
)
_MATRIX = _list(_list(_NUMBER))
_STEP = _object(
    {
        "region": _TEXT,
        "input": _TEXT,
        "tensor": _TEXT,
        "action": {"enum": ["bypass", "adapter"]},
        "score": _NUMBER,
        "parameters": {"type": "integer"},
        "macs": {"type": ["integer", "null"]},
    }
)
_NARROWING = _object(
    {
        "width": _TEXT,
        "channels": _INTEGER,
        "kept": _list(_INTEGER),
        "price": _NUMBER,
        "parameters": {"type": ["integer", "null"]},
        "macs": {"type": ["integer", "null"]},
    }
)
_LATENCY = _object({"p50": _NUMBER, "p90": _NUMBER, "p99": _NUMBER})
_MEASURES = _object(
    {
        "parameters": _INTEGER,
        "parameter_bytes": _INTEGER,
        "macs": _COUNT,
        "file_bytes": _INTEGER,
        "latency_ms": _LATENCY,
        "msrs": _NUMBER,
        "accuracy": _NUMBER,
    }
)
_FINDING = _object(
    {
        "rule": _TEXT,
        "severity": {"enum": ["error", "warning", "note"]},
        "message": _TEXT,
        "node": _OPTIONAL_TEXT,
        "fix": _TEXT,
        "fingerprint": _TEXT,
        "suppressed": _OPTIONAL_TEXT,
        "known": _FLAG,
    }
)
_CANDIDATE = _object(
    {
        "place": _INTEGER,
        "name": _TEXT,
        "accuracy": _NUMBER,
        "parameters": _COUNT,
        "macs": _COUNT,
        "msrs": _NUMBER,
        "msrs_from": _OPTIONAL_TEXT,
        "scores": {"type": "object"},
        "pareto": _FLAG,
    }
)
_TOP_MEANS = _object(
    {
        "score": {"enum": ["S1", "S2", "S3"]},
        "names": _list(_TEXT),
        "accuracy": _NUMBER,
        "accuracy_error": _NUMBER,
        "test_accuracy": _NUMBER,
        "parameters": _NUMBER,
        "macs": _NUMBER,
        "latency_ms": _NUMBER,
        "msrs": _NUMBER,
    }
)
_CORRELATION = _object(
    {"proxy": _TEXT, "spearman": _NUMBER, "kendall": _NUMBER, "pearson": _NUMBER, "points": _INTEGER}
)
_UNRANKED = _list(_object({"name": _TEXT, "reason": _TEXT}))


def _document(name: str, fields: dict[str, Schema], **optional: Schema) -> Schema:
    schema = _object(
        {
            "schema": {"const": f"redtest-onnx/{name}/1"},
            "tool": _object({"name": {"const": "redtest-onnx"}, "version": _TEXT}),
            **fields,
        },
        **optional,
    )
    return {"$schema": _DIALECT, "title": f"redtest-onnx {name} --json", **schema}


def schemas() -> dict[str, Schema]:
    """The schema of each command's document, by the name of the command."""
    msrs = _object(
        {
            "value": _NUMBER,
            "std": _NUMBER,
            "per_batch": _list(_NUMBER),
            "pairs": _INTEGER,
            "alpha": {"anyOf": [{"type": "number"}, {"const": "inf"}]},
            "threshold": _NUMBER,
        }
    )
    data = _object(
        {
            "source": _TEXT,
            "samples": _INTEGER,
            "batches": _INTEGER,
            "synthetic": _FLAG,
            "labels": _FLAG,
        }
    )
    plan = _object({"criterion": _TEXT, "steps": _list(_STEP)}, widths=_list(_NARROWING))
    side = _object({"name": _TEXT, "source": _TEXT, "layers": _list(_TEXT)})
    group = _object({"p": _NUMBER, "q": _NUMBER, "pq_index": _NUMBER, "retained": _NUMBER})
    ranking = {
        "ranking": _list(_CANDIDATE),
        "unranked": _UNRANKED,
        "settings": {"type": "object"},
        "means": _list(_TOP_MEANS),
        "pool": _INTEGER,
        "proxies": _list(_CORRELATION),
    }
    return {
        "inspect": _document("inspect", {"model": _MODEL, "layers": _list(_LAYER)}),
        "analyze": _document(
            "analyze",
            {
                "model": _MODEL,
                "layers": _list(_LAYER),
                "cka": _MATRIX,
                "adjacent": _list(_NUMBER),
                "msrs": msrs,
                "data": data,
                "settings": {"type": "object"},
                "timing": {"type": "object"},
            },
            hsic_batches={"type": ["array", "null"], "items": _MATRIX},
            unmeasured=_list(_object({"name": _TEXT, "reason": _TEXT})),
            sweep=_list(
                _object(
                    {
                        "choice": {"enum": ["samples", "alpha", "threshold"]},
                        "value": {"anyOf": [{"type": "number"}, {"const": "inf"}]},
                        "estimator": _TEXT,
                        "msrs": _NUMBER,
                        "std": _NUMBER,
                        "standard_error": _NUMBER,
                        "batches": _INTEGER,
                    }
                )
            ),
            proposed_threshold=_object(
                {"threshold": _NUMBER, "small": _TEXT, "small_msrs": _NUMBER, "msrs": _NUMBER}
            ),
        ),
        "prune": _document(
            "prune",
            {"model": _MODEL, "plan": plan, "layers": _list(_LAYER), "output": _OPTIONAL_TEXT},
            before=_MEASURES,
            after=_MEASURES,
            repair={"type": "object"},
            agreement={"type": "object"},
            evaluation=_object({"source": _TEXT, "samples": _INTEGER, "apart": {"type": "boolean"}}),
        ),
        "compare": _document(
            "compare",
            {
                "sides": {**_list(side), "minItems": 2, "maxItems": 2},
                "cka": _MATRIX,
                "best": _list(_COUNT),
                "data": {"type": "object"},
                "settings": {"type": "object"},
            },
        ),
        "audit": _document(
            "audit",
            {"verdict": {"enum": ["pass", "fail"]}},
            model=_MODEL,
            profile=_TEXT,
            findings=_list(_FINDING),
            unchecked=_list(_TEXT),
            measured={"type": "object"},
            audits=_list({"type": "object"}),
        ),
        "sparsity": _document(
            "sparsity",
            {"model": _MODEL},
            weights=_INTEGER,
            zeros=_INTEGER,
            overall=_list(group),
            tensors=_list({"type": "object"}),
            stages=_list({"type": "object"}),
        ),
        "rank": _document("rank", ranking),
        "search": _document("search", {**ranking, "evaluated": _INTEGER, "reason": _TEXT}),
    }
