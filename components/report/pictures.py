"""Embeds pictures and charts into the page, as far as its size allows."""

import base64
import itertools
from collections.abc import Iterator, Mapping

from components.report.formats import file_size
from components.report.results import Report, Sheet

PAGE = 5_000_000
"""Bytes that the page may have: what mail and artifact viewers take."""
PICTURES = 4_000_000
"""Bytes of all embedded pictures, as they stand in the page."""
PICTURE = 150_000
"""Bytes of a picture's file, from which on it is not embedded."""
CHARTS = 1_000_000
"""Bytes of all embedded charts."""

_TAG = 1000  # bytes around a picture or chart that nothing else counts


def embed_pictures(report: Report, contents: Mapping[str, bytes], room: int) -> dict[str, str]:
    """Return `data:` URIs of the pictures that fit, by their files.

    The tables' first columns come first, so that each table shows some.

    Args:
        report: Names the pictures.
        contents: By file.
        room: Bytes that the page has left.
    """
    small = {sheet.file: sheet for sheet in _in_turn(report) if sheet.size <= PICTURE}
    uris = {
        file: f"data:image/{sheet.kind};base64,{base64.b64encode(contents[file]).decode()}"
        for file, sheet in small.items()
    }
    return fit(uris, min(room, PICTURES))


def fit(parts: Mapping[str, str], room: int) -> dict[str, str]:
    """Return the first parts of a page that fit into a room (bytes) together."""
    sums = itertools.accumulate(len(part.encode()) + _TAG for part in parts.values())
    return {
        name: part for (name, part), total in zip(parts.items(), sums, strict=True) if total <= room
    }


def why_not(sheet: Sheet) -> str:
    """Say why a picture is not embedded."""
    if sheet.size > PICTURE:
        return f"{file_size(sheet.size)} are too many for this page"
    return "this page is full"


def _in_turn(report: Report) -> Iterator[Sheet]:
    """Yield all tables' pictures of the first column, then those of the second, and so on."""
    places = [
        {column.key: place for place, column in enumerate(table.columns)} for table in report.tables
    ]
    sheets = [
        (place[sheet.column], index, sheet)
        for index, (table, place) in enumerate(zip(report.tables, places, strict=True))
        for sheet in table.sheets
    ]
    yield from (sheet for *_, sheet in sorted(sheets, key=lambda entry: entry[:2]))
