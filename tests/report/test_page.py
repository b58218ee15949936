"""The page as text: names stay text, nothing is asked for, figures are there without JavaScript."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from samples import sample_analysis

import redtest_onnx as rt
from redtest_onnx.graph.cost import Cost
from redtest_onnx.pruning.plan import Plan, Step
from redtest_onnx.report.page.encode import block_means, encode
from redtest_onnx.report.page.layers import analysis_page, inspect_page, similarity_matrix
from redtest_onnx.report.page.model import Item, Matrix, Page
from redtest_onnx.report.page.provenance import Provenance
from redtest_onnx.report.page.render import render_page
from redtest_onnx.similarity.analyze import Analysis
from redtest_onnx.text import plain as clean

MODELS = Path(__file__).parents[2] / "models"
HOSTILE = [
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "\x1b[31m\u202e\u2028",
    "' onload='x",
    "$\\bad{",
]
COST = Cost(1_000_000, 4_000_000, 2_000_000, 30_000)
PROVENANCE = Provenance("redtest-onnx analyze net.onnx", "2026-01-01 00:00 UTC", "redtest-onnx 0")


def page_of(analysis: Analysis, plan: Plan | None = None) -> Page:
    model = rt.load(MODELS / "vgg_digits.onnx")
    return analysis_page(model, COST, analysis, PROVENANCE, plan=plan)


def data_of(text: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    result: dict[str, Any] = json.loads(found.group(1))
    return result


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


@pytest.mark.parametrize("name", HOSTILE)
def test_names_stay_text(name: str) -> None:
    analysis = sample_analysis(6)
    layers = (*analysis.layers[:2], replace(analysis.layers[2], name=name), *analysis.layers[3:])
    text = render_page(page_of(replace(analysis, layers=layers, dominated=(name,), source=name)))
    parsed = Tags()
    parsed.feed(text)
    plain = Tags()
    plain.feed(render_page(page_of(replace(sample_analysis(6), dominated=("x",)))))
    assert [tag for tag, _ in parsed.tags] == [tag for tag, _ in plain.tags]
    assert not any(key.startswith("on") for _, attributes in parsed.tags for key in attributes)
    assert not set(text) & set("\x1b\u202e\u2028")
    assert data_of(text)["series"][0][2][0] == clean(name)


def test_the_policy_allows_our_script_alone() -> None:
    text = render_page(page_of(sample_analysis(5)))
    script = text[text.rindex("<script>") + len("<script>") : text.rindex("</script>")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text
    assert "default-src 'none'" in text
    assert not re.search(r"""(?:src|href)=["'](?!data:)""", text)


def test_figures_are_there_without_javascript() -> None:
    analysis = sample_analysis(9)
    text = render_page(page_of(analysis))
    for layer in analysis.layers:
        assert f">{layer.name}</td>" in text
    assert text.count(">undefined</td>") == 2
    assert "it reads the model&#39;s input" in text
    assert text.count('src="data:image/png;base64,') == 1
    assert PROVENANCE.command in text


def test_layers_of_a_plan_are_marked() -> None:
    analysis = sample_analysis(9)
    plan = Plan("redtest", "", (Step.of(analysis.layers[1]), Step.of(analysis.layers[4])))
    text = render_page(page_of(analysis, plan))
    assert text.count('<tr class="marked">') == 2
    assert [item[2] for item in data_of(text)["series"][0]] == [0, 1, 0, 0, 1, 0, 0, 0, 0]
    assert "plan to remove 2 of 9 layers" in text


def test_synthetic_inputs_are_said_loudly() -> None:
    text = render_page(page_of(replace(sample_analysis(5), synthetic=True)))
    assert 'class="warning"' in text
    assert "synthetic (random) inputs" in text


def test_a_model_without_layers_has_a_page() -> None:
    model = rt.load(MODELS / "vgg_digits.onnx")
    assert "0 layers" in render_page(inspect_page(model, COST, (), PROVENANCE))


def decoded(encoded: Any, symmetric: bool) -> np.ndarray[Any, Any]:
    numbers = np.frombuffer(base64.b64decode(encoded.data), "<u2" if encoded.bytes == 2 else "u1").astype(
        float
    )
    numbers[numbers > encoded.levels] = np.nan
    numbers /= encoded.levels
    if not symmetric:
        return numbers.reshape(encoded.shape)
    matrix = np.full(encoded.shape, np.nan)
    matrix[np.triu_indices(len(matrix))] = numbers
    return np.where(np.isnan(matrix), matrix.T, matrix)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.booleans())
def test_matrices_come_back(rows: int, columns: int, symmetric: bool) -> None:
    random = np.random.default_rng(rows)
    values = random.uniform(-0.1, 1, (rows, rows if symmetric else columns))
    values[0, 0] = np.nan
    if symmetric:
        values = np.minimum(values, values.T)
    items = tuple(Item(str(k)) for k in range(rows))
    across = items if symmetric else tuple(Item(str(k)) for k in range(columns))
    (encoded,) = encode([Matrix("m", items, across, values)])
    assert encoded.step == 1
    np.testing.assert_allclose(decoded(encoded, symmetric), np.clip(values, 0, 1), atol=1e-5)


def test_means_of_squares_leave_out_what_is_undefined() -> None:
    values = np.array([[1.0, np.nan, 3], [5, 0, np.nan], [2, 4, np.nan]])
    np.testing.assert_allclose(block_means(values, 2), [[2, 3], [3, np.nan]])


def test_a_page_of_many_layers_stays_below_two_megabytes() -> None:
    page = page_of(sample_analysis(1202))
    one = render_page(page)
    assert len(one.encode()) < 2_000_000
    assert data_of(one)["matrices"][0]["step"] == 1
    after = similarity_matrix(sample_analysis(1000), "after")
    two = render_page(replace(page, matrices=(*page.matrices, after)))
    assert len(two.encode()) < 2_000_000
    assert [m["step"] for m in data_of(two)["matrices"]] == [1, 3]
