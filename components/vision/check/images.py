"""Checks images for pre-training: a folder tree, or a text file with one path a line."""

from pathlib import Path

from components.vision.check.files import check_files
from components.vision.datasets.findings import Findings
from components.vision.image_sets import scan_images


def check_images(path: Path, findings: Findings, decode: bool) -> None:
    """Check that there are images, that each listed one exists once, and that all are whole."""
    images = scan_images(path, "train", findings)
    findings.counts["images"] = len(images) if images else 0
    if images:
        names = ((name, "", None) for name in images.files)
        check_files(images.root, names, findings, decode=decode)
