"""Checks images for pre-training: a folder tree, or a text file with one path a line."""

import os
from collections import Counter
from pathlib import Path

from components.vision.check.files import check_files
from components.vision.check.findings import Findings
from components.vision.formats import is_image


def check_images(path: Path, findings: Findings, decode: bool) -> None:
    """Check that there are images, that each listed one exists once, and that all are whole."""
    if path.is_file():
        root = path.parent
        lines = path.read_text("utf-8", errors="surrogateescape").splitlines()
        names = [line.strip() for line in lines if line.strip()]
        for name, count in Counter(names).items():
            if count > 1:
                findings.fault(path.name, f"is listed {count} times", name)
    elif path.is_dir():
        root = path
        names = sorted(
            os.path.relpath(os.path.join(folder, file), root)  # noqa: PTH118 - a million of them
            for folder, _, files in os.walk(root)
            for file in files
            if is_image(file)
        )
    else:
        findings.fault(str(path), "is neither a folder nor a list of images")
        return
    findings.counts["images"] = len(names)
    if not names:
        findings.fault(str(path), "has no images")
    check_files(root, ((name, "", None) for name in names), findings, decode=decode)
