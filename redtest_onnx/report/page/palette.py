"""A picture of numbers from 0 to 1 as a PNG with a palette, without a package that draws."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import numpy.typing as npt

# Stops of the map "viridis", as in base.js: it keeps its order in print and for the colour-blind.
STOPS = (
    *("440154", "482475", "414487", "355f8d", "2a788e", "21918c"),
    *("22a884", "44bf70", "7ad151", "bddf26", "fde725"),
)
_COLOURS = 63
_UNDEFINED = (153, 153, 153)


def palette() -> npt.NDArray[np.uint8]:
    """[64, 3] RGB: 63 colours from 0 to 1, then that of undefined values."""
    stops = np.array([[int(stop[k : k + 2], 16) for k in (0, 2, 4)] for stop in STOPS], np.float64)
    places = np.linspace(0, len(stops) - 1, _COLOURS)
    colours = [np.interp(places, np.arange(len(stops)), stops[:, channel]) for channel in range(3)]
    return np.vstack([np.rint(np.stack(colours, axis=1)), _UNDEFINED]).astype(np.uint8)


def png(values: npt.NDArray[np.float64]) -> bytes:
    """The PNG of [H, W] values: 0 and below dark, 1 and above bright, NaN grey; a pixel a value."""
    index = np.full(values.shape, _COLOURS, np.uint8)
    defined = np.isfinite(values)
    index[defined] = np.rint(np.clip(values[defined], 0, 1) * (_COLOURS - 1)).astype(np.uint8)
    rows = np.hstack([np.zeros((len(index), 1), np.uint8), index])  # each row begins with its filter: none
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 8, 3, 0, 0, 0)
    chunks = (
        (b"IHDR", header),
        (b"PLTE", palette().tobytes()),
        (b"IDAT", zlib.compress(rows.tobytes(), 9)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    """Length, kind, content and checksum, as the PNG specification (ISO/IEC 15948) lays a chunk out."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
