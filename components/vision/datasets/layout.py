"""What files the detection data sets consist of; needs nothing but Python."""

import re
from pathlib import Path

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
AUGMENTED = ("SegmentationAug/train_aug", "Segmentation/train_aug", "Segmentation/trainaug")
"""Where below ImageSets the list of A.5 may lie; Pascal VOC itself does not have it."""

LVIS_FOLDERS = (".", "annotations", "lvis")
"""Below COCO's folder, where LVIS's annotation files may lie."""

GEOMETRY_FOLDERS = ("densepose", ".", "annotations")
"""Below COCO's folder, where DensePose's geometry may lie."""
TRAINING_GEOMETRY = ("UV_symmetry_transforms.mat",)
EVALUATION_GEOMETRY = ("SMPL_subdiv.mat", "SMPL_SUBDIV_TRANSFORM.mat", "Pdist_matrix.pkl")
GEOMETRY_SOURCE = (
    "get_densepose_uv.sh, get_DensePose_COCO.sh and get_eval_data.sh of facebookresearch/DensePose"
)

CITYSCAPES_IMAGE = "_leftImg8bit.png"
CITYSCAPES_INSTANCES = "_gtFine_instanceIds.png"
CITYSCAPES_LABELS = "_gtFine_labelIds.png"


def voc_classes(folder: Path) -> tuple[str, ...]:
    """Return the classes that ImageSets/Main lists, sorted as the published ones are.

    Where it has no list for each class, they are the published ones. Hidden files, such as the
    copies that some systems make of each, are passed over.
    """
    ending = "_trainval.txt"
    lists = (folder / "ImageSets" / "Main").glob(f"[!.]*{ending}")
    return tuple(sorted(path.name.removesuffix(ending) for path in lists)) or VOC_CLASSES


def lvis_file(root: Path, split: str, version: str = "v0.5") -> Path | None:
    """Find LVIS's annotations of a split, `train` or `val`, below COCO's folder."""
    paths = (root / folder / f"lvis_{version}_{split}.json" for folder in LVIS_FOLDERS)
    return next((path for path in paths if path.is_file()), None)


def augmented_list(folder: Path) -> Path | None:
    """Find the augmented segmentation list of VOC 2012."""
    paths = (folder / "ImageSets" / f"{name}.txt" for name in AUGMENTED)
    return next((path for path in paths if path.is_file()), None)


def listed_names(text: str) -> list[str]:
    """Return the images that a list of VOC names: a name or a pair of paths in each line."""
    first = [line.split()[0] for line in text.splitlines() if line.strip()]
    return [_ENDING.sub("", name.rpartition("/")[2]) for name in first]


_ENDING = re.compile(r"\.(jpe?g|png)$", re.IGNORECASE)
