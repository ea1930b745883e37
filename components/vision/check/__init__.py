"""Finds every fault in a data set's layout, with file and id, before anything trains.

A later kind is one more function in a module of its own, and one more entry here.
"""

from importlib import import_module
from pathlib import Path

from components.core.config import nearest
from components.core.errors import UsageError
from components.vision.check.files import can_decode
from components.vision.datasets.findings import Fault, Findings

__all__ = ["CHECKS", "Fault", "Findings", "check_data"]

CHECKS: dict[str, str] = {
    **{kind: kind for kind in ("imagenet", "inaturalist", "images", "cityscapes")},
    **dict.fromkeys(("coco", "keypoints", "densepose", "lvis"), "coco"),
    **dict.fromkeys(("voc", "voc_segmentation"), "voc"),
}
"""The layouts, each with the module here whose `check_LAYOUT` looks at it."""


def check_data(kind: str, path: Path, *, decode: bool = False) -> Findings:
    """List all faults of a data set.

    Every image's first and last bytes are read, which finds empty, truncated and
    foreign files.

    Args:
        kind: One of `CHECKS`.
        path: The data set's folder; for `images` also a text file that lists them.
        decode: Decode every image as well, which finds damage inside; minutes a million.

    Raises:
        UsageError: if there is no such kind, or no library to decode with.
    """
    if kind not in CHECKS:
        raise UsageError(
            f"no check for {kind!r}{nearest(kind, CHECKS)}; there are {', '.join(CHECKS)}"
        )
    if decode and not can_decode():
        raise UsageError("decoding needs the image libraries: install moco-transfer[train]")
    findings = Findings()
    try:
        module = import_module(f"components.vision.check.{CHECKS[kind]}")
    except ModuleNotFoundError as error:
        raise UsageError(
            f"reading {kind} needs {error.name}: install moco-transfer[train]"
        ) from None
    getattr(module, f"check_{kind}")(path, findings, decode)
    findings.faults = list(dict.fromkeys(findings.faults))  # files that two parts share
    return findings
