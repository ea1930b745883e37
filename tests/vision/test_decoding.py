import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets.folder import pil_loader

from components.core.errors import ExitCode
from components.vision.decoding import CorruptImageError, Pixels, decode_image, read_image


@pytest.mark.parametrize(
    ("mode", "file_format"),
    [
        ("RGB", "JPEG"),
        ("L", "JPEG"),
        ("CMYK", "JPEG"),
        ("RGB", "PNG"),
        ("L", "PNG"),
        ("RGB", "BMP"),
    ],
)
def test_images_are_read_as_torchvision_reads_them(
    photographs: list[Pixels], tmp_path: Path, mode: str, file_format: str
) -> None:
    path = tmp_path / "image.jpg"
    Image.fromarray(photographs[0]).convert(mode).save(path, format=file_format)

    np.testing.assert_array_equal(read_image(path), np.asarray(pil_loader(str(path))))


def test_a_palette_with_transparency_is_read_as_rgb(
    photographs: list[Pixels], tmp_path: Path
) -> None:
    path = tmp_path / "image.png"
    image = Image.fromarray(photographs[0]).quantize(16)
    image.save(path, transparency=3)

    np.testing.assert_array_equal(read_image(path), np.asarray(pil_loader(str(path))))


def test_the_exif_rotation_is_not_applied(photographs: list[Pixels]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(photographs[0]).save(buffer, format="JPEG", exif=exif)

    assert decode_image(buffer.getvalue()).shape == photographs[0].shape


@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_a_truncated_image_is_corrupt(photographs: list[Pixels], file_format: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(photographs[0]).save(buffer, format=file_format)
    data = buffer.getvalue()

    with pytest.raises(CorruptImageError, match="truncated"):
        decode_image(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"", "empty"), (b"not an image", "not an image"), (b"\xff\xd8\xff\xe0", ".")],
)
def test_what_is_no_image_is_corrupt_and_says_why(data: bytes, reason: str) -> None:
    with pytest.raises(CorruptImageError, match=reason) as caught:
        decode_image(data)
    assert caught.value.exit_code == ExitCode.BAD_DATA


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_grey_values_of_sixteen_bits_are_read_in_eight(tmp_path: Path, file_format: str) -> None:
    values = np.linspace(0, 2**16 - 1, 12 * 16).astype(np.uint16).reshape(12, 16)
    path = tmp_path / "image"
    Image.fromarray(values).save(path, format=file_format)

    pixels = read_image(path)

    np.testing.assert_array_equal(pixels, np.repeat((values >> 8)[..., None], 3, axis=2))
    assert abs(pixels.mean() - 127) < 1


def test_pixels_of_which_nobody_knows_what_is_white_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "image.tiff"
    for values in (np.full((4, 4), 0.5, np.float32), np.full((4, 4), 2**20, np.int32)):
        Image.fromarray(values).save(path)
        with pytest.raises(CorruptImageError, match="convert it to 8 bits"):
            read_image(path)


def test_a_missing_file_is_corrupt(tmp_path: Path) -> None:
    with pytest.raises(CorruptImageError, match="No such file"):
        read_image(tmp_path / "missing.jpg")
