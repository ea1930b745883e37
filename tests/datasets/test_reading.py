"""What a check passes is read and drawn to the end, and what it does not pass is refused.

Fields and files of small data sets are changed in any way, as exports, half downloads and other
systems change them.
"""

import json
import math
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.core.dataset import find_dataset
from components.core.errors import DataError
from components.datasets.check import check_data
from components.datasets.instances import flip_pairs
from components.datasets.loading import detection_reader, image_reader, segmentation_reader
from components.detection.coco import mask_rcnn_fpn
from components.detection.data import TestData
from components.detection.views import DetectionView, Wanted, show_instances
from components.rendering.config import DigitsConfig, PicturesConfig
from components.segmentation.data import whole_images
from components.vision.config import LoaderConfig
from components.vision.decoding import read_image
from tests.datasets.detection_world import write_world

FEW = DigitsConfig(
    train_scenes=40, val_scenes=20, pictures=PicturesConfig(train=20, val=20, pixels=64)
)
PROPERTY = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
VALUES: tuple[Any, ...] = (
    *(None, True, "", "word", "7", "7.0", " 7", "\ud800", "a\0b", "/etc/passwd", "../x", [], {}),
    *(0, 1, -1, 2, 7, 7.0, 7.5, -0.5, 2**31, 2**63, 10**40, 1e39, 1e300, math.nan, math.inf),
    *([1], [1, 2], [None], ["a"], [[]], [[1, 2, 3]], [[1, 1, 9, 1, 9, 9]], [1, 1, 9, 1, 9, 9]),
    *({"size": [1, 2]}, {"counts": "1"}, {"size": [8, 8], "counts": [64]}, {"a": {"image_id": 1}}),
)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every layout, small; not to be changed."""
    folder = write_world(tmp_path_factory.mktemp("small"), FEW)
    for name in ("imagenet", "inaturalist", "ade20k"):
        (folder / name).mkdir()
        find_dataset(name).load_writer()(FEW, folder / name)
    return folder


@pytest.fixture
def copy_of(small: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Makes a fresh copy of a layout whose large files are links."""

    copies: list[Path] = []

    def make(name: str) -> Path:
        for old in copies:
            shutil.rmtree(old, ignore_errors=True)
        root = tmp_path / str(len(copies))  # another each time: pictures are remembered by name
        copies.append(root)
        shutil.copytree(small / name, root, copy_function=lambda a, b: Path(b).hardlink_to(a))
        return root

    return make


def rewrite(file: Path, content: bytes) -> None:
    """Give a file other content; its links keep theirs."""
    file.unlink()
    file.write_bytes(content)


def change_json(document: Any, seed: int, value: Any) -> str:
    """Change one place of a document, and say what was done."""
    draw = random.Random(seed)
    place, path = document, ""
    while True:
        keys: list[Any] = (
            sorted(place) if isinstance(place, dict) else draw.sample(range(len(place)), 1)
        )
        key = draw.choice(keys)
        path += f"[{key!r}]"
        inner = place[key]
        if not (isinstance(inner, (dict, list)) and inner) or draw.random() < 0.15:
            break
        place = inner
    kind = draw.choice(["set", "set", "set", "delete", "double", "exchange", "rename", "text"])
    if kind == "delete":
        del place[key]
    elif kind == "double" and isinstance(place, list):
        place.append(place[key])
    elif kind == "exchange":
        other = draw.choice(sorted(place) if isinstance(place, dict) else range(len(place)))
        place[key], place[other] = place[other], place[key]
    elif kind == "rename" and isinstance(place, dict):
        place[f"{key}s"] = place.pop(key)
    elif kind == "text" and isinstance(inner, (int, float)):
        place[key] = str(inner)
    else:
        place[key] = value
    return f"{kind} {path} {value!r}"


def draw_detection(name: str, root: Path) -> None:
    """Read both splits, and draw every image with all that it shows."""
    for images in detection_reader(name).read_both(root):
        pairs = flip_pairs(images.categories.keypoints) if images.keypoints is not None else None
        wanted = Wanted(images.mask is not None, pairs, images.surface is not None)
        shown = TestData(images, mask_rcnn_fpn().derive(test_side=64, longer_side=128))
        batch = shown.__getitems__([(0, index) for index in range(len(images))])
        if batch.corrupt:
            raise DataError(batch.corrupt[0].reason)
        for image in images:
            show_instances(image, DetectionView(image.height, image.width), wanted)


def draw_segmentation(name: str, root: Path) -> None:
    """Read all lists, two of them together, and every image with its labels."""
    reader = segmentation_reader(name)
    reader.read_both(root)
    for split in (reader.training, *reader.further, reader.validation):
        images = reader.read(root, split)
        for _ in whole_images(images, LoaderConfig(workers=0)).epoch(0):
            pass


def draw_cityscapes(root: Path) -> None:
    """Read what both its tasks read, which one check looks at."""
    draw_detection("cityscapes", root)
    draw_segmentation("cityscapes", root)


def draw_images(name: str, root: Path) -> None:
    """Read both splits, and every image."""
    for images in image_reader(name).read_both(root):
        for index in range(len(images)):
            read_image(images.path(index))


def agree(kind: str, root: Path, draw: Callable[[], None], what: str) -> None:
    """Assert that a check finds a fault if and only if reading or drawing refuses something."""
    faults = [str(fault) for fault in check_data(kind, root, decode=True).faults]
    refused = ""
    try:
        draw()
    except DataError as error:
        refused = str(error)
    assert bool(faults) == bool(refused), (what, faults[:3], refused[:300])
    for text in (*faults, refused):
        text.encode("utf-8", "backslashreplace")


@pytest.mark.parametrize(
    ("kind", "name", "file"),
    [
        ("coco", "coco", "annotations/instances_train2017.json"),
        ("keypoints", "coco", "annotations/person_keypoints_val2017.json"),
        ("densepose", "coco", "annotations/densepose_train2014.json"),
        ("lvis", "lvis", "lvis_v0.5_train.json"),
    ],
)
@PROPERTY
@given(seed=st.integers(0, 2**32), value=st.sampled_from(VALUES))
def test_annotations_of_cocos_form(
    copy_of: Callable[[str], Path], kind: str, name: str, file: str, seed: int, value: Any
) -> None:
    root = copy_of(name)
    document = json.loads((root / file).read_text())
    what = change_json(document, seed, value)
    rewrite(root / file, json.dumps(document).encode())
    agree(kind, root, lambda: draw_detection(kind, root), what)


@PROPERTY
@given(seed=st.integers(0, 2**32), value=st.sampled_from(VALUES))
def test_annotations_of_inaturalist(copy_of: Callable[[str], Path], seed: int, value: Any) -> None:
    root = copy_of("inaturalist")
    document = json.loads((root / "train2018.json").read_text())
    what = change_json(document, seed, value)
    rewrite(root / "train2018.json", json.dumps(document).encode())
    agree("inaturalist", root, lambda: draw_images("inaturalist", root), what)


TEXTS = ("", " ", "0", "1", "-3", "7.5", "1e999", "nan", "word", "Unspecified", "99999", "cat")


@PROPERTY
@given(seed=st.integers(0, 2**32), text=st.sampled_from(TEXTS))
def test_annotations_of_voc(copy_of: Callable[[str], Path], seed: int, text: str) -> None:
    root, draw = copy_of("voc"), random.Random(seed)
    file = draw.choice(sorted((root / "VOC2007/Annotations").glob("*.xml")))
    tree = ElementTree.parse(file).getroot()
    parents = [(parent, child) for parent in tree.iter() for child in parent]
    parent, child = draw.choice(parents)
    kind = draw.choice(["set", "set", "delete", "double", "rename"])
    if kind == "set":
        child.text = text
    elif kind == "delete":
        parent.remove(child)
    elif kind == "double":
        parent.append(child)
    else:
        child.tag += "s"
    rewrite(file, ElementTree.tostring(tree))
    agree("voc", root, lambda: draw_detection("voc", root), f"{kind} {child.tag} {text!r}")


def spoil_file(root: Path, file: Path, draw: random.Random) -> str:
    """Do to a file what copies, systems and people do."""
    kind = draw.choice(["empty", "cut", "delete", "rename", "hide", "other", "colours", "sixteen"])
    content = file.read_bytes()
    if kind == "delete":
        file.unlink()
    elif kind == "rename":
        file.rename(file.with_name(f"x{file.name}"))
    elif kind == "hide":
        (file.with_name(f"._{file.name}")).write_bytes(b"\0\5\26\7")
    elif kind in ("colours", "sixteen") and file.suffix == ".png":
        height, width = read_image(file).shape[:2]
        picture = (
            np.full((height, width, 3), 90, np.uint8)
            if kind == "colours"
            else np.full((height, width), 300, np.uint16)
        )
        rewrite(file, cv2.imencode(".png", picture)[1].tobytes())
    else:
        cut = {"empty": b"", "cut": content[: len(content) // 2]}
        rewrite(file, cut.get(kind, b"<html>404</html>"))
    return f"{kind} {file.relative_to(root)}"


@pytest.mark.parametrize(
    ("kind", "name", "draw_all"),
    [
        ("imagenet", "imagenet", lambda root: draw_images("imagenet", root)),
        ("voc", "voc", lambda root: draw_detection("voc", root)),
        (
            "voc_segmentation",
            "voc",
            lambda root: draw_segmentation("voc", root),
        ),
        ("ade20k", "ade20k", lambda root: draw_segmentation("ade20k", root)),
        ("cityscapes", "cityscapes", draw_cityscapes),
    ],
)
@PROPERTY
@given(seed=st.integers(0, 2**32))
def test_files(
    copy_of: Callable[[str], Path],
    kind: str,
    name: str,
    draw_all: Callable[[Path], None],
    seed: int,
) -> None:
    root, draw = copy_of(name), random.Random(seed)
    file = draw.choice(sorted(path for path in root.rglob("*") if path.is_file()))
    what = spoil_file(root, file, draw)
    agree(kind, root, lambda: draw_all(root), what)
