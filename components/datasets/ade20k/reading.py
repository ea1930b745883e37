"""ADE20K's layout: ROOT/images/SPLIT/*.jpg and ROOT/annotations/SPLIT/*.png."""

from pathlib import Path
from typing import ClassVar

import numpy as np

from components.datasets.findings import Findings
from components.datasets.interface import SegmentationReader
from components.datasets.semantic import SemanticSet
from components.evaluation.semantic import IGNORED, Labels
from components.vision.image_sets import Names

CLASSES_FILE = "objectInfo150.txt"
CLASSES = (
    *("wall", "building", "sky", "floor", "tree", "ceiling", "road", "bed", "windowpane"),
    *("grass", "cabinet", "sidewalk", "person", "earth", "door", "table", "mountain", "plant"),
    *("curtain", "chair", "car", "water", "painting", "sofa", "shelf", "house", "sea", "mirror"),
    *("rug", "field", "armchair", "seat", "fence", "desk", "rock", "wardrobe", "lamp", "bathtub"),
    *("railing", "cushion", "base", "box", "column", "signboard", "chest of drawers", "counter"),
    *("sand", "sink", "skyscraper", "fireplace", "refrigerator", "grandstand", "path", "stairs"),
    *("runway", "case", "pool table", "pillow", "screen door", "stairway", "river", "bridge"),
    *("bookcase", "blind", "coffee table", "toilet", "flower", "book", "hill", "bench"),
    *("countertop", "stove", "palm", "kitchen island", "computer", "swivel chair", "boat", "bar"),
    *("arcade machine", "hovel", "bus", "towel", "light", "truck", "tower", "chandelier"),
    *("awning", "streetlight", "booth", "television receiver", "airplane", "dirt track"),
    *("apparel", "pole", "land", "bannister", "escalator", "ottoman", "bottle", "buffet"),
    *("poster", "stage", "van", "ship", "fountain", "conveyer belt", "canopy", "washer"),
    *("plaything", "swimming pool", "stool", "barrel", "basket", "waterfall", "tent", "bag"),
    *("minibike", "cradle", "oven", "ball", "food", "step", "tank", "trade name", "microwave"),
    *("pot", "animal", "bicycle", "lake", "dishwasher", "screen", "blanket", "sculpture", "hood"),
    *("sconce", "vase", "traffic light", "tray", "ashcan", "fan", "pier", "crt screen", "plate"),
    *("monitor", "bulletin board", "shower", "radiator", "glass", "clock", "flag"),
)
"""The published classes, in the order of their numbers from 1."""


class Ade20k(SegmentationReader):
    """The benchmark's folder ADEChallengeData2016; class numbers count from 1, 0 is no class."""

    title: ClassVar = "ADE20K's benchmark"
    published: ClassVar = {"training images": 20_210, "validation images": 2_000}
    training: ClassVar = "training"
    validation: ClassVar = "validation"

    def scan(self, root: Path, split: str, findings: Findings) -> SemanticSet | None:
        """Report what is wrong with a split's files, and return what is there."""
        classes = _classes_of(root, findings)
        images, labels = (
            {path.stem: path.name for path in sorted((root / place / split).glob(f"[!.]*{ending}"))}
            for place, ending in (("images", ".jpg"), ("annotations", ".png"))
        )
        for stem in sorted(labels.keys() - images.keys()):
            findings.fault(f"annotations/{split}/{labels[stem]}", f"has no image in images/{split}")
        if not images:
            message = f"has no *.jpg: the layout is ROOT/images/{split}/*.jpg, with class numbers "
            message += f"in ROOT/annotations/{split}/*.png, as in ADEChallengeData2016"
            findings.fault(f"images/{split}", message)
            return None
        return SemanticSet(
            root=root,
            files=Names(f"images/{split}/{name}" for name in images.values()),
            label_files=Names(f"annotations/{split}/{stem}.png" for stem in images),
            classes=classes,
            lookup=self.from_numbers(np.arange(256)).astype(np.uint8),
            numbers=len(classes) + 1,
        )

    def to_numbers(self, labels: Labels) -> Labels:
        """Turn classes into the benchmark's numbers, which count from 1."""
        return labels + 1

    def from_numbers(self, numbers: Labels) -> Labels:
        """Turn the benchmark's numbers into classes; 0 does not count."""
        return np.where(numbers == 0, IGNORED, numbers - 1)


def _classes_of(root: Path, findings: Findings) -> tuple[str, ...]:
    """Return the classes that objectInfo150.txt lists; the published ones where there is none.

    A row has tabs between the number, the share of pixels, counts of images, whether it is stuff,
    and the name with its synonyms, of which the first is taken.
    """
    try:
        lines = (root / CLASSES_FILE).read_text("utf-8", errors="replace").splitlines()[1:]
    except FileNotFoundError:
        return CLASSES
    except OSError as error:
        findings.fault(CLASSES_FILE, f"cannot be read: {error.strerror}")
        return CLASSES
    rows = [line.split("\t") for line in lines if line.strip()]
    names = tuple(row[-1].partition(",")[0].strip() for row in rows)
    numbers = [row[0].strip() for row in rows]
    if numbers != [str(number) for number in range(1, len(rows) + 1)] or not all(names):
        findings.fault(CLASSES_FILE, "has no row of a number, counting from 1, and a name for each")
        return CLASSES
    if not 0 < len(names) < IGNORED:
        findings.fault(CLASSES_FILE, f"lists {len(names)} classes, where 1 to 254 fit a picture")
        return CLASSES
    return names
