"""One sample per file."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

import redtest_onnx as rt
from redtest_onnx.data.per_sample import PerSample
from tests.graph.test_axes import graph_network
from tests.nets import Net


def write(folder: Path, count: int = 6, *, labels: bool = False) -> Path:
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for k in range(count):
        nodes, edges = 3 + k, 5 + 2 * k
        arrays = {
            "x": rng.normal(size=(nodes, 8)).astype(np.float32),
            "edges": rng.integers(0, nodes, (2, edges)),
            "weight": np.ones((edges, 1), np.float32),
        }
        np.savez(
            folder / f"{k:02}.npz",
            allow_pickle=False,
            **arrays,
            **({"labels": np.int64(k % 2)} if labels else {}),
        )
    return folder


@pytest.mark.parametrize("archive", [False, True])
def test_graphs_of_different_sizes(tmp_path: Path, archive: bool) -> None:
    path = write(tmp_path / "graphs", labels=True)
    if archive:
        with zipfile.ZipFile(tmp_path / "graphs.zip", "w") as file:
            for member in sorted(path.iterdir()):
                file.write(member, member.name)
        path = tmp_path / "graphs.zip"
    data = rt.open_data(path, graph_network().model("y"))
    assert isinstance(data, PerSample)
    assert len(data) == 6
    assert not data.synthetic
    assert data.inputs([2])["x"].shape == (5, 8)
    assert data.inputs([5])["edges"].shape == (2, 15)
    labels = data.labels([0, 1, 2])
    assert labels is not None
    assert labels.tolist() == [0, 1, 0]


def test_samples_of_one_size_are_put_together(tmp_path: Path) -> None:
    net = Net(x=["N", "T", 4])
    net("MatMul", "x", net.weight(4, 4))
    for k in range(3):
        shape = (5, 4)  # the axis of samples is left out
        np.savez(tmp_path / f"{k}.npz", x=np.full(shape, k, np.float32))
    data = rt.open_data(tmp_path, net.model("MatMul0"))
    assert data.inputs([0, 2])["x"][:, 0, 0].tolist() == [0, 2]


def test_samples_of_different_sizes_can_not_be_put_together(tmp_path: Path) -> None:
    net = Net(x=["N", "T", 4])
    net("MatMul", "x", net.weight(4, 4))
    for k in range(2):
        np.savez(tmp_path / f"{k}.npz", x=np.zeros((5 + k, 4), np.float32))
    data = rt.open_data(tmp_path, net.model("MatMul0"))
    with pytest.raises(rt.InputError, match="different sizes"):
        data.inputs([0, 1])


@pytest.mark.parametrize("what", ["missing", "shape", "nan", "broken"])
def test_bad_files_are_named(tmp_path: Path, what: str) -> None:
    path = write(tmp_path / "graphs")
    file = path / "01.npz"
    arrays = dict(np.load(file))
    if what == "missing":
        del arrays["weight"]
    elif what == "shape":
        arrays["x"] = np.zeros((3, 7), np.float32)
    else:
        arrays["x"][0, 0] = np.nan
    np.savez(file, allow_pickle=False, **arrays)
    if what == "broken":
        file.write_bytes(b"PK")
    data = rt.open_data(path, graph_network().model("y"))
    with pytest.raises(rt.InputError, match=r"01\.npz"):
        data.inputs([1])


def test_arrays_with_samples_in_front_of_a_model_without(tmp_path: Path) -> None:
    model = graph_network().model("y")
    arrays = {"x": (7, 5, 8), "edges": (7, 2, 9), "weight": (7, 9, 1)}
    values = {
        name: np.zeros(shape, np.int64 if name == "edges" else np.float32) for name, shape in arrays.items()
    }
    np.savez(tmp_path / "d.npz", allow_pickle=False, **values)
    data = rt.open_data(tmp_path / "d.npz", model)
    assert len(data) == 7
    assert data.inputs([3])["edges"].shape == (2, 9)


def one_vector() -> rt.Model:
    net = Net(x=[20])
    return net.model(net("MatMul", "x", net.weight(20, 8)))


def test_vectors_of_a_model_of_one_vector(tmp_path: Path) -> None:
    """From a folder, from one array of them all, and synthetic: a vector a run."""
    model, values = one_vector(), np.random.default_rng(0).normal(size=(5, 20)).astype(np.float32)
    folder = tmp_path / "vectors"
    folder.mkdir()
    for k, value in enumerate(values):
        np.savez(folder / f"{k}.npz", x=value, labels=np.int64(k))
    np.savez(tmp_path / "all.npz", x=values, labels=np.arange(5))
    np.save(tmp_path / "all.npy", values)
    for source in (folder, tmp_path / "all.npz", tmp_path / "all.npy", {"x": values}, values):
        data = rt.open_data(source, model)
        assert len(data) == 5
        np.testing.assert_array_equal(data.inputs([3])["x"], values[3])
    labels = rt.open_data(folder, model).labels([1, 4])
    assert labels is not None
    assert labels.tolist() == [1, 4]
    synthetic = rt.open_data(None, model)
    first, second = (synthetic.inputs([k])["x"] for k in range(2))
    assert first.shape == second.shape == (20,)
    assert not np.array_equal(first, second)
