"""The layout of masks: ROOT/images/SPLIT/NAME.*, ROOT/masks/SPLIT/NAME.png, ROOT/classes.txt."""

from pathlib import Path

from components.datasets.findings import Findings
from components.datasets.folders import list_folder
from components.datasets.interface import SegmentationReader
from components.datasets.semantic import SemanticSet
from components.evaluation.semantic import IGNORED
from components.vision.formats import is_image
from components.vision.image_sets import Names

CLASSES_FILE = "classes.txt"


class Masks(SegmentationReader):
    """A mask is a PNG of class numbers, from 0 in the order of classes.txt; 255 does not count."""

    def scan(self, root: Path, split: str, findings: Findings) -> SemanticSet | None:
        """Report what is wrong with a split's files, and return what can be used."""
        classes = _classes_of(root, findings)
        images = _by_stem(root, f"images/{split}", findings)
        masks = _by_stem(root, f"masks/{split}", findings)
        if images is None or masks is None:
            return None
        if not images:
            findings.fault(f"images/{split}", "has no images")
            return None
        for stem in sorted(masks.keys() - images.keys()):
            findings.fault(f"masks/{split}/{masks[stem]}", f"has no image in images/{split}")
        for stem in sorted(images.keys() - masks.keys()):
            findings.fault(f"images/{split}/{images[stem]}", f"has no mask in masks/{split}")
        both = sorted(images.keys() & masks.keys())
        return SemanticSet(
            root=root,
            files=Names(f"images/{split}/{images[stem]}" for stem in both),
            label_files=Names(f"masks/{split}/{masks[stem]}" for stem in both),
            classes=classes,
        )


def _by_stem(root: Path, shown: str, findings: Findings) -> dict[str, str] | None:
    """Return the images of a folder by what their names begin with; None if it cannot be read."""
    entries = list_folder(root / shown, shown, findings, f"ROOT/{shown}/*")
    if entries is None:
        return None
    names: dict[str, str] = {}
    for entry in entries:
        if is_image(entry.name):
            stem = Path(entry.name).stem
            if stem in names:
                findings.fault(f"{shown}/{entry.name}", f"is called like {names[stem]} beside it")
            names[stem] = entry.name
    return names


def _classes_of(root: Path, findings: Findings) -> tuple[str, ...]:
    try:
        lines = (root / CLASSES_FILE).read_text("utf-8").splitlines()
    except (OSError, ValueError) as error:
        reason = (
            "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read: {error}"
        )
        findings.fault(CLASSES_FILE, f"{reason}: it has a class name a line, of the numbers from 0")
        return ()
    names = tuple(line.strip() for line in lines if line.strip())
    if not 1 < len(names) < IGNORED:
        findings.fault(CLASSES_FILE, f"has {len(names)} names, where 2 to 254 can be told apart")
    for name in sorted({name for name in names if names.count(name) > 1}):
        findings.fault(CLASSES_FILE, f"lists {name} more than once")
    return names
