"""From the bytes of an image file to RGB, exactly as the usual Pillow loader reads them."""

import io
import os
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, UnidentifiedImageError

from components.core.errors import DataError
from components.core.store.shards import stored_shards

Pixels = npt.NDArray[np.uint8]
"""An RGB image, (height, width, 3)."""

_PART = re.compile(r"(.+\.tar)@(\d+)\+(\d+)")
MAX_PIXELS = 178_956_970  # where Pillow, too, takes an image for a decompression bomb


class CorruptImageError(DataError):
    """An image file that cannot be read; the message says why."""


def read_image(path: str | Path) -> Pixels:
    """Read an image file as RGB.

    Grey, palette and CMYK images are converted, and EXIF rotation is not applied:
    that is how the images of the published results were read.

    Raises:
        CorruptImageError: if the file is missing, empty, truncated, or not an image.
    """
    return decode_image(read_bytes(path))


def read_bytes(path: str | Path) -> bytes:
    """Read an image file, or what `PATH.tar@OFFSET+SIZE` names: a part of a tar file.

    Raises:
        CorruptImageError: if it is missing, or the tar file ends before it.
        StoreError: if the tar file is in a bucket and cannot be read there.
    """
    part = _PART.fullmatch(str(path))
    try:
        if part is None:
            return Path(path).read_bytes()
        archive, offset, size = part[1], int(part[2]), int(part[3])
        with open(archive, "rb", buffering=0) as file:  # noqa: PTH123 - for each image, so plainly
            data = os.pread(file.fileno(), size, offset)
    except OSError as error:
        stored = None if part is None else _read_stored(part[1], int(part[2]), int(part[3]))
        if stored is None:
            raise CorruptImageError(error.strerror or str(error)) from None
        return stored
    if len(data) < size:
        raise CorruptImageError(f"the shard ends {size - len(data):,} bytes before the image does")
    return data


def _read_stored(archive: str, offset: int, size: int) -> bytes | None:
    """Read a part of a shard that is in a bucket; None if it is in none."""
    folder, beside, name = archive.partition("/../")
    if beside:  # the split's folder
        name = f"../{name}"
    else:
        folder, _, name = archive.rpartition("/")
    stored = stored_shards(Path(folder))
    return None if stored is None else stored.read(name, offset, size)


def read_size(path: str | Path) -> tuple[int, int]:
    """Return height and width of an image from its header; 0, 0 of one that cannot be read."""
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError):
        return 0, 0


def decode_image(data: bytes) -> Pixels:
    """Decode an image as RGB; JPEG by libjpeg-turbo, everything else by Pillow.

    Raises:
        CorruptImageError: if the bytes are empty, truncated, or not an image.
    """
    if not data:
        raise CorruptImageError("the file is empty")
    if data[:2] == b"\xff\xd8":
        try:
            height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
            if colours in ("YCbCr", "RGB", "Gray") and height * width <= MAX_PIXELS:
                pixels: Pixels = simplejpeg.decode_jpeg(data)
                return pixels
        except ValueError:
            pass  # a flaw that libjpeg can mend, or real damage: Pillow decides
    return _decode_by_pillow(data)


def _decode_by_pillow(data: bytes) -> Pixels:
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.array(_in_eight_bits(image).convert("RGB"))
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        reason = "not an image" if isinstance(error, UnidentifiedImageError) else str(error)
        raise CorruptImageError(reason) from None


def _in_eight_bits(image: Image.Image) -> Image.Image:
    """Return grey values of 16 bits in 8, which Pillow would cut off at 255.

    Raises:
        ValueError: if what is black and what is white cannot be known.
    """
    if image.mode == "F" or image.mode.startswith("I"):
        values = np.array(image)
        if image.mode == "F" or values.min() < 0 or values.max() >= 1 << 16:
            raise ValueError(
                "its pixels are not whole numbers of 8 or 16 bits, so that nobody knows what is "
                "white: convert it to 8 bits"
            )
        return Image.fromarray((values.astype(np.uint16) >> 8).astype(np.uint8))
    return image
