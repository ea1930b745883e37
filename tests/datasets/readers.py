"""Reads single parts of data sets, as their readers do."""

from collections.abc import Sequence
from pathlib import Path

from components.datasets.coco.densepose import DensePose
from components.datasets.coco.instances import CocoInstances
from components.datasets.coco.keypoints import CocoKeypoints
from components.datasets.coco.reader import CocoReader
from components.datasets.findings import strictly
from components.datasets.instances import InstanceSet
from components.datasets.loading import detection_reader, image_reader, segmentation_reader
from components.datasets.lvis.reading import Lvis
from components.datasets.semantic import SemanticSet
from components.datasets.voc.detection import instance_set, scan_voc
from components.vision.formats import Split
from components.vision.image_sets import ImageSet


def read_coco(root: Path, part: str) -> InstanceSet:
    return _read(CocoInstances("coco"), root, part)


def read_keypoints(root: Path, part: str) -> InstanceSet:
    return _read(CocoKeypoints("keypoints"), root, part)


def read_densepose(root: Path, part: str) -> InstanceSet:
    return _read(DensePose("densepose"), root, part)


def read_lvis(root: Path, part: str) -> InstanceSet:
    return _read(Lvis("lvis"), root, part)


def read_voc(root: Path, parts: Sequence[str]) -> InstanceSet:
    found = strictly(lambda findings: scan_voc(root, parts, findings), root, "voc")
    return instance_set(root, found)


def read_part(name: str, root: Path, split: Split) -> InstanceSet:
    return detection_reader(name).read(root, split)


def read_cityscapes(root: Path, split: Split) -> InstanceSet:
    return detection_reader("cityscapes").read(root, split)


def read_set(name: str, root: Path, split: str) -> SemanticSet:
    return segmentation_reader(name).read(root, split)


def read_image_set(name: str, root: Path, split: Split) -> ImageSet:
    return image_reader(name).read(root, split)


def read_images(root: Path) -> ImageSet:
    return image_reader("images").read(root, "train")


def _read(reader: CocoReader, root: Path, part: str) -> InstanceSet:
    file = strictly(lambda findings: reader.scan_file(root, part, findings), root, reader.name)
    return reader.instance_set(file)
