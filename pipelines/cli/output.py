"""Prints lines and tables for people, and JSON for machines."""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDE = 240  # columns when nobody's terminal limits them


def say(words: str = "") -> None:
    """Print a line of the answer, on stdout."""
    sys.stdout.write(f"{words}\n")


def tell(words: str) -> None:
    """Print a line beside the answer, on stderr."""
    sys.stderr.write(f"{words}\n")


def console() -> Console:
    """Return a console on stdout; lines are not broken for what is not a terminal."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)


def print_table(
    titles: Sequence[str], rows: Iterable[Sequence[str | Text]], right: Sequence[str] = ()
) -> None:
    """Print aligned columns; only the last one is broken to fit a terminal.

    Args:
        titles: Of the columns.
        rows: Cells.
        right: Titles of columns with numbers.
    """
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for title in titles:
        last = title == titles[-1]
        table.add_column(
            title, justify="right" if title in right else "left", no_wrap=not last, overflow="fold"
        )
    for row in rows:
        table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    out = console()
    with out.capture() as capture:
        out.print(table)
    say("\n".join(line.rstrip() for line in capture.get().splitlines()))


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    say(json.dumps(value, indent=1, default=str))
