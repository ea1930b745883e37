"""VOC's layouts of 2007 and 2012: XML, lists, segmentation, and the augmented segmentation."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import numpy.typing as npt
from PIL import Image

from components.datasets.semantic import palette
from components.evaluation.semantic import IGNORED
from components.rendering.config import DigitsConfig
from components.rendering.pictures import Picture, Thing
from components.rendering.sets import render_pictures, write_jpeg
from components.rendering.source import NAMES, Digits, real_digits

ORDER = tuple(sorted(NAMES))
"""The classes in the order of their numbers: by name, as the original's are."""
_DIFFICULT = 0.7  # an instance that is seen less than this is difficult


@dataclass(frozen=True)
class _Part:
    """Pictures of one list."""

    year: str
    split: str
    digits: Digits
    count: int


def write(config: DigitsConfig, folder: Path) -> None:
    """Write both years.

    The test of 2007 and the validation of 2012 have different digits, and training has
    neither's: in A.1 the second belongs to training, in A.5 it is what is measured.
    """
    train, val = real_digits("train"), real_digits("val")
    half = config.pictures.train // 2
    parts = (
        _Part("2007", "train", train.half(0), half // 2),
        _Part("2007", "val", train.half(1), half - half // 2),
        _Part("2007", "test", val.half(0), config.pictures.val),
        _Part("2012", "train", train, half),
        _Part("2012", "val", val.half(1), config.pictures.val // 2),
    )
    for year in ("2007", "2012"):
        root = folder / f"VOC{year}"
        for name in ("Annotations", "JPEGImages", "ImageSets/Main", "ImageSets/Segmentation"):
            (root / name).mkdir(parents=True)
        _write_year(config, root, [part for part in parts if part.year == year])


def _write_year(config: DigitsConfig, root: Path, parts: Sequence[_Part]) -> None:
    shown: dict[str, dict[str, Picture]] = {}
    number = 0
    for part in parts:
        shown[part.split] = {}
        name = f"voc/{part.year}/{part.split}"
        for picture in render_pictures(config, name, part.digits, part.count):
            number += 1
            stem = f"{number:06d}" if part.year == "2007" else f"2008_{number:06d}"
            shown[part.split][stem] = picture
            write_jpeg(config, picture, root / "JPEGImages" / f"{stem}.jpg")
            text = _xml(picture, root.name, stem)
            (root / "Annotations" / f"{stem}.xml").write_text(text, "utf-8")
    shown["trainval"] = shown["train"] | shown["val"]
    for split, pictures in shown.items():
        _write_lists(root / "ImageSets" / "Main", split, pictures)
    if root.name == "VOC2012":
        _write_segmentation(root, shown["train"], shown["val"])


def _xml(picture: Picture, folder: str, stem: str) -> str:
    height, width = picture.pixels.shape[:2]
    objects = "".join(_object(thing) for thing in picture.things)
    return (
        f"<annotation>\n\t<folder>{escape(folder)}</folder>\n\t<filename>{stem}.jpg</filename>\n"
        f"\t<size><width>{width}</width><height>{height}</height><depth>3</depth></size>\n"
        f"\t<segmented>{int(folder == 'VOC2012')}</segmented>\n{objects}</annotation>\n"
    )


def _object(thing: Thing) -> str:
    """Describe an instance; corners are pixels counted from 1, both included."""
    y, x = np.nonzero(thing.mask)
    corners = {"xmin": x.min(), "ymin": y.min(), "xmax": x.max(), "ymax": y.max()}
    box = "".join(f"<{name}>{value + 1}</{name}>" for name, value in corners.items())
    return (
        f"\t<object><name>{NAMES[thing.label]}</name><pose>Unspecified</pose>"
        f"<truncated>{int(thing.seen < 0.95)}</truncated><difficult>{int(_is_difficult(thing))}"
        f"</difficult><bndbox>{box}</bndbox></object>\n"
    )


def _is_difficult(thing: Thing) -> bool:
    return thing.seen < _DIFFICULT


def _write_lists(folder: Path, split: str, pictures: dict[str, Picture]) -> None:
    """Write the list of a split, and for each class which images have it (0: difficult only)."""
    _write_list(folder / f"{split}.txt", pictures)
    for label, name in enumerate(NAMES):
        lines = []
        for stem, picture in pictures.items():
            own = [thing for thing in picture.things if thing.label == label]
            easy = any(not _is_difficult(thing) for thing in own)
            lines.append(f"{stem} {1 if easy else 0 if own else -1:2d}")
        _write_list(folder / f"{name}_{split}.txt", lines)


def _write_segmentation(root: Path, train: dict[str, Picture], val: dict[str, Picture]) -> None:
    """Write a quarter of training as VOC's own labels, and all of it as the augmented ones.

    The augmented labels have no borders that are ignored, as SBD's have none.
    """
    few = dict(list(train.items())[: max(1, len(train) // 4)])
    lists = {"train": few, "val": val, "trainval": few | val, "train_aug": train}
    for split, pictures in lists.items():
        _write_list(root / "ImageSets" / "Segmentation" / f"{split}.txt", pictures)
    for name, pictures in (
        ("SegmentationClass", few | val),
        ("SegmentationObject", few | val),
        ("SegmentationClassAug", train),
    ):
        (root / name).mkdir()
        for stem, picture in pictures.items():
            labels = _segments(picture, objects=name == "SegmentationObject")
            if name != "SegmentationClassAug":
                labels[picture.borders()] = IGNORED
            _write_png(labels, root / name / f"{stem}.png")


def _segments(picture: Picture, *, objects: bool) -> npt.NDArray[np.uint8]:
    """Return the class of every pixel, counted from 1, or its instance."""
    labels = np.zeros(picture.pixels.shape[:2], np.uint8)
    for number, thing in enumerate(picture.things, 1):
        value = number if objects else ORDER.index(NAMES[thing.label]) + 1
        labels[thing.mask] = value
    return labels


def _write_list(path: Path, lines: Sequence[str] | dict[str, Picture]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")


def _write_png(labels: npt.NDArray[np.uint8], path: Path) -> None:
    """Write class numbers as a picture with VOC's colours."""
    image = Image.fromarray(labels, "P")
    image.putpalette(palette().tobytes())
    image.save(path)
