"""The topology space is the published one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from redtest_onnx.errors import InputError
from redtest_onnx.search.space import get_space, mutate, sample
from redtest_onnx.search.topology import OPERATORS, TopologySpace

SPACE = TopologySpace()
CELL = "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|"


def test_the_space_has_the_published_counts() -> None:
    every = list(SPACE)
    assert len(every) == len(set(every)) == 15_625
    assert len({SPACE.key(architecture) for architecture in every}) == 6_466
    assert sum(map(SPACE.connected, every)) == 15_284


def test_parse_and_spell_are_inverse() -> None:
    values = SPACE.parse(CELL)
    assert values["2<-1"] == "skip_connect"
    assert SPACE.spell(values) == CELL
    assert SPACE.parse(f" {CELL}\n") == values


@pytest.mark.parametrize(
    ("architecture", "why"),
    [
        ("", "it must read"),
        ("|none~0|", "it must read"),
        (CELL.replace("~2", "~1"), "node 3 must read from each node before it"),
        (CELL.replace("avg_pool_3x3", "max_pool_3x3"), "'max_pool_3x3' is no operator"),
        (CELL + "+|none~0|", "it must read"),
        (CELL.replace("|skip_connect~2|", ""), "it must read"),
    ],
)
def test_what_is_no_cell_is_refused_with_a_reason(architecture: str, why: str) -> None:
    with pytest.raises(InputError, match="is no cell of the topology space") as error:
        SPACE.parse(architecture)
    assert why in error.value.what


def test_equal_cells_have_one_key() -> None:
    def cell(*operators: str) -> str:
        return SPACE.key(SPACE.spell(dict(zip(SPACE.choices, operators, strict=True))))

    n, s, c = "none", "skip_connect", "nor_conv_3x3"
    assert cell(s, n, n, c, n, n) == cell(s, n, n, n, c, n)  # through node 1, which is the input
    assert cell(c, n, n, n, s, n) != cell(c, n, n, s, n, n)


def test_depth_counts_convolutions_on_the_longest_way() -> None:
    assert SPACE.depth(CELL) == 1 + 15 + 4
    assert TopologySpace(8, 2).depth(CELL.replace("nor_conv_1x1", "none")) == 1 + 4


def test_spaces_are_found_by_name() -> None:
    assert get_space("topology") == SPACE
    assert get_space("topology-8x2") == TopologySpace(8, 2)
    assert get_space("topology-8x2").name == "topology-8x2"
    assert get_space("size").name == "size"
    with pytest.raises(InputError, match="no search space called 'cells'"):
        get_space("cells")


def test_spaces_of_other_packages_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_spaces.py").write_text("from search.toy import ChainSpace as Mine\n")
    package = tmp_path / "their_spaces-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: their-spaces\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[redtest_onnx.spaces]\nchain = their_spaces:Mine\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    space = get_space("chain")
    assert space.name == "chain"
    assert len(sample(space, np.random.default_rng(0)).split("-")) == 4
    with pytest.raises(InputError) as error:
        get_space("other")
    assert "chain" in (error.value.hint or "")


def test_mutation_changes_one_choice() -> None:
    rng = np.random.default_rng(0)
    for space in (SPACE, get_space("size")):
        parent = sample(space, rng)
        for _ in range(20):
            child = space.parse(mutate(space, parent, rng))
            assert sum(child[name] != value for name, value in space.parse(parent).items()) == 1


def test_sampling_reaches_every_operator_everywhere() -> None:
    rng = np.random.default_rng(0)
    seen = {item for _ in range(200) for item in SPACE.parse(sample(SPACE, rng)).items()}
    assert len(seen) == 6 * len(OPERATORS)


def test_the_size_space_refuses_what_it_does_not_have() -> None:
    space = get_space("size")
    assert space.depth("2x16-4x32-1x64") == 15
    for architecture in ("2x16-4x32", "2x16-4x32-5x64", "2x16-4x33-1x64", "a"):
        with pytest.raises(InputError, match="no network of the size space"):
            space.parse(architecture)
