"""Which part of its data set a task learns from, and which part it is measured on."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from components.core.errors import DataError
from components.detection.config import Task
from components.vision.datasets.cityscapes import read_cityscapes
from components.vision.datasets.coco import read_coco, read_densepose, read_keypoints
from components.vision.datasets.coco_json import TOLERATED
from components.vision.datasets.instances import InstanceSet, join
from components.vision.datasets.lvis import read_lvis
from components.vision.datasets.voc import read_voc

Part = Literal["train", "val"]

VOC_TEST = ("2007", "test")
DENSEPOSE_TEST = "minival2014"
_READERS: Mapping[Task, Mapping[Part, Callable[[Path], InstanceSet]]] = {
    "coco": {
        "train": lambda root: read_coco(root, "train2017"),
        "val": lambda root: read_coco(root, "val2017"),
    },
    "keypoints": {
        "train": lambda root: read_keypoints(root, "train2017"),
        "val": lambda root: read_keypoints(root, "val2017"),
    },
    "densepose": {
        "train": lambda root: join(
            read_densepose(root, "train2014"), read_densepose(root, "valminusminival2014")
        ),
        "val": lambda root: read_densepose(root, DENSEPOSE_TEST),
    },
    "lvis": {
        "train": lambda root: read_lvis(root, "train"),
        "val": lambda root: read_lvis(root, "val"),
    },
    "voc": {
        "train": lambda root: read_voc(root, ("2007/trainval", "2012/trainval")),
        "val": lambda root: read_voc(root, ("/".join(VOC_TEST),)),
    },
    "cityscapes": {
        "train": lambda root: read_cityscapes(root, "train"),
        "val": lambda root: read_cityscapes(root, "val"),
    },
}


def read_part(task: Task, root: Path, part: Part) -> InstanceSet:
    """Read the annotations of a part; images are not opened.

    Raises:
        DataError: naming what is wrong.
    """
    return _READERS[task][part](root)


def read_parts(task: Task, root: Path) -> tuple[InstanceSet, InstanceSet]:
    """Read the annotations of training and validation.

    Raises:
        DataError: naming what is wrong, and if the two do not have the same classes.
    """
    training, validation = (read_part(task, root, part) for part in ("train", "val"))
    ours, theirs = training.categories, validation.categories
    if ours.names != theirs.names or ours.keypoints != theirs.keypoints:
        lone = sorted({*ours.names} ^ {*theirs.names})
        told = f", {len(lone)} of them in one only: {', '.join(lone[:5])}" if lone else ""
        raise DataError(
            f"{root}: training has {len(ours)} classes and {len(ours.keypoints)} keypoints, "
            f"validation {len(theirs)} and {len(theirs.keypoints)}{told}. A detector needs the "
            "same in the same order; `moco data check` lists every fault"
        )
    return training, validation


def need_masks(images: InstanceSet, part: Part) -> None:
    """Refuse images whose instances have no masks, from which a mask head would learn nothing.

    Raises:
        DataError: if more of them lack one than published sets have.
    """
    count = len(images.labels)
    lacking = 0 if images.masked is None else int((~images.masked).sum())
    if lacking > TOLERATED * count:
        named = "training" if part == "train" else "validation"
        raise DataError(
            f"{images.root}: {lacking} of {count} {named} instances have no mask (segmentation), "
            "which the model learns and is measured on: give polygons or run lengths, or set "
            "model.masks to false to detect boxes only"
        )


def learnable(task: Task, images: InstanceSet) -> npt.NDArray[np.int64]:
    """Return the images that something can be learned from, as detectron2 chooses them.

    They show an instance that is no crowd; for keypoints one with a labelled keypoint, for
    DensePose one with points.

    Raises:
        DataError: if there is none.
    """
    counts = ~images.crowd
    if task == "keypoints" and images.keypoints is not None:
        counts &= (images.keypoints[..., 2] > 0).any(1)
    if task == "densepose" and images.surface is not None:
        surface = images.surface
        counts &= np.array([surface(one) is not None for one in range(len(counts))], np.bool_)
    owners = np.repeat(np.arange(len(images)), np.diff(images.starts))
    kept = np.unique(owners[counts])
    if not len(kept):
        raise DataError(
            f"{images.root}: none of {len(images)} training images shows an instance to learn from"
        )
    return kept.astype(np.int64)


def repeat_factors(
    images: InstanceSet, kept: npt.NDArray[np.int64], threshold: float
) -> npt.NDArray[np.float64]:
    """Return how often an epoch shows each image, at least 1 (Gupta et al. 2019, B.2).

    A class that a share f of the images shows has max(1, √(t / f)); an image has the
    largest of its classes.

    Args:
        images: The set.
        kept: The images that count, ascending.
        threshold: t; 0 for 1 throughout.
    """
    owners = np.repeat(np.arange(len(images)), np.diff(images.starts))
    pairs = np.unique(np.stack([owners, images.labels], axis=1), axis=0)
    pairs = pairs[np.isin(pairs[:, 0], kept)]
    shares = np.bincount(pairs[:, 1], minlength=len(images.categories)) / len(kept)
    of_class = np.maximum(1, np.sqrt(threshold / np.maximum(shares, 1e-12)))
    factors = np.ones(len(images))
    np.maximum.at(factors, pairs[:, 0], of_class[pairs[:, 1]])
    return factors[kept]
