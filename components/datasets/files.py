"""Looks at image files: do they exist, are they whole, how large are they; without torch."""

import os
import struct
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from components.datasets.findings import Findings
from components.vision.image_sets import ImageSet

Size = tuple[int, int]
"""Width and height, pixels."""

_THREADS = 8
_TAIL = 4096  # some writers add a few bytes after the end mark
_ENDS = {b"\xff\xd8": (b"\xff\xd9", "JPEG"), b"\x89P": (b"IEND", "PNG")}
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def check_files(
    root: Path,
    names: Iterable[tuple[str, object, Size | None]],
    findings: Findings,
    *,
    decode: bool,
) -> None:
    """Check image files in parallel, and report in the order given.

    Args:
        root: The data set's folder.
        names: For each image its file name, its id, and the size that it should have.
        findings: Where faults go.
        decode: Whether to decode them.
    """

    def look(item: tuple[str, object, Size | None]) -> str | None:
        name, _, size = item
        return image_fault(root / name, size, decode=decode)

    items = list(names)
    with ThreadPoolExecutor(_THREADS) as pool:
        for (name, identity, _), message in zip(items, pool.map(look, items), strict=True):
            if message:
                findings.fault(name, message, identity)


def check_decoding(images: ImageSet, findings: Findings) -> None:
    """Decode every image of a set, wherever it lies."""
    with ThreadPoolExecutor(_THREADS) as pool:
        paths = (Path(images.path(index)) for index in range(len(images)))
        for index, message in enumerate(pool.map(_decoding_fault, paths)):
            if message:
                findings.fault(
                    images.files[index].partition("@")[0], message, images.image_id(index)
                )


def image_fault(path: Path, size: Size | None, *, decode: bool) -> str | None:
    """Return what is wrong with an image file, if anything is.

    Args:
        path: Of the file.
        size: That it should have, if that is known.
        decode: Whether to decode it.
    """
    try:
        head, message = _ends_fault(path)
        actual = image_size(path) if size and not message else None
    except FileNotFoundError:
        return "does not exist"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if size and actual and actual != size:
        return f"is {actual[0]}×{actual[1]} pixels, the annotation says {size[0]}×{size[1]}"
    if message is None and (decode or head not in _ENDS):
        return _decoding_fault(path)
    return message


@cache
def can_decode() -> bool:
    """Tell whether an image library is installed; the check of a layout needs none."""
    return find_spec("simplejpeg") is not None and find_spec("PIL") is not None


def image_size(path: Path) -> Size | None:
    """Read the size of a JPEG or PNG from its header; None for other formats."""
    with path.open("rb") as file:
        head = file.read(24)
        if head.startswith(b"\x89PNG") and len(head) == 24:
            width, height = struct.unpack(">II", head[16:24])
            return width, height
        if not head.startswith(b"\xff\xd8"):
            return None
        file.seek(2)
        while len(segment := file.read(4)) == 4 and segment[0] == 0xFF:
            length = struct.unpack(">H", segment[2:])[0]
            if segment[1] in _FRAME_MARKERS:
                frame = file.read(5)
                height, width = struct.unpack(">HH", frame[1:])
                return width, height
            file.seek(length - 2, os.SEEK_CUR)
    return None


def _ends_fault(path: Path) -> tuple[bytes, str | None]:
    """Return a file's first two bytes, and what they and its last ones betray."""
    with path.open("rb") as file:
        length = os.fstat(file.fileno()).st_size
        head = file.read(2)
        if not length:
            return head, "is empty"
        if head in _ENDS:
            file.seek(max(0, length - _TAIL))
            mark, format_name = _ENDS[head]
            if mark not in file.read():
                return head, f"is a truncated {format_name}: its end is missing ({length} bytes)"
    return head, None


def _decoding_fault(path: Path) -> str | None:
    if not can_decode():
        return None
    from components.vision.decoding import CorruptImageError, read_image

    try:
        read_image(path)
    except CorruptImageError as error:
        return f"cannot be decoded: {error}"
    return None
