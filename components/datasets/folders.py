"""Folders of images: what in them is an image, a class, or nothing that anybody meant."""

import os
from pathlib import Path

from components.datasets.findings import Findings


def is_class(name: str) -> bool:
    """Tell by its name whether a folder is meant: hidden ones and some systems' own are not."""
    return not name.startswith((".", "@", "__"))


def list_folder(
    folder: Path, shown: str, findings: Findings, layout: str | None = None
) -> list[os.DirEntry[str]] | None:
    """Return what is in a folder, sorted by name; None if it cannot be read.

    Args:
        folder: To look into.
        shown: What it is called in faults.
        findings: Where they go.
        layout: Where files are expected; by default in folders of classes.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except FileNotFoundError:
        findings.fault(
            shown, f"the folder is missing: the layout is {layout or f'ROOT/{shown}/WNID/*.JPEG'}"
        )
    except OSError as error:
        findings.fault(shown, f"the folder cannot be read: {error.strerror}")
    return None
