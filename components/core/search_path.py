"""Finds more folders of a package on Python's path: stages, data sets, recipes of one's own.

It imports nothing but the standard library, because the package `components` itself asks it.
"""

import sys
from collections.abc import Iterable
from pathlib import Path


def further_folders(package: str, own: Iterable[str]) -> list[str]:
    """Find a package's folders on Python's path beside those that are known."""
    known = {Path(folder).resolve() for folder in own}
    further = []
    for entry in sys.path:
        folder = Path(entry, *package.split(".")).resolve()
        if folder.is_dir() and folder not in known:
            known.add(folder)
            further.append(str(folder))
    return further
