"""Data from anywhere: what is refused, what is read no further than needed, images as people have them."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper
from PIL import Image

import redtest_onnx as rt
from redtest_onnx.data import inflated, npz

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8)


def model(*sizes: int | str, kind: int = TensorProto.FLOAT) -> rt.Model:
    value = helper.make_tensor_value_info
    inputs, outputs = [value("x", kind, sizes)], [value("y", kind, None)]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", inputs, outputs)
    return rt.Model(helper.make_model(graph))


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n"
IMAGES = model("n", 3, 4, 4)


def opened(path: Path, **options: object) -> np.ndarray:
    return rt.open_data(path, IMAGES, images=rt.ImageOptions(scale=1.0, **options)).inputs([0])["x"][0]


def npy(sizes: tuple[int, ...], content: bytes = bytes(64)) -> bytes:
    file = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": sizes}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + content


def test_data_without_samples(tmp_path: Path) -> None:
    nothing = np.zeros((0, 4), np.float32)
    np.save(tmp_path / "d.npy", nothing)
    np.savez(tmp_path / "d.npz", x=nothing, labels=np.zeros(0, np.int64))
    np.savez(tmp_path / "s.npz", **{"test/x": nothing, "train/x": np.ones((2, 4), np.float32)})
    for data, split in (
        (tmp_path / "d.npy", None),
        (tmp_path / "d.npz", None),
        (tmp_path / "s.npz", "test"),
        ({"x": nothing}, None),
    ):
        with pytest.raises(rt.InputError, match="no samples"):
            rt.open_data(data, model("n", 4), split=split)


@pytest.mark.parametrize("sizes", [(-1, 4), (4, -4), (-2, -2), (2**40, 2**40), (5, 4), (2**63, 4)])
def test_sizes_that_can_not_be(sizes: tuple[int, ...], tmp_path: Path) -> None:
    (tmp_path / "d.npy").write_bytes(npy(sizes))
    with pytest.raises(rt.InputError, match="can't be read"):
        rt.open_data(tmp_path / "d.npy", model("n", 4))
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(tmp_path / "d.npz", "w", compression) as archive:
            archive.writestr("x.npy", npy(sizes))
        with pytest.raises(rt.InputError, match="can't be read"):
            rt.open_data(tmp_path / "d.npz", model("n", 4))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")
@pytest.mark.parametrize("suffix", ["npz", "npy", "zip"])
def test_what_never_ends_is_refused(suffix: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / f"pipe.{suffix}")
    (tmp_path / f"zero.{suffix}").symlink_to("/dev/zero")
    for name in ("pipe", "zero"):
        with pytest.raises(rt.InputError, match="a device, a pipe or a socket"):
            rt.open_data(tmp_path / f"{name}.{suffix}", IMAGES)
    (tmp_path / "m.onnx").symlink_to("/dev/zero")
    with pytest.raises(rt.InputError, match="a device, a pipe or a socket"):
        rt.load(tmp_path / "m.onnx")


@pytest.mark.parametrize("fortran", [False, True])
def test_large_members_are_inflated_as_far_as_needed(
    fortran: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(npz, "_IN_MEMORY", 1000)
    monkeypatch.setattr(inflated, "_CHUNK", 100)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    values = np.random.default_rng(0).random((500, 3, 4, 4), np.float32)
    np.savez_compressed(tmp_path / "d.npz", x=np.asfortranarray(values) if fortran else values)
    data = rt.open_data(tmp_path / "d.npz", IMAGES)
    for rows in ([3, 1], [7], [499, 0, 2]):
        np.testing.assert_array_equal(data.inputs(rows)["x"], values[rows])
    again = npz.Npz(tmp_path / "d.npz").read("x")
    assert isinstance(again, inflated.InflatedArray)
    again.take(np.array([5, 2]), 0)
    assert again._done == (values.nbytes if fortran else 6 * values[0].nbytes)


def test_a_small_file_of_a_huge_array_takes_little_memory(tmp_path: Path) -> None:
    """256 MiB of zeros in 260 kB, of which eight samples are wanted."""
    rows = 1024
    with (
        zipfile.ZipFile(tmp_path / "d.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("x.npy", "w", force_zip64=True) as member,
    ):
        member.write(npy((rows, 65536), b""))
        for _ in range(rows):
            member.write(bytes(256 << 10))
    code = (
        "import sys, resource, numpy as np\nfrom pathlib import Path\nfrom redtest_onnx.data.npz import Npz\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "Npz(Path(sys.argv[1])).read('x').take(np.arange(8), 0)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    pytest.importorskip("resource")
    found = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "d.npz")], capture_output=True, text=True, check=True
    )
    assert int(found.stdout) < 64 << 10  # in KiB


def test_a_member_that_is_shorter_than_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npz, "_IN_MEMORY", 1000)
    np.savez_compressed(tmp_path / "d.npz", x=np.random.default_rng(0).random((500, 3, 4, 4), np.float32))
    content = (tmp_path / "d.npz").read_bytes()
    broken = bytearray(content)
    broken[len(content) // 2] ^= 255
    (tmp_path / "d.npz").write_bytes(broken)
    data = rt.open_data(tmp_path / "d.npz", IMAGES)
    with pytest.raises(rt.InputError, match="can't be read"):
        data.inputs([499])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_that_cameras_note_is_applied(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(PIXELS).save(tmp_path / "a.png", exif=exif)
    turned = {
        1: PIXELS,
        2: PIXELS[:, ::-1],
        3: PIXELS[::-1, ::-1],
        4: PIXELS[::-1],
        5: PIXELS.swapaxes(0, 1),
        6: np.rot90(PIXELS, -1),
        7: PIXELS[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(PIXELS),
    }
    np.testing.assert_array_equal(opened(tmp_path), turned[orientation].transpose(2, 0, 1))


@pytest.mark.parametrize("suffix", ["png", "webp", "tiff"])
def test_what_is_transparent_lies_on_white(suffix: str, tmp_path: Path) -> None:
    alpha = np.array([[255, 0], [255, 0]], np.uint8).repeat(2, 0).repeat(2, 1)
    image = Image.fromarray(np.dstack([PIXELS, alpha]))
    image.save(tmp_path / f"a.{suffix}", **({"lossless": True, "exact": True} if suffix == "webp" else {}))
    expected = np.where(alpha[..., None] == 255, PIXELS, 255)
    np.testing.assert_array_equal(opened(tmp_path), expected.transpose(2, 0, 1))


def test_palettes_with_a_transparent_colour(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8).repeat(2, 0).repeat(2, 1), "P")
    image.putpalette([10, 20, 30, 200, 100, 0])
    image.save(tmp_path / "a.gif", transparency=1)
    assert set(map(tuple, opened(tmp_path).reshape(3, -1).T)) == {(10, 20, 30), (255, 255, 255)}


@pytest.mark.parametrize("suffix", ["gif", "tiff", "webp", "png", "bmp", "jpg"])
def test_formats(suffix: str, tmp_path: Path) -> None:
    grey = np.full((4, 4), 77, np.uint8)
    Image.fromarray(grey).save(tmp_path / f"a.{suffix}")
    np.testing.assert_allclose(opened(tmp_path), 77, atol=2)


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_sixteen_bits(suffix: str, tmp_path: Path) -> None:
    deep = np.linspace(0, 65535, 16).astype(np.uint16).reshape(4, 4)
    Image.fromarray(deep).save(tmp_path / f"a.{suffix}")
    np.testing.assert_allclose(opened(tmp_path), np.broadcast_to(deep / 257, (3, 4, 4)), atol=1e-3)


def several(path: Path) -> None:
    frames = [Image.fromarray(PIXELS), Image.fromarray(255 - PIXELS)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("a.gif", several, "2 pictures"),
        ("a.tiff", several, "2 pictures"),
        ("a.tif", lambda path: Image.fromarray(np.zeros((4, 4), np.float32)).save(path), "no known range"),
        ("a.png", lambda path: path.write_bytes(POSTSCRIPT), "no format that is read"),
        ("a.png", lambda path: Image.new("1", (12_000, 10_000)).save(path), "pixels"),
    ],
    ids=["animation", "pages", "floats", "postscript", "bomb"],
)
def test_what_is_no_picture_of_known_numbers_is_refused(
    name: str, write: object, message: str, tmp_path: Path
) -> None:
    write(tmp_path / name)  # type: ignore[operator]
    with pytest.raises(rt.InputError, match=message) as caught:
        opened(tmp_path)
    assert name in str(caught.value)


def test_a_damaged_member_of_a_zip_is_named(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "PNG")
    with zipfile.ZipFile(tmp_path / "d.zip", "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("0/a.png", file.getvalue())
    content = (tmp_path / "d.zip").read_bytes()
    for old, new in ((b"IDAT", b"IDAX"), (b"0/a.png", b"0/b.png")):
        (tmp_path / "d.zip").write_bytes(content.replace(old, new, 1))
        with pytest.raises(rt.InputError, match=r"0/a\.png.*can't be read"):
            rt.open_data(tmp_path / "d.zip", IMAGES).inputs([0])
