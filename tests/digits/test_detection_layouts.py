import contextlib
import io
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lvis import LVIS, LVISEval, LVISResults

from components.datasets.ade20k import digits as ade20k
from components.datasets.cityscapes import digits as cityscapes
from components.datasets.coco import digits as coco
from components.datasets.coco import digits_densepose as densepose
from components.datasets.lvis import digits as lvis
from components.datasets.voc import digits as voc
from components.rendering.config import DigitsConfig, PicturesConfig
from components.rendering.pictures import KEYPOINTS, Picture, render_picture
from components.rendering.sets import render_pictures
from components.rendering.source import real_digits
from components.rendering.surface import COARSE, locate, rectangles

SMALL = DigitsConfig(pictures=PicturesConfig(train=60, val=20))
LAYOUTS = (coco, lvis, voc, cityscapes, ade20k)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def pictures(count: int = 60, **changes: Any) -> list[Picture]:
    config = SMALL.derive(pictures=SMALL.pictures.derive(**changes).model_dump(mode="json"))
    return list(render_pictures(config, "test", real_digits("train"), count, crowds=True))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_seed_writes_the_same_bytes(tmp_path: Path, layout: Any) -> None:
    written = []
    for name, config in (("one", SMALL), ("two", SMALL), ("other", SMALL.derive(seed=1))):
        (tmp_path / name).mkdir()
        layout.write(config, tmp_path / name)
        written.append(contents(tmp_path / name))
    assert written[0] == written[1]
    assert written[0] != written[2]


@pytest.mark.parametrize(
    ("layout", "training", "measured"),
    [
        (coco, {"coco/train2017"}, {"coco/val2017"}),
        (
            coco,
            {"densepose/train2014", "densepose/valminusminival2014"},
            {"densepose/minival2014"},
        ),
        (lvis, {"lvis/train"}, {"lvis/val"}),
        (voc, {f"voc/{part}" for part in ("2007/train", "2007/val", "2012/train", "2012/val")},
         {"voc/2007/test"}),
        (voc, {"voc/2012/train"}, {"voc/2012/val"}),
        (ade20k, {"ade20k/training"}, {"ade20k/validation"}),
        (cityscapes, {"train"}, {"val"}),
    ],
)  # fmt: skip
def test_digits_that_are_measured_are_never_trained_on(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    layout: Any,
    training: set[str],
    measured: set[str],
) -> None:
    sources: dict[str, set[int]] = defaultdict(set)

    def watch(config: DigitsConfig, name: str, *arguments: Any, **more: Any) -> Any:
        for picture in render_pictures(config, name, *arguments, **more):
            sources[name] |= {thing.source for thing in picture.things if not thing.crowd}
            yield picture

    def watch_one(config: Any, digits: Any, *arguments: Any, **more: Any) -> Picture:
        name = "train" if len(digits.labels) == 1400 else "val"
        picture = render_picture(config, digits, *arguments, **more)
        sources[name] |= {thing.source for thing in picture.things if not thing.crowd}
        return picture

    for module in (coco, densepose, lvis, voc, ade20k):
        monkeypatch.setattr(module, "render_pictures", watch)
    monkeypatch.setattr(cityscapes, "render_picture", watch_one)
    layout.write(SMALL, tmp_path)
    learned = set[int]().union(*(sources[name] for name in training))
    asked = set[int]().union(*(sources[name] for name in measured))
    assert len(learned) > 30 and len(asked) > 15
    assert not learned & asked


def test_masks_boxes_and_polygons_agree() -> None:
    hidden = 0
    for picture in pictures():
        height, width = picture.pixels.shape[:2]
        seen = np.zeros((height, width), np.int64)
        for thing in picture.things:
            left, top, right, bottom = thing.box
            y, x = np.nonzero(thing.mask)
            assert 0 <= left < right <= width and 0 <= top < bottom <= height
            np.testing.assert_allclose(
                [left, top, right, bottom], [x.min(), y.min(), x.max() + 1, y.max() + 1], atol=1
            )
            assert thing.area >= 10
            assert 0 < thing.seen <= 1
            hidden += thing.seen < 0.95
            seen += thing.mask
        assert (seen > 1).mean() < 0.02  # outlines are simplified, so neighbours may touch
    assert hidden > 5


def test_a_hidden_keypoint_is_hidden_by_something_in_front() -> None:
    counts = np.zeros(3, int)
    for picture in pictures():
        for number, thing in enumerate(picture.things):
            if thing.crowd:
                continue
            front = np.zeros(thing.mask.shape, np.bool_)
            for other in picture.things[number + 1 :]:
                front |= other.outline
            x, y, visibility = thing.keypoints.T
            np.testing.assert_array_equal(visibility, np.where(front[y, x], 1, 2))
            counts += np.bincount(visibility, minlength=3)
            top, bottom = KEYPOINTS.index("top"), KEYPOINTS.index("bottom")
            assert y[top] < y[bottom]
            assert x[KEYPOINTS.index("left_4")] < x[KEYPOINTS.index("right_4")]
    assert counts[2] > counts[1] > 0


def test_digits_are_lighter_than_the_ground() -> None:
    for picture in pictures(20, crowds=0):
        light = picture.pixels.mean(axis=2)
        for thing in picture.things:
            assert np.percentile(light[thing.mask], 90) > np.median(light) + 40


def test_the_sheet_is_covered_once_and_is_its_own_mirror_image() -> None:
    corners = rectangles()
    assert np.prod(corners[:, 2:] - corners[:, :2], axis=1).sum() == pytest.approx(1)
    points = np.random.default_rng(0).uniform(0, 1, (500, 2))
    part, u, v = locate(points)
    inside = corners[part - 1]
    np.testing.assert_allclose(
        inside[:, :2] + np.stack([u, v], 1) * (inside[:, 2:] - inside[:, :2]), points
    )
    assert set(part) == set(range(1, 25))
    # As in DensePose: part 1 and 2 are their own mirror images, 3 and 4 each other's, and so on.
    partner = [0, 1, 2, *(number + (1 if number % 2 else -1) for number in range(3, 25))]
    coarse_partner = [0, 1, *(number + (-1 if number % 2 else 1) for number in range(2, 14)), 14]
    mirrored, other_u, other_v = locate(np.stack([1 - points[:, 0], points[:, 1]], 1))
    np.testing.assert_array_equal(mirrored, np.array(partner)[part])
    np.testing.assert_allclose(other_u, 1 - u, atol=1e-6)
    np.testing.assert_allclose(other_v, v, atol=1e-6)
    np.testing.assert_array_equal(COARSE[mirrored], np.array(coarse_partner)[COARSE[part]])


def test_the_polygons_of_cityscapes_name_what_its_pictures_show(tmp_path: Path) -> None:
    cityscapes.write(SMALL, tmp_path)
    names = set()
    for file in tmp_path.glob("gtFine/*/*/*_polygons.json"):
        document = json.loads(file.read_text())
        names |= {one["label"] for one in document["objects"]}
        assert all(len(one["polygon"]) >= 3 for one in document["objects"])
    assert {"road", "sky", "building", "pole", "traffic sign", *cityscapes.THINGS} <= names
    assert any(name.endswith("group") for name in names)


def test_pycocotools_loads_every_file_and_sees_the_same_masks(tmp_path: Path) -> None:
    official = pytest.importorskip("pycocotools.coco")
    coco.write(SMALL, tmp_path)
    files = sorted((tmp_path / "annotations").glob("*.json"))
    assert len(files) == 7
    for file in files:
        with contextlib.redirect_stdout(io.StringIO()):
            loaded = official.COCO(str(file))
        assert loaded.getAnnIds()
        for one in loaded.loadAnns(loaded.getAnnIds()):
            assert loaded.annToMask(one).sum() == one["area"]


def test_the_official_evaluation_gives_the_truth_full_marks(tmp_path: Path) -> None:
    official = pytest.importorskip("pycocotools.coco")
    evaluation = pytest.importorskip("pycocotools.cocoeval")
    coco.write(SMALL, tmp_path)
    with contextlib.redirect_stdout(io.StringIO()):
        for file, kind in (("instances", "bbox"), ("instances", "segm"),
                           ("person_keypoints", "keypoints")):  # fmt: skip
            truth = official.COCO(str(tmp_path / f"annotations/{file}_val2017.json"))
            found = [
                {**one, "score": 1.0}
                for one in truth.loadAnns(truth.getAnnIds())
                if not one["iscrowd"]
            ]
            run = evaluation.COCOeval(truth, truth.loadRes(found), kind)
            run.evaluate()
            run.accumulate()
            run.summarize()
            assert run.stats[0] == pytest.approx(1.0)


def test_the_official_library_loads_lvis(tmp_path: Path) -> None:
    np.float = float  # type: ignore[attr-defined] # its last release is of before NumPy 1.24
    lvis.write(SMALL, tmp_path)
    for split in ("train", "val"):
        loaded = LVIS(str(tmp_path / f"lvis_v0.5_{split}.json"))
        assert len(loaded.get_img_ids()) == (60 if split == "train" else 20)
        for one in loaded.load_anns(loaded.get_ann_ids()):
            assert loaded.ann_to_mask(one).sum() == one["area"]
        found = [{**one, "score": 1.0} for one in loaded.load_anns(loaded.get_ann_ids())]
        run = LVISEval(loaded, LVISResults(loaded, found), "segm")
        run.run()
        assert run.get_results()["AP"] == pytest.approx(1.0)
