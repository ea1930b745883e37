"""Reads images of shards in a bucket ahead of whoever decodes them, within a bound of memory."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

from components.vision.image_sets import ImageSet
from components.vision.sampling import Key

CONNECTIONS = 16  # requests at a time
_LARGEST = 8 << 20  # bytes of a request
_GAP = 4 << 10  # bytes between two images that are read along rather than asked for anew
_GROWTH = 4  # of windows, from one batch on


class Parts(Protocol):
    """Gives parts of shards; it may be asked by several threads."""

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Return `size` bytes of a shard from `offset` on."""
        ...


class Fetched(list[Key]):
    """The samples of a batch with the encoded images of them, by index."""

    def __init__(self, keys: Iterable[Key], content: dict[int, bytes]) -> None:
        super().__init__(keys)
        self.content = content


@dataclass(eq=False)
class _Request:
    """A part of a shard with images in it.

    Attributes:
        shard: Its name.
        first: Byte of the first image.
        end: Byte after the last image.
        images: First byte and end of each, by index.
    """

    shard: str
    first: int
    end: int
    images: dict[int, tuple[int, int]] = field(default_factory=dict)

    def takes(self, shard: str, first: int, end: int) -> bool:
        """Say whether an image that comes after the others is near enough."""
        near = shard == self.shard and 0 <= first - self.end <= _GAP
        return near and end - self.first <= _LARGEST

    def read(self, parts: Parts) -> bytes:
        return parts.read(self.shard, self.first, self.end - self.first)

    def image(self, index: int, data: bytes) -> bytes:
        """Return an image of what was read."""
        first, end = self.images[index]
        return data[first - self.first : end - self.first]


class Stream:
    """Gives the batches of a loader with the bytes of their images.

    It reads a window of batches at once, so that images that are neighbours in a shard are one
    request, while the window before is used. The first windows are small: the first batch does not
    wait for others.
    """

    def __init__(self, images: ImageSet, parts: Parts, ahead: int) -> None:
        """Ask for nothing yet.

        Args:
            images: The set.
            parts: Gives what is in its shards.
            ahead: Bytes of images to hold at most, but for two batches.
        """
        self._images = images
        self._parts = parts
        self._window = ahead // 2

    def fetch(self, batches: Iterable[Sequence[Key]]) -> Iterator[Fetched]:
        """Yield each batch when its images are there.

        Raises:
            StoreError: if they cannot be had, as `Store.read_part`.
        """
        pool = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="stream")
        try:
            before: Iterator[Fetched] = iter(())
            for window in self.windows(batches):
                coming = self._begin(window, pool)
                yield from before
                before = coming
            yield from before
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def windows(self, batches: Iterable[Sequence[Key]]) -> Iterator[list[Sequence[Key]]]:
        """Part batches into windows, each at most so many times as long as the one before it."""
        window: list[Sequence[Key]] = []
        longest, size = 1, 0
        for batch in batches:
            window.append(batch)
            size += len(batch) * self._images.shard_bytes
            average = size / len(window)
            if len(window) == longest or size + average > self._window:
                yield window
                window, longest, size = [], _GROWTH * len(window), 0
        if window:
            yield window

    def _begin(
        self, window: Sequence[Sequence[Key]], pool: ThreadPoolExecutor
    ) -> Iterator[Fetched]:
        """Ask for the images of a window, the first batch's first; return the batches to come."""
        requests = self.requests({index for batch in window for _, index in batch})
        asked: dict[_Request, Future[bytes]] = {}
        for batch in window:
            for _, index in batch:
                request = requests[index]
                if request not in asked:
                    asked[request] = pool.submit(request.read, self._parts)

        def image(index: int) -> bytes:
            request = requests[index]
            return request.image(index, asked[request].result())

        return (Fetched(batch, {index: image(index) for _, index in batch}) for batch in window)

    def requests(self, indices: Iterable[int]) -> dict[int, _Request]:
        """Put images that lie side by side into one request; return that of each image."""
        requests: dict[int, _Request] = {}
        request: _Request | None = None
        for shard, first, end, index in sorted((*self._place(index), index) for index in indices):
            if request is None or not request.takes(shard, first, end):
                request = _Request(shard, first, end)
            request.end = end
            request.images[index] = first, end
            requests[index] = request
        return requests

    def _place(self, index: int) -> tuple[str, int, int]:
        """Return the shard of an image, its first byte, and the one after its last."""
        shard, _, part = self._images.files[index].rpartition("@")
        offset, _, size = part.partition("+")
        return shard, int(offset), int(offset) + int(size)
