"""What pages write: what is marked and why, facts of one name together, options whole, labels of points."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sample_pages import KINDS, plan_page

from redtest_onnx.ranking.candidate import Candidate
from redtest_onnx.ranking.rank import RankingSettings, rank_candidates
from redtest_onnx.report.page.model import Page
from redtest_onnx.report.page.others import ranking_page
from redtest_onnx.report.page.provenance import Provenance
from redtest_onnx.report.page.render import render_page
from redtest_onnx.report.ranking_figures import candidate_label, draw_ranking


def test_what_a_plan_names_is_not_removed_yet() -> None:
    page = plan_page(28)
    text = render_page(page)
    assert page.marking == "to be removed"
    assert '"marking":"to be removed"' in text
    assert "<td>removed</td>" not in text
    assert ">to be removed</td>" in text


def test_facts_of_one_name_stand_together() -> None:
    facts = (("Note", "one"), ("Note", "two"), ("Date", "today"), ("Note", "three"))
    text = render_page(Page("title", "headline", facts=facts))
    assert "<div><dt>Note</dt><dd>one</dd><dd>two</dd></div>" in text
    assert text.count("<dt>Note</dt>") == 2


def test_options_are_kept_whole_and_names_stay_text() -> None:
    text = render_page(Page("title", "", facts=(("Command", "a --layer-latency <b> x-y -o --<i>"),)))
    option = "<span class=option>{}</span>".format
    assert f"a {option('--layer-latency')} &lt;b&gt; x-y {option('-o')} --&lt;i&gt;" in text


def test_the_main_table_of_a_comparison_stands_beside_its_heat_map() -> None:
    page = KINDS["compare"](28)
    assert page.tables[0].key == "matches"
    pair = render_page(page).split('<div class="pair">')[1].split("How this was measured")[0]
    assert 'id="table-matches"' in pair


def test_charts_and_tables_of_tensors_have_the_same_numbers() -> None:
    table = KINDS["sparsity"](28).tables[-1]
    assert [row[0] for row in table.rows] == list(range(28))


@pytest.mark.parametrize(
    ("name", "label"), [("models/net.onnx", "1 net.onnx"), ("|nor_conv_3x3~0|+|skip_connect~0|none~1|", "1")]
)
def test_long_names_of_candidates_give_way_to_their_places(name: str, label: str) -> None:
    one = Candidate(name=name, accuracy=0.9, parameters=10, macs=2_000_000, msrs=3.0)
    ranking = rank_candidates([one, replace(one, name="b", accuracy=0.5)], RankingSettings())
    assert candidate_label(ranking.rows[0]) == label
    (chart,) = ranking_page(ranking, Provenance.now()).charts
    assert chart.points[0].label == label  # type: ignore[union-attr]
    axes = draw_ranking(ranking).axes[0]
    assert label in [text.get_text() for text in axes.texts]
    assert axes.xaxis.get_major_formatter()(1_000_000) == "1.00 M"


def test_spread_of_large_scores_reads_like_the_score() -> None:
    page = plan_page(28)
    assert page.cards[0].detail == "± 1.2 over batches, of 378 pairs"
