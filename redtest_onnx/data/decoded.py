"""Images that are decoded once, by several threads, and kept as bytes for the passes that follow."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from redtest_onnx.data.dataset import Chosen
from redtest_onnx.data.image_pipeline import Pixels

KEPT_BYTES = 1 << 27
"""Bytes of pixels that are kept without a workbench, which sets its own limit."""
_FEW = 4  # images that are not worth waking threads for


class DecodedImages:
    """Pixels of images by their number, decoded when they are first asked for.

    Attributes:
        limit: bytes of pixels to keep.
        threads: how many decode.
    """

    def __init__(self) -> None:
        self.limit = KEPT_BYTES
        self.threads = 1
        self._kept: dict[int, Pixels] = {}
        self._bytes = 0

    def get(
        self, numbers: Chosen, read: Callable[[int], bytes], decode: Callable[[int, bytes], Pixels]
    ) -> list[Pixels]:
        """Pixels of some images, in this order.

        Args:
            numbers: which ones.
            read: gives the bytes of an image; called on this thread, since archives are read in turn.
            decode: makes pixels of the bytes; called on several threads.

        Raises:
            InputError: as `read` and `decode`; of several that can't be decoded, the first.
        """
        wanted = [int(number) for number in numbers]
        missing = [number for number in dict.fromkeys(wanted) if number not in self._kept]
        fresh = dict(zip(missing, self._decoded(missing, read, decode), strict=True))
        found = [fresh[number] if number in fresh else self._kept[number] for number in wanted]
        for number, pixels in fresh.items():
            if self._bytes + pixels.nbytes <= self.limit:
                self._kept[number] = pixels
                self._bytes += pixels.nbytes
        return found

    def _decoded(
        self, numbers: list[int], read: Callable[[int], bytes], decode: Callable[[int, bytes], Pixels]
    ) -> Iterable[Pixels]:
        contents = ((number, read(number)) for number in numbers)
        if self.threads == 1 or len(numbers) <= _FEW:
            return [decode(number, content) for number, content in contents]
        # Pillow lets go of the interpreter's lock while it decodes and resizes.
        with ThreadPoolExecutor(self.threads) as pool:
            return list(pool.map(lambda pair: decode(*pair), contents))
