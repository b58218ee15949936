"""The head of an .npy file, held against what a file from anywhere may claim."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, BinaryIO

import numpy as np

_MOST_AXES = 64


@dataclass(frozen=True)
class NpyHeader:
    """What an .npy file says of its array.

    Attributes:
        shape: sizes, none negative.
        fortran: whether the first axis varies fastest.
        dtype: of the elements, no Python objects.
        offset: where the values begin, in bytes from the start of the header.
    """

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]
    offset: int

    @classmethod
    def read(cls, file: BinaryIO) -> NpyHeader:
        """Read the header at the place where the file stands.

        Raises:
            ValueError: it is none, holds Python objects, or has sizes that can't be.
        """
        start = file.tell()
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        elif version in ((2, 0), (3, 0)):
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
        else:
            raise ValueError(f"version {version} of the format is not known")
        if dtype.hasobject:
            raise ValueError("it holds Python objects, which would have to be run to be read")
        if any(size < 0 for size in shape) or len(shape) > _MOST_AXES:
            raise ValueError(f"its sizes {list(shape)[:8]} can't be")
        return cls(tuple(map(int, shape)), bool(fortran), dtype, file.tell() - start)

    @property
    def nbytes(self) -> int:
        """Size of the values."""
        return prod(self.shape) * self.dtype.itemsize
