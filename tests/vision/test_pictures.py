"""Sheets for the report: every panel in its place, and never too large for one."""

from pathlib import Path

import numpy as np
import pytest
import structlog
from PIL import Image

from components.datasets.semantic import palette
from components.vision.pictures import LARGEST, drawing, write_sheet


def test_the_palette_is_vocs() -> None:
    colours = palette()
    assert colours.shape == (256, 3)
    assert colours[[0, 1, 2, 15, 20, 255]].tolist() == [
        [0, 0, 0],  # background
        [128, 0, 0],  # aeroplane
        [0, 128, 0],  # bicycle
        [192, 128, 128],  # person
        [0, 64, 128],  # tvmonitor
        [224, 224, 192],  # the border that does not count
    ]
    assert len({tuple(colour) for colour in colours.tolist()}) == 256


def test_panels_of_any_size_stand_in_rows_and_columns(tmp_path: Path) -> None:
    shapes = ((60, 90), (300, 200))
    tones = ((200, 40), (90, 150))
    rows = [
        [np.full((*shape, 3), tone, np.uint8) for tone in row]
        for shape, row in zip(shapes, tones, strict=True)
    ]
    path = tmp_path / "pictures/sheet.jpg"
    write_sheet(path, ("image", "truth"), rows, {"road": (255, 0, 0), "sky": (0, 0, 255)})
    sheet = np.asarray(Image.open(path)).astype(int)
    for tone in (200, 40, 90, 150):
        y, x = np.nonzero((np.abs(sheet - tone) < 4).all(axis=2))
        assert len(y) > 30 * 30
        assert (np.median(x) > sheet.shape[1] / 2) == (tone in (40, 150))
        assert (np.median(y) > sheet.shape[0] / 3) == (tone in (90, 150))
    red = (sheet[..., 0] > 200) & (sheet[..., 1] < 80)
    assert red[-30:].any()
    assert not red[:-30].any()


def test_even_noise_stays_small_enough(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = [[random.integers(0, 256, (240, 320, 3), np.uint8)] * 3] * 6
    write_sheet(tmp_path / "noise.jpg", ("a", "b", "c"), rows, {})
    assert (tmp_path / "noise.jpg").stat().st_size <= LARGEST


@pytest.mark.parametrize("shape", [(3, 3000, 3), (3000, 3, 3), (1, 1, 3)])
def test_a_picture_of_any_shape_has_a_panel(tmp_path: Path, shape: tuple[int, ...]) -> None:
    write_sheet(tmp_path / "long.jpg", ("a", "b"), [[np.zeros(shape, np.uint8)] * 2], {})
    assert Image.open(tmp_path / "long.jpg").size[0] > 0


def test_what_cannot_be_drawn_is_said_and_nothing_is_lost(tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as logs, drawing(tmp_path / "sheet.jpg"):
        raise ValueError("height and width must be > 0")
    (line,) = logs
    assert line["why"] == "ValueError: height and width must be > 0"
    assert line["picture"] == "sheet.jpg"
