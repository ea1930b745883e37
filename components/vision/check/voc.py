"""Checks Pascal VOC's layouts: detection of 2007 and 2012, and segmentation of 2012."""

from collections.abc import Sequence
from pathlib import Path

from components.vision.check.files import check_files
from components.vision.check.labels import check_labels
from components.vision.datasets.findings import Findings
from components.vision.datasets.voc import scan_voc, scan_voc_segmentation

DETECTION = {
    **{"2007 trainval images": 5_011, "2007 test images": 4_952},
    **{"2012 trainval images": 11_540},
}
SEGMENTATION = {"train images": 1_464, "val images": 1_449, "train_aug images": 10_582}


def check_voc(root: Path, findings: Findings, decode: bool) -> None:
    """Check the lists that Table 2 trains and measures on, their XML and their images."""
    training = scan_voc(root, ("2007/trainval", "2012/trainval"), findings)
    testing = scan_voc(root, ("2007/test",), findings)
    for part, objects in (("trainval", training), ("test", testing)):
        for year in ("2007", "2012"):
            files = sum(file.startswith(f"VOC{year}/") for file in objects.files)
            if files or part == "trainval":
                findings.counts[f"{year} {part} images"] = files
        images = [
            (file, name, (width, height) if height else None)
            for file, name, (height, width) in zip(
                objects.files, objects.names, objects.sizes, strict=True
            )
        ]
        check_files(root, images, findings, decode=decode)
    _report_shared(testing.files, training.files, "VOC2007 test", findings)
    findings.compare(DETECTION, "Pascal VOC")


def check_voc_segmentation(root: Path, findings: Findings, decode: bool) -> None:
    """Check the lists that A.5 trains and measures on, their labels and their images."""
    lists: dict[str, Sequence[str]] = {}
    for split in ("train", "val", "train_aug"):
        images = scan_voc_segmentation(root, split, findings)
        if images is None:
            continue
        lists[split] = images.files
        findings.counts[f"{split} images"] = len(images)
        check_labels(root, images, findings, decode=decode)
    for split in ("train", "train_aug"):
        _report_shared(lists.get(split, []), lists["val"], f"{split} of segmentation", findings)
    findings.compare(SEGMENTATION, "Pascal VOC's segmentation")


def _report_shared(
    files: Sequence[str], others: Sequence[str], what: str, findings: Findings
) -> None:
    shared = sorted(set(files) & set(others))
    if shared:
        findings.fault(
            what,
            f"{len(shared)} images are in what is trained on and in what is measured",
            Path(shared[0]).stem,
        )
