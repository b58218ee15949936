"""Analyses of any size, with the structure that real ones have, for pages and pictures."""

from __future__ import annotations

import numpy as np

from redtest_onnx.layers.layer import Layer
from redtest_onnx.similarity.analyze import Analysis, AnalysisSettings, Redundancy


def sample_analysis(
    count: int, *, name: str = "/encoder/stage.{stage}/block.{k}/conv2/Conv_output_0"
) -> Analysis:
    """An analysis of `count` layers in stages of similar ones; the last but one layer is undefined."""
    random = np.random.default_rng(0)
    places = np.arange(count)
    stages = places * 4 // count
    distance = np.abs(places[:, None] - places[None]) / count
    noise = random.uniform(0, 0.06, (count, count))
    similarity = (
        np.exp(-4 * distance) * np.where(stages[:, None] == stages[None], 1.0, 0.75) - (noise + noise.T) / 2
    )
    np.fill_diagonal(similarity, 1.0)
    if count > 4:
        similarity[-2] = similarity[:, -2] = np.nan
    layers = tuple(
        Layer(
            index=k,
            name=name.format(stage=int(stages[k]), k=k),
            kind="residual block" if k % 3 else "Conv",
            operators=3,
            channels_first=True,
            input="x",
            tensor=f"t{k}",
            exit=f"t{k}",
            shape=(1, 64 << int(stages[k]), 14, 14),
            parameters=int(1000 * (1 + stages[k]) ** 2 * (1 + k % 3)),
            macs=None if k == 1 else int(2e6 * (1 + k % 5)),
            added_parameters=0,
            added_macs=0,
            action=None if k % 3 == 0 else "bypass",
            reason="it reads the model's input: there is no earlier layer to take its place"
            if k == 0
            else f"its output is also read by /decoder/Concat_{k % 7}"
            if k % 3 == 0
            else None,
        )
        for k in range(count)
    )
    redundancy = Redundancy(
        14.9, 1.2, 0.4, (14.0, 15.8), count * (count - 1) // 2, count - 1, 100.0, 0.8, False
    )
    return Analysis(
        layers=layers,
        similarity=similarity,
        redundancy=redundancy,
        settings=AnalysisSettings(threshold=0.8),
        source="images/validation.zip",
        synthetic=False,
        labelled=True,
        samples=256,
        batches=2,
        features=(64,) * count,
        null95=0.02,
        top_share=(0.01,) * count,
        dominated=(),
        without_largest=None,
        forward_s=1.0,
        metric_s=1.0,
    )
