"""Cityscapes' files: images in leftImg8bit, what is annotated in gtFine, by split and city."""

from pathlib import Path

from components.datasets.findings import Findings
from components.evaluation.cityscapes import ENDINGS

IMAGE_ENDING = "_leftImg8bit.png"


def scan_stems(root: Path, split: str, findings: Findings) -> list[str]:
    """Return CITY/NAME of every image, sorted; hidden files are passed over."""
    folder = root / "leftImg8bit" / split
    stems = _city_stems(folder, IMAGE_ENDING)
    if not stems:
        findings.fault(
            f"leftImg8bit/{split}",
            f"has no CITY/*{IMAGE_ENDING}: is leftImg8bit_trainvaltest unpacked?",
        )
    for stem in sorted({*_city_stems(root / "gtFine" / split, ENDINGS["labels"])} - {*stems}):
        name = f"gtFine/{split}/{stem}{ENDINGS['labels']}"
        findings.fault(name, "has no image in leftImg8bit")
    return stems


def _city_stems(folder: Path, ending: str) -> list[str]:
    """Return CITY/NAME of every file with an ending, sorted; hidden ones are passed over."""
    paths = sorted(folder.glob(f"[!.]*/[!.]*{ending}"))
    return [f"{path.parent.name}/{path.name.removesuffix(ending)}" for path in paths]
