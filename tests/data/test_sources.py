"""Every source of samples gives what the same samples in an .npz give, to the bit."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_samples import (
    COUNT,
    IMAGES,
    LABELS,
    PIXELS,
    VECTORS,
    assert_same,
    images_net,
    png,
    similarity,
    vectors_net,
)
from nets import Net
from PIL import Image

import redtest_onnx as rt


def pairs_net() -> rt.Model:
    net = Net(x=["n", 6], z=["n", 2])
    one = net("Tanh", net("MatMul", "x", net.weight(6, 5)))
    two = net("Tanh", net("MatMul", "z", net.weight(2, 5)))
    return net.model(net("Tanh", net("MatMul", net("Add", one, two), net.weight(5, 4))))


class Samples:
    """A map-style data set, as PyTorch has them."""

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        if index >= COUNT:
            raise IndexError
        return VECTORS[index], int(LABELS[index])


def batched() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for start in range(0, COUNT, 7):
        yield VECTORS[start : start + 7], LABELS[start : start + 7]


HELD: dict[str, Callable[[], Any]] = {
    "mapping": lambda: {"x": VECTORS, "labels": LABELS},
    "mapping by another name": lambda: {"pixels": VECTORS, "label": LABELS},
    "pair": lambda: (VECTORS, LABELS),
    "list of samples": lambda: [(VECTORS[k], int(LABELS[k])) for k in range(COUNT)],
    "list of mappings": lambda: [{"x": VECTORS[k], "label": LABELS[k]} for k in range(COUNT)],
    "list of batches": lambda: list(batched()),
    "generator of batches": batched,
    "generator of mappings": lambda: ({"x": x, "labels": y} for x, y in batched()),
    "data set": Samples,
}


@pytest.mark.parametrize("name", HELD)
def test_what_a_program_holds(name: str, tmp_path: Path) -> None:
    assert_same(vectors_net(), HELD[name](), {"x": VECTORS}, tmp_path)


def test_torch_loaders_and_data_sets(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    from torch.utils.data import DataLoader, TensorDataset

    whole = TensorDataset(torch.from_numpy(VECTORS), torch.from_numpy(LABELS))
    for source in (whole, DataLoader(whole, batch_size=5)):
        assert_same(vectors_net(), source, {"x": VECTORS}, tmp_path)
    values, _ = similarity(vectors_net(), torch.from_numpy(VECTORS))
    np.testing.assert_array_equal(values, similarity(vectors_net(), VECTORS)[0])


def test_data_sets_of_hugging_face(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="needs datasets")
    held = datasets.Dataset.from_dict({"x": VECTORS.tolist(), "label": LABELS.tolist()})
    assert_same(vectors_net(), held, {"x": VECTORS}, tmp_path)


def test_two_inputs_in_order_or_by_name(tmp_path: Path) -> None:
    both = {"x": VECTORS, "z": VECTORS[:, :2].copy()}
    in_order = [(both["x"][k], both["z"][k], int(LABELS[k])) for k in range(COUNT)]
    by_name = [{"z": both["z"][k], "x": both["x"][k], "label": int(LABELS[k])} for k in range(COUNT)]
    for source in (in_order, by_name):
        assert_same(pairs_net(), source, both, tmp_path)


def test_pillow_images_are_prepared_like_files(tmp_path: Path) -> None:
    held = [{"image": Image.fromarray(PIXELS[k]), "label": int(LABELS[k])} for k in range(COUNT)]
    assert_same(images_net(), held, {"x": IMAGES}, tmp_path)


def test_a_function_of_the_user(tmp_path: Path) -> None:
    np.savez(tmp_path / "given.npz", x=VECTORS, y=LABELS)
    loader = tmp_path / "loader.py"
    loader.write_text(
        "import numpy as np\nfrom pathlib import Path\n"
        "def batches(model):\n"
        "    given = np.load(Path(__file__).with_name('given.npz'))\n"
        "    for start in range(0, 24, 5):\n"
        "        yield given['x'][start:start + 5], given['y'][start:start + 5]\n"
        "def broken():\n    return 1 / 0\n"
    )
    assert_same(vectors_net(), f"{loader}:batches", {"x": VECTORS}, tmp_path)
    with pytest.raises(rt.InputError, match="fails: ZeroDivisionError"):
        rt.open_data(f"{loader}:broken", vectors_net())
    with pytest.raises(rt.InputError, match="has no function 'other'") as error:
        rt.open_data(f"{loader}:other", vectors_net())
    assert "batches" in str(error.value)


def test_a_python_file_alone_runs_nothing(tmp_path: Path) -> None:
    (tmp_path / "loader.py").write_text("raise SystemExit(9)")
    with pytest.raises(rt.InputError, match="unsupported data format"):
        rt.open_data(tmp_path / "loader.py", vectors_net())


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([], "holds no samples"),
        ("nothing.npz", "no such file"),
        (3, "holds no samples"),
        ({"y": VECTORS, "z": VECTORS}, "has no array 'x'|has no 'x'"),
        ([(VECTORS[0], 1, 2)], "gives 3 values at a time"),
        ([{"x": object()}] * 4, "holds no numbers"),
        (iter([VECTORS[:4], VECTORS[:4, :3]]), r"a sample, was"),
    ],
)
def test_what_holds_no_samples_is_refused(source: Any, message: str) -> None:
    with pytest.raises(rt.InputError, match=message):
        rt.open_data(source, vectors_net()).inputs([0])


def test_iterables_are_kept_in_a_file_where_they_are_large(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("redtest_onnx.data.held._IN_MEMORY", 100)
    assert_same(vectors_net(), batched(), {"x": VECTORS}, tmp_path)


def test_endless_iterables_end(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("redtest_onnx.data.held._MOST", 50)

    def endless() -> Iterator[np.ndarray]:
        while True:
            yield VECTORS

    assert len(rt.open_data(endless(), vectors_net())) == 72
    assert "more are left out" in caplog.text


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "cls"])
def test_images_in_archives(kind: str, tmp_path: Path) -> None:
    order = np.argsort(LABELS, kind="stable")
    names = {f"c{LABELS[k]}/{k:03}.png": png(k) for k in order}
    expected, labels = {"x": IMAGES[order]}, LABELS[order]
    path = tmp_path / f"images.{kind}"
    if kind == "folder":
        for name, content in names.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
    elif kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in names.items():
                archive.writestr(name, content)
    else:
        if kind == "cls":  # as WebDataset has it
            names = {f"{k:03}.png": png(k) for k in range(COUNT)}
            names |= {f"{k:03}.cls": str(LABELS[k]).encode() for k in range(COUNT)}
            expected, labels, path = {"x": IMAGES}, LABELS, tmp_path / "images.tar"
        with tarfile.open(path, "w") as archive:
            for name, content in names.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    np.savez(tmp_path / "expected.npz", **expected, labels=labels)
    found, classes = similarity(images_net(), path)
    np.testing.assert_array_equal(found, similarity(images_net(), tmp_path / "expected.npz")[0])
    np.testing.assert_array_equal(classes, labels)


@pytest.mark.parametrize("kind", ["zip", "tar", "folder"])
@pytest.mark.parametrize("form", ["npz", "npy"])
def test_an_array_file_per_sample(kind: str, form: str, tmp_path: Path) -> None:
    both = {"x": VECTORS, "z": VECTORS[:, :2].copy()}
    names: dict[str, bytes] = {}
    for k in range(COUNT):
        if form == "npz":
            file = io.BytesIO()
            np.savez(file, **{name: values[k] for name, values in both.items()}, label=LABELS[k])
            names[f"{k:03}.npz"] = file.getvalue()
            continue
        names[f"{k:03}.cls"] = str(LABELS[k]).encode()
        for name, values in both.items():
            file = io.BytesIO()
            np.save(file, values[k])
            names[f"{k:03}.{name}.npy"] = file.getvalue()
    path = tmp_path / f"arrays.{kind}"
    if kind == "folder":
        path.mkdir()
        for name, content in names.items():
            (path / name).write_bytes(content)
    elif kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in names.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(path, "w") as archive:
            for name, content in names.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    assert_same(pairs_net(), path, both, tmp_path)


def test_a_compressed_tar_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz"):
        pass
    with pytest.raises(rt.InputError, match="compressed tar"):
        rt.open_data(tmp_path / "a.tar.gz", images_net())


def test_kinds_are_not_mixed(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(0))
    np.save(tmp_path / "a.npy", VECTORS[0])
    with pytest.raises(rt.InputError, match="1 images, 1 arrays"):
        rt.open_data(tmp_path, images_net())


def test_samples_of_different_sizes_are_refused(tmp_path: Path) -> None:
    net = Net(x=["n", "t", 6])
    model = net.model(net("MatMul", "x", net.weight(6, 2)))
    samples = [VECTORS[: k + 1] for k in range(4)]
    data = rt.open_data(samples, model)
    assert data.inputs([2])["x"].shape == (1, 3, 6)
    with pytest.raises(rt.InputError, match="different sizes of 'x'"):
        data.inputs([0, 1])
