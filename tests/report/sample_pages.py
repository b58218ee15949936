"""A page of every command over any number of layers, tensors, candidates or findings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from nets import Net
from samples import sample_analysis

import redtest_onnx as rt
from redtest_onnx.auditing.findings import Finding
from redtest_onnx.graph.cost import Cost
from redtest_onnx.pruning.plan import Plan, Step
from redtest_onnx.ranking.candidate import Candidate
from redtest_onnx.ranking.rank import RankingSettings, rank_candidates
from redtest_onnx.report.page.layers import analysis_page, inspect_page, similarity_matrix, trade_off
from redtest_onnx.report.page.model import Page, Point
from redtest_onnx.report.page.others import audit_page, compare_page, ranking_page, sparsity_page
from redtest_onnx.report.page.provenance import Provenance
from redtest_onnx.similarity.compare import Comparison

MODELS = Path(__file__).parents[2] / "models"
COST = Cost(100_000_000, 400_000_000, 10_000_000_000, 10_000_000)
SOURCE = Provenance.now(["analyze", "net.onnx", "--data", "images/validation.zip", "--samples", "256"])


def plan_page(size: int) -> Page:
    """A plan with the trade-off curve and the similarities afterwards, most of what `prune` shows."""
    analysis = sample_analysis(size)
    steps = (Step.of(one) for one in analysis.layers if one.removable and one.index % 4 == 1)
    plan = Plan("redtest", "", tuple(steps))
    model = rt.load(MODELS / "vgg_digits.onnx")
    latency = [0.01 * (1 + k % 4) for k in range(size)]
    page = analysis_page(model, COST, analysis, SOURCE, plan=plan, latency_ms=latency)
    points = [
        Point(1 - k / 10, 0.99 - k**4 * 3e-5, f"remove {k}", front=True, chosen=k == 6) for k in range(10)
    ]
    after = similarity_matrix(sample_analysis(size * 3 // 4), "after")
    return replace(page, matrices=(*page.matrices, after), charts=(trade_off(points), *page.charts))


def _analyze(size: int) -> Page:
    return analysis_page(rt.load(MODELS / "vgg_digits.onnx"), COST, sample_analysis(size), SOURCE)


def _inspect(size: int) -> Page:
    return inspect_page(rt.load(MODELS / "vgg_digits.onnx"), COST, sample_analysis(size).layers, SOURCE)


def _compare(size: int) -> Page:
    one, two = sample_analysis(size), sample_analysis(size * 3 // 4, name="features.{k}.conv")
    rows, columns = (tuple(layer.name for layer in side.layers) for side in (one, two))
    values = one.similarity[:, : len(columns)]
    found = Comparison(rows, columns, values, one.settings, (one.source, one.source), 256, 2)
    return compare_page(found, ("original_network.onnx", "smaller_network.onnx"), SOURCE)


def _sparsity(size: int) -> Page:
    net, x = Net(input=["batch", 8]), "input"
    for _ in range(size):
        x = net("MatMul", x, net.weight(8, 8))
    model = net.model(x)
    return sparsity_page(model, rt.sparsity(model), SOURCE)


def _rank(size: int) -> Page:
    random = np.random.default_rng(0)
    names = [f"|nor_conv_3x3~{k}|+|skip_connect~0|none~1|" if k % 2 else f"net{k}.onnx" for k in range(size)]
    candidates = [
        Candidate(
            name=name,
            accuracy=float(random.uniform(0.5, 0.99)),
            parameters=int(random.uniform(1e4, 1e6)),
            macs=int(random.uniform(1e5, 1e8)),
            msrs=float(random.uniform(1, 60)),
            layers=12,
        )
        for name in names
    ]
    return ranking_page(rank_candidates(candidates, RankingSettings()), SOURCE)


def _audit(size: int) -> Page:
    found = rt.audit(MODELS / "vgg_digits.onnx", timed=False)
    fix = "python -m onnxruntime.tools.make_dynamic_shape_fixed --input_name input --input_shape 1,1,8,8 a b"
    findings = tuple(
        Finding(
            "RT020",
            "unsupported-operator",
            ("error", "warning", "note")[k % 3],
            f"nnapi does not take Operator{k}: {k + 2} nodes, 3% of all",
            (f"/encoder/stage.{k}/block.{k}/conv2/Conv",),
            (),
            fix,
            str(k),
        )
        for k in range(size)
    )
    return audit_page([replace(found, findings=findings)], SOURCE)


KINDS: dict[str, Callable[[int], Page]] = {
    "inspect": _inspect,
    "analyze": _analyze,
    "prune": plan_page,
    "compare": _compare,
    "sparsity": _sparsity,
    "rank": _rank,
    "audit": _audit,
}
