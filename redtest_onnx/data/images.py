"""Samples in folders, zips and tars of images; labels are class subfolders, or files `.cls` beside images."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from redtest_onnx.data.dataset import Chosen, Feeds
from redtest_onnx.data.decoded import DecodedImages
from redtest_onnx.data.image_pipeline import ImageOptions as ImageOptions
from redtest_onnx.data.image_pipeline import ImagePipeline, Pixels
from redtest_onnx.data.members import Members, open_members, with_suffix
from redtest_onnx.data.pixels import SUFFIXES
from redtest_onnx.errors import InputError
from redtest_onnx.graph.model import Model

log = logging.getLogger(__name__)

IMAGES = SUFFIXES


@dataclass(frozen=True)
class ImageData:
    """Images decoded when asked for.

    Attributes:
        source: what messages call them.
        names: of the images.
        classes: [n]; None where nothing tells them.
        read: the bytes of an image.
        pipeline: what is done with each.
        decoded: those that were decoded before.
    """

    source: str
    names: tuple[str, ...]
    classes: npt.NDArray[np.int64] | None
    read: Callable[[str], bytes]
    pipeline: ImagePipeline
    synthetic: bool = False
    of_images: ClassVar[bool] = True
    decoded: DecodedImages = field(default_factory=DecodedImages, repr=False, compare=False)

    @property
    def labelled(self) -> bool:
        """Whether the images have classes."""
        return self.classes is not None

    @property
    def preparation(self) -> str:
        """What is done to the images, in words."""
        return str(self.pipeline)

    @property
    def fits(self) -> bool:
        """Whether none of some images is resized, as far as their size was not asked for."""
        count = len(self.names)
        chosen = {0, count // 2, count - 1}
        return all(self.pipeline.fits(self.read(self.names[k])) for k in chosen)

    def __len__(self) -> int:
        return len(self.names)

    def inputs(self, indices: Chosen) -> Feeds:
        """The chosen images, decoded and normalised."""

        def decode(k: int, content: bytes) -> Pixels:
            return self.pipeline.decode(content, f"{self.source}/{self.names[k]}")

        images = self.decoded.get(indices, lambda k: self.read(self.names[k]), decode)
        return {self.pipeline.input.name: self.pipeline.batch(images, self.source)}

    def labels(self, indices: Chosen) -> npt.NDArray[np.int64] | None:
        """Classes of the chosen images."""
        return None if self.classes is None else self.classes[np.asarray(indices)]


def open_images(path: Path, model: Model, options: ImageOptions, members: Members | None = None) -> ImageData:
    """Open a folder, .zip or .tar of images without decoding any.

    Args:
        path: where they are.
        model: takes one image per sample.
        options: how they become inputs.
        members: the files at `path`, if they are known.

    Raises:
        InputError: no images, or the model doesn't take a single image.
    """
    if len(model.inputs) != 1:
        names = ", ".join(spec.name for spec in model.inputs)
        raise InputError(
            f"images feed one input, the model has {names}",
            where=str(path),
            hint="write an .npz with an array for each of them",
        )
    pipeline = ImagePipeline.of(model.inputs[0], options)
    members = members or open_members(path)
    found = with_suffix(members.names, IMAGES)
    if not found:
        raise InputError("holds no images", where=str(path), hint=f"known are {', '.join(sorted(IMAGES))}")
    classes = numbered_classes(found, members)
    beside = 0 if classes is None else len(found)
    if rest := len(members.names) + members.left_out - len(found) - beside:
        log.info("%s: %d files are no images and are left out", path, rest)
    if classes is None:
        classes = folder_classes(found)
    return ImageData(str(path), tuple(found), classes, members.read, pipeline)


def folder_classes(names: list[str]) -> npt.NDArray[np.int64] | None:
    """Class of each file by its folder, folders in the order of their names; None if all lie in one."""
    folders = [PurePosixPath(name).parent for name in names]
    order = {folder: k for k, folder in enumerate(sorted(set(folders)))}
    if len(order) < 2:
        return None
    return np.array([order[folder] for folder in folders], np.int64)


def numbered_classes(names: list[str], members: Members) -> npt.NDArray[np.int64] | None:
    """Class of each sample from the file `.cls` of the same name, as WebDataset has it; None without any.

    Raises:
        InputError: some samples have such a file and others don't, or one holds no number.
    """
    known = set(members.names)
    beside = [f"{key(name)}.cls" for name in names]
    there = [name in known for name in beside]
    if not any(there):
        return None
    if not all(there):
        raise InputError(
            f"{names[there.index(False)]} has no class, other samples have", where=members.source
        )
    classes = []
    for name in beside:
        try:
            classes.append(int(members.read(name)))
        except ValueError as error:
            raise InputError("holds no class number", where=f"{members.source}/{name}") from error
    return np.array(classes, np.int64)


def key(name: str) -> str:
    """What the files of a sample share: the path up to the first dot of the file's name."""
    path = PurePosixPath(name)
    return (path.parent / path.name.partition(".")[0]).as_posix()
