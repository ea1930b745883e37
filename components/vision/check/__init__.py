"""Finds every fault in a data set's layout, with file and id, before anything trains.

A later kind is one more function in a module of its own, and one more entry here.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from components.core.config import nearest
from components.core.errors import UsageError
from components.vision.check.files import can_decode
from components.vision.datasets.findings import Fault, Findings

__all__ = ["CHECKS", "Fault", "Findings", "check_data"]

Check = Callable[[Path, Findings, bool], None]

CHECKS = (
    *("imagenet", "inaturalist", "images"),
    *("coco", "keypoints", "densepose", "lvis", "voc", "voc_segmentation", "cityscapes"),
)
"""The layouts."""


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
    _checks()[kind](path, findings, decode)
    findings.faults = list(dict.fromkeys(findings.faults))  # files that two parts share
    return findings


def _checks() -> Mapping[str, Check]:
    """Return what looks at each layout; only now, because readers need numpy and Pillow."""
    try:
        from components.vision.check.cityscapes import check_cityscapes
        from components.vision.check.coco import (
            check_coco,
            check_densepose,
            check_keypoints,
            check_lvis,
        )
        from components.vision.check.imagenet import check_imagenet
        from components.vision.check.images import check_images
        from components.vision.check.inaturalist import check_inaturalist
        from components.vision.check.voc import check_voc, check_voc_segmentation
    except ModuleNotFoundError as error:
        raise UsageError(
            f"reading data sets needs {error.name}: install moco-transfer[train]"
        ) from None
    return {
        "imagenet": check_imagenet,
        "inaturalist": check_inaturalist,
        "images": check_images,
        "coco": check_coco,
        "keypoints": check_keypoints,
        "densepose": check_densepose,
        "lvis": check_lvis,
        "voc": check_voc,
        "voc_segmentation": check_voc_segmentation,
        "cityscapes": check_cityscapes,
    }
