"""VOC's lists: of images, and of classes."""

import re
from collections import Counter
from pathlib import Path

from components.datasets.findings import Findings
from components.evaluation.voc import CLASSES

_ENDING = re.compile(r"\.(jpe?g|png)$", re.IGNORECASE)


def classes_of(folder: Path) -> tuple[str, ...]:
    """Return the classes that ImageSets/Main lists, sorted as the published ones are.

    Where it has no list for each class, they are the published ones. Hidden files, such as the
    copies that some systems make of each, are passed over.
    """
    ending = "_trainval.txt"
    lists = (folder / "ImageSets" / "Main").glob(f"[!.]*{ending}")
    return tuple(sorted(path.name.removesuffix(ending) for path in lists)) or CLASSES


def scan_list(root: Path, file: str, findings: Findings) -> list[str]:
    """Return the images that a text file lists, one a line; those of another form are reported."""
    try:
        names = _listed((root / file).read_text("utf-8", errors="surrogateescape"))
    except OSError as error:
        findings.fault(file, f"cannot be read: {error.strerror}")
        return []
    if not names:
        findings.fault(file, "is empty: an empty split trains and measures nothing")
    for name, count in Counter(names).items():
        if count > 1:
            findings.fault(file, f"is listed {count} times", name)
    if "" in names or any("\0" in name for name in names):
        findings.fault(file, "has a line that names no image")
    return [name for name in names if name and "\0" not in name]


def _listed(text: str) -> list[str]:
    """Return the images that a list names: a name or a pair of paths in each line."""
    first = [line.split()[0] for line in text.splitlines() if line.strip()]
    return [_ENDING.sub("", name.rpartition("/")[2]) for name in first]
