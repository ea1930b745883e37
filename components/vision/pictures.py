"""Pictures for people: sheets of images beside what was predicted, with a legend."""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from components.core.log import get_logger
from components.vision.decoding import Pixels

log = get_logger(__name__)

IN_CODE_DIGEST = False  # it shows results to people

Colour = tuple[int, int, int]

PICTURES = "pictures"
"""Folder of a metrics artifact whose pictures the report shows."""
LARGEST = 60_000
"""Bytes of a sheet at most, because a report holds those of all cells of the appendix."""

_PANEL = 220  # longer side of a panel, pixels
_GAP = 6
_LINE = 20
_WHITE: Colour = (255, 255, 255)
_BLACK: Colour = (0, 0, 0)


@contextmanager
def drawing(path: Path) -> Iterator[None]:
    """Go on where a picture cannot be drawn: none is worth what was trained.

    Args:
        path: Of the picture.
    """
    try:
        yield
    except Exception as error:  # whatever it is, figures and models are still to be written
        log.warning("not drawn", picture=path.name, why=f"{type(error).__name__}: {error}")


def write_sheet(
    path: Path,
    titles: Sequence[str],
    rows: Sequence[Sequence[Pixels]],
    legend: Mapping[str, Colour],
) -> None:
    """Write a JPEG with rows of panels under their titles, and a legend of colours below.

    Args:
        path: The file; it gets as good as `LARGEST` allows.
        titles: Of the columns.
        rows: RGB panels, a column each; those of a row are of one size.
        legend: Colours by name.
    """
    font = ImageFont.load_default(13)
    shapes = [_fitted(*row[0].shape[:2]) for row in rows]
    width = max(len(titles) * (max(wide for _, wide in shapes) + _GAP) + _GAP, 3 * _PANEL)
    places = _flow(legend, width, font)
    lines = places[-1][1] + 1 if places else 0
    height = _LINE + sum(high + _GAP for high, _ in shapes) + lines * _LINE + _GAP
    sheet = Image.new("RGB", (width, height), _WHITE)
    draw = ImageDraw.Draw(sheet)
    column = (width - _GAP) // len(titles)
    for number, title in enumerate(titles):
        draw.text((_GAP + number * column, 2), title, _BLACK, font)
    top = _LINE
    for row, (high, wide) in zip(rows, shapes, strict=True):
        for number, panel in enumerate(row):
            larger = high > panel.shape[0]
            way = Image.Resampling.NEAREST if larger else Image.Resampling.BOX
            picture = Image.fromarray(panel).resize((wide, high), way)
            sheet.paste(picture, (_GAP + number * column, top))
        top += high + _GAP
    for (name, colour), (left, line) in zip(legend.items(), places, strict=True):
        above = top + line * _LINE
        draw.rectangle((left, above + 2, left + 14, above + 16), colour, _BLACK)
        draw.text((left + 20, above), name, _BLACK, font)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_encoded(sheet))


def _fitted(height: int, width: int) -> tuple[int, int]:
    """Return the size of a panel; a small image grows by a whole factor, to keep its pixels."""
    factor = _PANEL / max(height, width)
    factor = max(1, int(factor)) if factor >= 1 else factor
    return max(1, round(height * factor)), max(1, round(width * factor))


def _flow(
    names: Mapping[str, Colour], width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> list[tuple[int, int]]:
    """Place names in lines; return how far from the left each is, and in which line."""
    places = []
    left, line = _GAP, 0
    for name in names:
        needed = 20 + round(font.getlength(name)) + 3 * _GAP
        if left > _GAP and left + needed > width:
            left, line = _GAP, line + 1
        places.append((left, line))
        left += needed
    return places


def _encoded(sheet: Image.Image) -> bytes:
    for quality in range(90, 0, -10):
        buffer = io.BytesIO()
        sheet.save(buffer, "JPEG", quality=quality)
        if buffer.tell() <= LARGEST:
            break
    return buffer.getvalue()
