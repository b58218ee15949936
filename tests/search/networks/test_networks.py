"""Networks cost what the benchmark publishes, and compute in ONNX Runtime what they do in PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="networks need PyTorch: pip install 'redtest-onnx[nas]'")

from redtest_onnx.graph.cost import count_macs, count_parameters  # noqa: E402
from redtest_onnx.graph.index import GraphIndex  # noqa: E402
from redtest_onnx.graph.model import Model  # noqa: E402
from redtest_onnx.graph.shapes import infer_shapes  # noqa: E402
from redtest_onnx.runtime.session import Session  # noqa: E402
from redtest_onnx.search.networks import proxies  # noqa: E402
from redtest_onnx.search.networks.export import export  # noqa: E402
from redtest_onnx.search.networks.redundancy import redundancy  # noqa: E402
from redtest_onnx.search.space import ImageTask, Space, get_space, sample  # noqa: E402
from redtest_onnx.search.topology import OPERATORS, TopologySpace  # noqa: E402

LARGEST = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|"
DIGITS = ImageTask(channels=1, size=8)


def macs(model: Model, task: ImageTask) -> int | None:
    shapes = infer_shapes(model, {"input": (1, task.channels, task.size, task.size)})
    return count_macs(GraphIndex(model.graph), shapes)


def randomised(network: Any) -> Any:
    """Weights, norms and statistics as training leaves them: none of them 0, 1 or equal to another."""
    generator = torch.Generator().manual_seed(0)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            noise = torch.rand(tensor.shape, generator=generator)
            tensor.copy_(noise + 0.5 if tensor.ndim == 1 else (noise - 0.5) / tensor[0].numel() ** 0.5)
    return network


@pytest.mark.parametrize(
    ("architecture", "parameters", "published"),
    [
        (
            "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|",
            129_306,
            15_647_370,
        ),
        (
            "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|none~0|nor_conv_3x3~1|avg_pool_3x3~2|",
            802_426,
            113_951_370,
        ),
        (
            "|skip_connect~0|+|skip_connect~0|skip_connect~1|+|none~0|nor_conv_1x1~1|none~2|",
            101_306,
            11_715_210,
        ),
        (LARGEST, 1_531_546, 220_119_690),
    ],
)
def test_costs_are_the_published_ones(architecture: str, parameters: int, published: int) -> None:
    task = ImageTask()
    network = randomised(TopologySpace().build(architecture, task))
    model = export(network, task)
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert count_parameters(GraphIndex(model.graph)) == parameters
    assert macs(model, task) == published - task.classes  # the benchmark counts the classifier's bias too


@pytest.mark.parametrize(("space", "count"), [(TopologySpace(8, 1), 50), (get_space("size"), 5)])
def test_exported_networks_compute_the_same(space: Space, count: int) -> None:
    rng = np.random.default_rng(0)
    images = rng.random((3, 1, 8, 8), np.float32)
    for _ in range(count):
        architecture = sample(space, rng)
        network = randomised(space.build(architecture, DIGITS)).eval()
        with torch.no_grad():
            expected = network(torch.from_numpy(images)).numpy()
        found = Session(export(network, DIGITS)).run({"input": images})["logits"]
        assert np.abs(found - expected).max() <= 1e-5 * max(1, np.abs(expected).max()), architecture


def test_the_benchmarks_network_has_18_layers() -> None:
    network = TopologySpace().build(LARGEST, ImageTask())
    logits, layers = network.layers(torch.zeros(2, 3, 32, 32))  # type: ignore[operator]
    assert logits.shape == (2, 10)
    assert len(layers) == 18
    assert [tuple(x.shape[1:]) for x in (layers[0], layers[6], layers[-1])] == [
        (16, 32, 32),
        (32, 16, 16),
        (64, 8, 8),
    ]


def test_redundancy_is_never_nan() -> None:
    space = TopologySpace(4, 1)
    rng = np.random.default_rng(0)
    images = rng.random((32, 1, 8, 8), np.float32)
    every_edge = [space.spell(dict.fromkeys(space.choices, operator)) for operator in OPERATORS]
    for architecture in (*every_edge, *(sample(space, rng) for _ in range(40))):
        network = randomised(space.build(architecture, DIGITS))
        found = redundancy(network, images, samples=16)
        assert found.layers == 6
        if found.msrs is None:
            assert found.undefined >= found.layers - 1
        else:
            assert 0 <= found.msrs <= 15, architecture
        assert found.undefined == (0 if space.connected(architecture) else 5), architecture


def test_redundancy_counts_equal_layers() -> None:
    space = TopologySpace(4, 2)
    images = np.random.default_rng(0).random((32, 1, 8, 8), np.float32)
    skips = space.build(space.spell(dict.fromkeys(space.choices, "skip_connect")), DIGITS)
    found = redundancy(randomised(skips), images)
    # A skip cell multiplies what enters it by four: all three layers of each stage are pairwise equal.
    assert found.msrs is not None
    assert found.msrs >= 9 * 0.999
    assert (found.layers, found.undefined) == (9, 0)


def test_proxies_rank_a_capable_cell_above_an_empty_one() -> None:
    space = TopologySpace(8, 1)
    images = np.random.default_rng(0).random((16, 1, 8, 8), np.float32)

    def scores(architecture: str) -> list[float]:
        torch.manual_seed(0)
        network = space.build(architecture, DIGITS)
        before = [p.clone() for p in network.parameters()]
        found = [
            proxies.synflow(network, (1, 8, 8)),
            proxies.jacob_cov(network, images),
            proxies.naswot(network, images),
        ]
        assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
        assert all(isinstance(value, float) and np.isfinite(value) for value in found)
        return [value for value in found if value is not None]

    pool = space.spell(dict.fromkeys(space.choices, "avg_pool_3x3"))
    assert all(a > b for a, b in zip(scores(LARGEST), scores(pool), strict=True))


def test_proxies_of_a_network_that_ignores_its_input_are_undefined() -> None:
    space = TopologySpace(8, 1)
    network = space.build(space.spell(dict.fromkeys(space.choices, "none")), DIGITS)
    images = np.random.default_rng(0).random((8, 1, 8, 8), np.float32)
    assert proxies.jacob_cov(network, images) is None
    assert proxies.naswot(network, images) is None
