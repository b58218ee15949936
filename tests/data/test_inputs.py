"""Arrays, images and synthetic inputs."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from nets import Net
from onnx import TensorProto, helper
from PIL import Image

import redtest_onnx as rt
from redtest_onnx.data.batching import leading_indices
from redtest_onnx.data.splits import sample_indices
from redtest_onnx.graph.signature import fixed_batch
from redtest_onnx.runtime.session import Session

ROOT = Path(__file__).parents[2]
FOLDERS = (ROOT / "models", ROOT / "tests" / "fixtures", ROOT.parent / "shared" / "models")
FILES = [file for folder in FOLDERS for file in sorted(folder.rglob("*.onnx"))]


def model(*inputs: tuple[str, int, list[object]]) -> rt.Model:
    values = [helper.make_tensor_value_info(*spec) for spec in inputs]  # type: ignore[arg-type]
    node = helper.make_node("Identity", [inputs[0][0]], ["y"])
    out = helper.make_tensor_value_info("y", inputs[0][1], None)
    return rt.Model(helper.make_model(helper.make_graph([node], "g", values, [out]), ir_version=8))


IMAGES = model(("x", TensorProto.FLOAT, ["n", 3, 4, 4]))


def write_images(folder: Path, *, sizes: tuple[tuple[int, int], ...] = ((4, 4),)) -> list[np.ndarray]:
    rng, pixels = np.random.default_rng(0), []
    for k, name in enumerate(("cat/1.png", "cat/2.PNG", "dog/1.png")):
        height, width = sizes[k % len(sizes)]
        image = rng.integers(0, 256, (height, width, 3), np.uint8)
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / name, format="PNG")
        pixels.append(image)
    (folder / "notes.txt").write_text("no image")
    return pixels


def test_folder_and_zip_give_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    pixels = write_images(folder)
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for file in folder.rglob("*"):
            archive.write(file, file.relative_to(folder))
    options = rt.ImageOptions(mean=(0.5, 0.4, 0.3), std=(0.2,))
    for path in (folder, tmp_path / "images.zip"):
        data = rt.open_data(path, IMAGES, images=options)
        assert len(data) == 3
        np.testing.assert_array_equal(data.labels([0, 1, 2]), [0, 0, 1])
        expected = (pixels[2] / 255 - [0.5, 0.4, 0.3]) / 0.2
        np.testing.assert_allclose(
            data.inputs([2])["x"][0], expected.transpose(2, 0, 1), rtol=1e-4, atol=1e-6
        )


def test_channels_last_grey_and_bytes(tmp_path: Path) -> None:
    pixels = write_images(tmp_path)
    last = rt.open_data(tmp_path, model(("x", TensorProto.UINT8, ["n", 4, 4, 3]))).inputs([0])["x"]
    np.testing.assert_array_equal(last[0], pixels[0])
    grey = rt.open_data(tmp_path, model(("x", TensorProto.FLOAT, ["n", 1, 8, 8]))).inputs([0])["x"]
    assert grey.shape == (1, 1, 8, 8)
    assert grey.max() <= 1


def test_images_of_different_sizes_need_a_size(tmp_path: Path) -> None:
    write_images(tmp_path, sizes=((4, 4), (5, 4)))
    free = model(("x", TensorProto.FLOAT, ["n", 3, "h", "w"]))
    with pytest.raises(rt.InputError, match="different sizes"):
        rt.open_data(tmp_path, free).inputs([0, 1])
    sized = rt.open_data(tmp_path, free, images=rt.ImageOptions(size=(6, 7)))
    assert sized.inputs([0, 1])["x"].shape == (2, 3, 6, 7)


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    write_images(tmp_path)
    (tmp_path / "cat" / "1.png").write_bytes(b"no png")
    with pytest.raises(
        rt.InputError, match=r"is not a readable image \(it is of no format that is read: PNG, "
    ) as error:
        rt.open_data(tmp_path, IMAGES).inputs([0])
    assert "cat/1.png" in str(error.value)


def test_images_for_two_inputs_are_refused(tmp_path: Path) -> None:
    write_images(tmp_path)
    two = model(("x", TensorProto.FLOAT, ["n", 3, 4, 4]), ("z", TensorProto.FLOAT, ["n", 2]))
    with pytest.raises(rt.InputError, match="images feed one input"):
        rt.open_data(tmp_path, two)


def test_inputs_with_slashes_in_their_names(tmp_path: Path) -> None:
    net = Net()
    for name in ("enc/a:0", "enc/b:0"):
        net.add_input(name, TensorProto.FLOAT, ["n", 4])
    model = net.model(net("Add", "enc/a:0", "enc/b:0"))
    one, two = (np.full((3, 4), value, np.float32) for value in (1, 2))
    np.savez(tmp_path / "d.npz", **{"enc/a:0": one, "enc/b:0": two, "labels": np.arange(3)})
    found = rt.open_data(tmp_path / "d.npz", model)
    np.testing.assert_array_equal(found.inputs([0])["enc/b:0"], two[:1])
    splits = {f"{split}/{name}": one for split in ("train", "test") for name in ("enc/a:0", "enc/b:0")}
    np.savez(tmp_path / "s.npz", **splits, **{"test/labels": np.arange(3)})
    test = rt.open_data(tmp_path / "s.npz", model, split="test")
    assert test.labelled
    np.testing.assert_array_equal(test.inputs([0])["enc/a:0"], one[:1])
    with pytest.raises(rt.InputError, match="it holds splits alone: train, test") as caught:
        rt.open_data(tmp_path / "s.npz", model)
    assert "a split 'calibration'" in str(caught.value)


def test_splits(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((6, 3, 4, 4), np.float32)
    np.savez(tmp_path / "d.npz", **{"calibration/x": x, "test/x": x[:4], "test/labels": np.arange(4)})
    assert len(rt.open_data(tmp_path / "d.npz", IMAGES)) == 6
    test = rt.open_data(tmp_path / "d.npz", IMAGES, split="test")
    np.testing.assert_array_equal(test.labels([2, 0]), [2, 0])
    with pytest.raises(rt.InputError, match="no split"):
        rt.open_data(tmp_path / "d.npz", IMAGES, split="other")


@pytest.mark.parametrize(
    ("labels", "ok"), [(np.arange(6), True), (np.arange(5), False), (np.arange(6) / 2, False)]
)
def test_labels_are_integers_one_a_sample(tmp_path: Path, labels: np.ndarray, ok: bool) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((6, 3, 4, 4), np.float32), labels=labels)
    if ok:
        assert rt.open_data(tmp_path / "d.npz", IMAGES).labelled
    else:
        with pytest.raises(rt.InputError, match="labels"):
            rt.open_data(tmp_path / "d.npz", IMAGES)


def test_npy_and_safe_conversion(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", np.ones((5, 3, 4, 4)))
    data = rt.open_data(tmp_path / "d.npy", IMAGES)
    assert data.inputs([1])["x"].dtype == np.float32
    assert not data.labelled


def test_arrays_of_different_lengths(tmp_path: Path) -> None:
    two = model(("x", TensorProto.FLOAT, ["n", 2]), ("z", TensorProto.FLOAT, ["n", 2]))
    np.savez(tmp_path / "d.npz", x=np.zeros((5, 2), np.float32), z=np.zeros((6, 2), np.float32))
    with pytest.raises(rt.InputError, match="different numbers"):
        rt.open_data(tmp_path / "d.npz", two)


def test_pickles_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.array([{}], dtype=object))
    with pytest.raises(rt.InputError, match="can't be read"):
        rt.open_data(tmp_path / "d.npz", IMAGES)


def test_synthetic_samples_do_not_depend_on_the_batch() -> None:
    data = rt.open_data(None, IMAGES, seed=3)
    whole = data.inputs([4, 5, 6])["x"]
    np.testing.assert_array_equal(data.inputs([5])["x"][0], whole[1])
    assert not np.array_equal(whole[0], whole[1])
    assert data.synthetic


def test_order_is_seeded_and_without_repeats() -> None:
    data = rt.open_data(None, IMAGES, count=50)
    order = sample_indices(data, 50, 1)
    assert sorted(order) == list(range(50))
    np.testing.assert_array_equal(order[:7], sample_indices(data, 7, 1))
    assert not np.array_equal(order, sample_indices(data, 50, 2))


@pytest.mark.parametrize("file", FILES, ids=lambda p: p.stem)
def test_real_models_run_on_synthetic_inputs(file: Path) -> None:
    loaded = rt.load(file)
    data = rt.open_data(None, loaded)
    feeds = data.inputs([0] if "face" in file.name else range(4))
    outputs = Session(loaded, rt.RunOptions("cpu")).run(feeds)
    assert all(np.isfinite(value).all() for value in outputs.values())


def test_indices_stay_within_their_table() -> None:
    values = [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", "t"])]
    table = onnx.numpy_helper.from_array(np.zeros((5, 2), np.float32), "table")
    node = helper.make_node("Gather", ["table", "ids"], ["y"])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "g", values, [out], [table])
    data = rt.open_data(None, rt.Model(helper.make_model(graph, ir_version=8)))
    ids = data.inputs(range(50))["ids"]
    assert ids.min() == 0
    assert ids.max() == 4


def test_what_does_not_fit_the_type_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.full((5, 2), 2**40 + 7))
    with pytest.raises(rt.InputError, match="beyond that type"):
        rt.open_data(tmp_path / "d.npz", model(("x", TensorProto.INT32, ["n", 2])))


def test_shadows_of_macos_are_no_images(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    write_images(folder)
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for file in folder.rglob("*.png"):
            archive.write(file, file.relative_to(folder))
            archive.writestr(f"__MACOSX/{file.parent.name}/._{file.name}", b"shadow")
    data = rt.open_data(tmp_path / "images.zip", IMAGES)
    assert len(data) == 2
    np.testing.assert_array_equal(data.labels([0, 1]), [0, 1])


def test_a_zero_standard_deviation_is_refused(tmp_path: Path) -> None:
    write_images(tmp_path)
    with pytest.raises(rt.InputError, match="zero"):
        rt.open_data(tmp_path, IMAGES, images=rt.ImageOptions(std=(1, 0, 1)))


def test_a_corrupt_array_header_is_an_input_error(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", np.zeros((4, 3, 4, 4), np.float32))
    content = (tmp_path / "d.npy").read_bytes()
    (tmp_path / "d.npy").write_bytes(content.replace(b"'descr'", b"(descr("))
    with pytest.raises(rt.InputError, match="can't be read"):
        rt.open_data(tmp_path / "d.npy", IMAGES)


def test_fewer_samples_than_a_fixed_batch(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.random.default_rng(0).random((5, 3, 4, 4), np.float32))
    assert fixed_batch(model(("x", TensorProto.FLOAT, [8, 3, 4, 4]))) == 8
    data = rt.open_data(tmp_path / "d.npz", IMAGES)
    assert data.inputs(leading_indices(8, len(data)))["x"].shape == (8, 3, 4, 4)


def test_states_and_vectors_do_not_fix_the_batch() -> None:
    two = model(("lengths", TensorProto.FLOAT, [1]), ("x", TensorProto.FLOAT, ["n", 2]))
    assert fixed_batch(two) is None
    hidden = model(("encoder_hidden_states", TensorProto.FLOAT, ["n", 4, 8]))
    assert rt.open_data(None, hidden).inputs([0])["encoder_hidden_states"].any()


def test_a_size_that_the_model_does_not_take_is_refused(tmp_path: Path) -> None:
    write_images(tmp_path)
    with pytest.raises(rt.InputError, match="size='8x4'"):
        rt.open_data(tmp_path, IMAGES, images=rt.ImageOptions(size=(8, 4)))
    assert rt.open_data(tmp_path, IMAGES, images=rt.ImageOptions(size=(4, 4))).inputs([0])


def test_signed_bytes_are_shifted(tmp_path: Path) -> None:
    pixels = write_images(tmp_path)
    signed = model(("x", TensorProto.INT8, ["n", 4, 4, 3]))
    shifted = rt.open_data(tmp_path, signed).inputs([0])["x"][0]
    np.testing.assert_array_equal(shifted, pixels[0].astype(np.int16) - 128)
    with pytest.raises(rt.InputError, match="the model takes int8"):
        rt.open_data(tmp_path, signed, images=rt.ImageOptions(mean=(0,))).inputs([0])


@pytest.mark.parametrize("channels", [1, 3])
def test_deep_pixels_keep_their_scale(tmp_path: Path, channels: int) -> None:
    deep = np.linspace(0, 65535, 16).astype(np.uint16).reshape(4, 4)
    Image.fromarray(deep).save(tmp_path / "a.png")
    values = rt.open_data(tmp_path, model(("x", TensorProto.FLOAT, ["n", channels, 4, 4]))).inputs([0])["x"]
    np.testing.assert_allclose(values[0], np.broadcast_to(deep / 65535, (channels, 4, 4)), atol=1e-6)
