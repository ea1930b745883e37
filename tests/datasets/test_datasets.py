import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from components.core.errors import DataError
from components.datasets.cityscapes.digits import THINGS
from components.datasets.coco.geometry import (
    EVALUATION_GEOMETRY,
    geometry_folder,
    read_distances,
    read_geometry,
    read_mirroring,
)
from components.datasets.instances import Instances, flip_pairs
from components.vision import rle
from components.vision.decoding import read_image
from components.vision.masks import read_values
from tests.datasets.readers import (
    read_cityscapes,
    read_coco,
    read_densepose,
    read_keypoints,
    read_lvis,
    read_set,
    read_voc,
)


@pytest.fixture
def coco(world: Path, tmp_path: Path) -> Path:
    """COCO's annotations, to be spoiled."""
    shutil.copytree(world / "coco" / "annotations", tmp_path / "annotations")
    return tmp_path


def edit(file: Path, change: Callable[[Any], object]) -> None:
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))


def tight_box(one: Instances, position: int) -> list[int]:
    y, x = np.nonzero(one.masks[position].decode())
    return [x.min(), y.min(), x.max() + 1, y.max() + 1]


def test_coco_is_read_as_it_was_written(world: Path) -> None:
    root = world / "coco"
    images = read_coco(root, "train2017")
    document = json.loads((root / "annotations/instances_train2017.json").read_text())
    assert len(images) == len(document["images"]) == 60
    assert len(images.labels) == len(document["annotations"])
    names = {one["id"]: one["name"] for one in document["categories"]}
    annotations = {one["id"]: one for one in document["annotations"]}
    for image in images:
        pixels = read_image(image.path)
        assert pixels.shape == (image.height, image.width, 3)
        for position in range(len(image)):
            record = annotations[image.ids[position]]
            assert str(record["image_id"]) == image.image_id
            left, top, width, height = record["bbox"]
            np.testing.assert_allclose(
                image.boxes[position], (left, top, left + width, top + height), atol=1e-4
            )
            label = images.categories.names[image.labels[position]]
            assert label == names[record["category_id"]]
            assert image.crowd[position] == record["iscrowd"]
            assert image.masks[position].decode().sum() == record["area"]
    assert images.crowd.any()
    assert any(len(image) == 0 for image in images)


def test_category_ids_with_gaps_become_labels_without(world: Path) -> None:
    categories = read_coco(world / "coco", "val2017").categories
    assert categories.ids.tolist() == [1, 2, 3, 4, 5, 7, 8, 9, 10, 11]
    assert len(categories) == 10


def test_annotations_in_any_order_go_to_their_images(coco: Path) -> None:
    before = read_coco(coco, "train2017")
    edit(
        coco / "annotations/instances_train2017.json",
        lambda document: (document["annotations"].reverse(), document["images"].reverse()),
    )
    after = read_coco(coco, "train2017")
    for one, other in zip(before, after, strict=True):
        assert one.path == other.path
        order = np.argsort(other.ids)
        np.testing.assert_array_equal(one.ids, other.ids[order])
        np.testing.assert_array_equal(one.boxes, other.boxes[order])
        for position, place in enumerate(order):
            np.testing.assert_array_equal(one.masks[position].decode(), other.masks[place].decode())


def test_keypoints_lie_on_their_digits_and_mirror_in_pairs(world: Path) -> None:
    images = read_keypoints(world / "coco", "train2017")
    names = images.categories.keypoints
    assert len(names) == 17
    pairs = flip_pairs(names)
    assert len(pairs) == 7
    assert {names[one].replace("left", "right") for one, _ in pairs} == {
        names[other] for _, other in pairs
    }
    seen = hidden = 0
    for image in images:
        assert image.keypoints is not None
        for position in range(len(image)):
            points = image.keypoints[position]
            if image.crowd[position]:
                assert not points.any()
                continue
            mask = np.pad(image.masks[position].decode(), 2)
            left, top, right, bottom = image.boxes[position]
            for x, y, visibility in points[1:]:
                near = mask[int(y) : int(y) + 5, int(x) : int(x) + 5]
                if visibility == 2:
                    assert near.any()
                    assert left - 2 <= x <= right + 2 and top - 2 <= y <= bottom + 2
                    seen += 1
                hidden += visibility == 1
    assert seen > 10 * hidden > 0


def test_densepose_points_agree_with_boxes_and_part_masks(world: Path) -> None:
    coarse = [0, 1, 1, 2, 3, 4, 5, 6, 7, 6, 7, 8, 9, 8, 9, 10, 11, 10, 11, 12, 13, 12, 13, 14, 14]
    agreeing = points = 0
    for split in ("train2014", "minival2014"):
        images = read_densepose(world / "coco", split)
        for image in images:
            assert len(image.surfaces) == len(image)
            for position, surface in enumerate(image.surfaces):
                if surface is None:
                    continue
                left, top, right, bottom = image.boxes[position]
                x = left + surface.x / 256 * (right - left)
                y = top + surface.y / 256 * (bottom - top)
                mask = image.masks[position].decode()
                assert mask[y.astype(int), x.astype(int)].all()
                assert surface.u.min() >= 0 and surface.v.max() <= 1
                parts = surface.parts()
                assert abs((parts > 0).mean() - mask.sum() / (right - left) / (bottom - top)) < 0.1
                shown = parts[surface.y.astype(int), surface.x.astype(int)]
                agreeing += int((shown == np.array(coarse)[surface.part]).sum())
                points += len(shown)
    assert points > 1000
    assert agreeing > 0.95 * points


def test_lvis_has_all_three_frequencies_and_says_what_is_absent(world: Path) -> None:
    images = read_lvis(world / "lvis", "train")
    categories = images.categories
    assert len(categories) == len(categories.frequencies) == 30
    assert images.absent is not None and images.not_exhaustive is not None
    assert {"r", "c"} <= set(categories.frequencies)
    shown = np.zeros(30, int)
    for image in images:
        shown[np.unique(image.labels)] += 1
        assert image.absent is not None and len(image.absent) == 3
        assert image.not_exhaustive is not None
        assert not set(image.absent) & set(image.labels)
        assert read_image(image.path).shape[:2] == (image.height, image.width)
    np.testing.assert_array_equal(shown, categories.image_counts)
    assert any(map(len, images.not_exhaustive))


def test_lvis_is_found_among_cocos_annotations(world: Path, tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    shutil.copy(world / "lvis" / "lvis_v0.5_val.json", tmp_path / "annotations")
    assert len(read_lvis(tmp_path, "val")) == 20
    with pytest.raises(DataError, match=r"lvis_v0\.5_train\.json: is missing"):
        read_lvis(tmp_path, "train")


def test_voc_boxes_hold_their_pixels_and_years_are_joined(world: Path) -> None:
    root = world / "voc"
    images = read_voc(root, ["2007/trainval", "2012/trainval"])
    assert len(images) == 30 + 40
    assert images.categories.names == tuple(sorted(images.categories.names))
    assert images[0].path.endswith("VOC2007/JPEGImages/000001.jpg")
    assert images[69].path.endswith("VOC2012/JPEGImages/2008_000040.jpg")
    for image in images:
        assert read_image(image.path).shape[:2] == (image.height, image.width)
        if len(image):
            assert image.boxes[:, :2].min() >= 0
            assert image.boxes[:, 2].max() <= image.width
            assert image.boxes[:, 3].max() <= image.height
    assert images.difficult.any() and not images.difficult.all()


def test_voc_segmentation_has_the_classes_of_detection(world: Path) -> None:
    root = world / "voc"
    boxes = {image.image_id: image for image in read_voc(root, ["2012/trainval"])}
    for split, count, ignored in (("train", 7, True), ("val", 10, True), ("train_aug", 30, False)):
        images = read_set("voc", root, split)
        assert len(images) == count
        assert images.classes[0] == "background" and len(images.classes) == 11
        for index in range(len(images)):
            labels = images.labels(index)
            own = boxes[images.image_id(index)]
            shown = set(np.unique(labels)) - {0, 255}
            assert shown == {label + 1 for label in own.labels}
            assert (labels == 255).any() == (ignored and len(own) > 0)


def test_cityscapes_instances_agree_with_its_classes(world: Path) -> None:
    root = world / "cityscapes"
    images = read_cityscapes(root, "train")
    classes = read_set("cityscapes", root, "train")
    assert len(images) == len(classes) == 30
    assert images.categories.names == THINGS
    for index, image in enumerate(images):
        labels = classes.labels(index)
        assert (labels != 255).all()
        for position in range(len(image)):
            mask = image.masks[position].decode()
            assert set(labels[mask]) == {11 + image.labels[position]}
            assert image.boxes[position].tolist() == tight_box(image, position)
            assert image.areas[position] == mask.sum()
    names = {
        classes.classes[one] for index in range(30) for one in np.unique(classes.labels(index))
    }
    assert {"road", "building", "sky", "pole", "traffic sign", *THINGS} == names
    assert images.crowd.any() and len(classes.classes) == 19


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["images"].pop(0), "names image 1, which does not exist"),
        (lambda d: d["categories"].pop(), "names category 11, which does not exist"),
        (lambda d: d["images"].clear(), "an empty split trains and measures nothing"),
        (
            lambda d: d["annotations"][0].update(bbox=[3, 4, 0, 5]),
            r"\[annotations\[0\], id \d+\]: has a box of 0×5 pixels, without area",
        ),
        (
            lambda d: d["annotations"][0].update(segmentation=[[1, 2, 3, 4]]),
            "has a polygon of 2 points instead of 3",
        ),
        (lambda d: d["annotations"][0].pop("bbox"), "has no bbox"),
        (lambda d: d.pop("categories"), "has no list 'categories'"),
    ],
)
def test_annotations_that_cannot_be_used_are_refused(
    coco: Path, change: Callable[[Any], None], message: str
) -> None:
    edit(coco / "annotations/instances_train2017.json", change)
    with pytest.raises(DataError, match=message):
        read_coco(coco, "train2017")


def test_what_a_refused_image_shows_is_not_said_to_show_nothing(coco: Path) -> None:
    edit(coco / "annotations/instances_train2017.json", lambda d: d["images"][0].pop("height"))
    with pytest.raises(DataError, match=r"id 1\]: has no height") as caught:
        read_coco(coco, "train2017")
    assert "does not exist" not in str(caught.value)


def test_numbers_that_exports_write_as_texts_or_floats_are_taken(coco: Path) -> None:
    def write_otherwise(document: Any) -> None:
        for number, one in enumerate(document["annotations"]):
            one["image_id"], one["category_id"] = str(one["image_id"]), float(one["category_id"])
            one["iscrowd"] = str(one["iscrowd"])
            if number % 2:
                one["area"] = None
        for image in document["images"]:
            image["id"], image["height"] = float(image["id"]), str(image["height"])

    before = read_coco(coco, "train2017")
    edit(coco / "annotations/instances_train2017.json", write_otherwise)
    after = read_coco(coco, "train2017")
    for column in ("boxes", "labels", "crowd", "starts", "sizes", "image_ids", "ids"):
        np.testing.assert_array_equal(getattr(after, column), getattr(before, column))
    assert 0 < after.crowd.sum() < len(after.crowd)


def test_instances_whose_ids_begin_anew_in_each_image_keep_what_is_theirs(coco: Path) -> None:
    def begin_anew(document: Any) -> None:
        of_image: dict[int, int] = {}
        for one in document["annotations"]:
            of_image[one["image_id"]] = one["id"] = of_image.get(one["image_id"], 0) + 1

    for name, read in (("person_keypoints", read_keypoints), ("densepose", read_densepose)):
        split = "train2017" if name == "person_keypoints" else "train2014"
        before = read(coco, split)
        edit(coco / f"annotations/{name}_{split}.json", begin_anew)
        after = read(coco, split)
        np.testing.assert_array_equal(after.keypoints, before.keypoints)
        assert len(set(after.ids.tolist())) == len(after.ids)
        for index in range(len(before)):
            for ours, theirs in zip(after[index].surfaces, before[index].surfaces, strict=True):
                assert (ours is None) == (theirs is None)
                assert ours is None or np.array_equal(ours.x, theirs.x)


@pytest.mark.parametrize("side", ["size", "counts"])
def test_run_lengths_of_another_size_are_refused(coco: Path, side: str) -> None:
    def change(document: Any) -> None:
        crowd = next(one for one in document["annotations"] if one["iscrowd"])
        if side == "size":
            crowd["segmentation"]["size"].reverse()
        else:
            crowd["segmentation"]["counts"] = [10, 20]

    edit(coco / "annotations/instances_train2017.json", change)
    match = r"has a mask of \[" if side == "size" else "has a mask whose runs are 30 pixels, not"
    with pytest.raises(DataError, match=match):
        read_coco(coco, "train2017")


def test_a_category_that_groups_others_is_none_of_the_people(coco: Path) -> None:
    file = coco / "annotations/person_keypoints_train2017.json"
    before = read_keypoints(coco, "train2017")
    edit(file, lambda d: d["categories"].insert(0, {"id": 0, "name": "all", "supercategory": "x"}))
    after = read_keypoints(coco, "train2017")
    assert after.categories.names == before.categories.names
    assert after.categories.keypoints == before.categories.keypoints
    np.testing.assert_array_equal(after.keypoints, before.keypoints)

    other = {"id": 99, "name": "dog", "keypoints": ["nose"], "skeleton": []}
    edit(file, lambda d: d["categories"].append(other))
    with pytest.raises(DataError, match=r"all name the same keypoints.*dog \(1\)"):
        read_keypoints(coco, "train2017")


def test_lvis_v1_is_told_from_v05(world: Path, tmp_path: Path) -> None:
    content = (world / "lvis/lvis_v0.5_train.json").read_text()
    (tmp_path / "lvis_v1_train.json").write_text(content)
    with pytest.raises(DataError, match=r"lvis_v1_train\.json is LVIS v1, A\.4 is of v0\.5"):
        read_lvis(tmp_path, "train")

    def grow(document: Any) -> None:
        one = document["categories"][-1]
        for number in range(1203 - len(document["categories"])):
            more = {"id": 9000 + number, "name": f"more {number}"}
            document["categories"].append({**one, **more})

    (tmp_path / "lvis_v0.5_train.json").write_text(content)
    edit(tmp_path / "lvis_v0.5_train.json", grow)
    with pytest.raises(DataError, match="the 1,203 classes of LVIS v1"):
        read_lvis(tmp_path, "train")


def test_one_box_without_area_in_thousands_is_left_out(coco: Path) -> None:
    def repeat(document: Any) -> None:
        one = next(one for one in document["annotations"] if not one["iscrowd"])
        document["annotations"] = [one | {"id": number} for number in range(2000)]
        document["annotations"][7]["bbox"] = [1, 1, 5, 0]

    edit(coco / "annotations/instances_train2017.json", repeat)
    images = read_coco(coco, "train2017")
    assert len(images.labels) == 1999
    assert 7 not in images.ids


def test_missing_and_broken_files_are_named(coco: Path) -> None:
    with pytest.raises(DataError, match=r"instances_val2014\.json: is missing"):
        read_coco(coco, "val2014")
    file = coco / "annotations/person_keypoints_val2017.json"
    file.write_text(file.read_text()[:-40])
    with pytest.raises(DataError, match="`moco data check keypoints"):
        read_keypoints(coco, "val2017")
    file = coco / "annotations/person_keypoints_train2017.json"
    edit(file, lambda document: document["annotations"][0].update(keypoints=[1, 2, 2]))
    with pytest.raises(DataError, match="has 1 keypoints, the category names 17"):
        read_keypoints(coco, "train2017")


def test_voc_faults_are_named(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "voc", tmp_path, dirs_exist_ok=True)
    xml = tmp_path / "VOC2007/Annotations/000001.xml"
    text = xml.read_text()
    for old, new, message in (
        ("</annotation>", "", "is not a VOC annotation"),
        ("<name>", "<name>un", "is none of the 10 classes"),
        ("<xmax>", "<xmax>-", "has a box from .*, without area"),
        ("<size>", "<sizes>", "is not a VOC annotation"),
    ):
        xml.write_text(text.replace(old, new))
        with pytest.raises(DataError, match=message):
            read_voc(tmp_path, ["2007/trainval"])
    (tmp_path / "VOC2007/ImageSets/Main/test.txt").write_text("\n")
    with pytest.raises(DataError, match="empty split"):
        read_voc(tmp_path, ["2007/test"])
    (tmp_path / "VOC2012/ImageSets/Segmentation/train_aug.txt").unlink()
    with pytest.raises(DataError, match="10,582"):
        read_set("voc", tmp_path, "train_aug")
    with pytest.raises(DataError, match="leftImg8bit"):
        read_cityscapes(tmp_path, "train")


def test_what_tools_and_systems_leave_in_voc_changes_nothing(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "voc", tmp_path, dirs_exist_ok=True)
    before = read_voc(tmp_path, ["2007/trainval", "2012/trainval"])
    for path in sorted(tmp_path.glob("VOC*/ImageSets/Main/*.txt")):
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\26\7")
    for number, path in enumerate(sorted(tmp_path.glob("VOC2007/Annotations/*.xml"))):
        odd = ("", "Unspecified", " 0 ")[number % 3]
        path.write_text(path.read_text().replace("<difficult>0<", f"<difficult>{odd}<"))
    after = read_voc(tmp_path, ["2007/trainval", "2012/trainval"])
    assert after.categories.names == before.categories.names
    np.testing.assert_array_equal(after.boxes, before.boxes)
    np.testing.assert_array_equal(after.difficult, before.difficult)

    listing = tmp_path / "VOC2007/ImageSets/Main/ours_trainval.txt"
    listing.write_text("000001 1\n")
    with pytest.raises(DataError, match=r"(?s)lists other classes than VOC2007: ours.*'ours'"):
        read_voc(tmp_path, ["2007/trainval", "2012/trainval"])


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("RGB", "has colours instead of instance numbers"),
        ("L", "has 8 bits a pixel, which hold no instance numbers"),
    ],
)
def test_what_is_no_picture_of_instances_is_refused(
    world: Path, tmp_path: Path, mode: str, message: str
) -> None:
    shutil.copytree(world / "cityscapes", tmp_path, dirs_exist_ok=True)
    path = sorted(tmp_path.glob("gtFine/train/*/*_instanceIds.png"))[0]
    Image.new(mode, Image.open(path).size).save(path)
    with pytest.raises(DataError, match=rf"{path.name}: {message}"):
        read_cityscapes(tmp_path, "train")


def test_numbers_for_training_are_no_labels_of_cityscapes(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "cityscapes", tmp_path, dirs_exist_ok=True)
    path = sorted(tmp_path.glob("gtFine/train/*/*_labelIds.png"))[0]
    labels = read_set("cityscapes", tmp_path, "train").labels(0)
    labels[0, :2] = 18, 255  # 255 is what does not count, in such a picture
    Image.fromarray(labels).save(path)
    read_values.cache_clear()
    with pytest.raises(DataError, match=rf"{path.name}: no number over 18 but 255"):
        read_set("cityscapes", tmp_path, "train").labels(0)


def test_geometry_measures_the_sheet(world: Path) -> None:
    folder = geometry_folder(world / "coco", EVALUATION_GEOMETRY, "training does")
    geometry = read_geometry(folder)
    assert set(geometry.part) == set(range(1, 25))
    torso = np.flatnonzero(geometry.part == 1)
    corners = [torso[0], torso[4], torso[20], torso[24]]  # of a 5 × 5 grid
    assert geometry.u[corners].tolist() == [0, 1, 0, 1]
    assert geometry.v[corners].tolist() == [0, 0, 1, 1]
    first, second = np.array([corners[0]] * 3), np.array([corners[0], corners[1], corners[2]])
    np.testing.assert_allclose(geometry.between(first, second), [0, 0.3, 0.68], rtol=1e-5)
    np.testing.assert_array_equal(geometry.between(first, second), geometry.between(second, first))
    mirror = read_mirroring(folder)
    np.testing.assert_allclose(mirror.u[3, 10], 1 - np.arange(256) / 255, atol=1e-6)
    np.testing.assert_allclose(mirror.v[3, :, 10], np.arange(256) / 255, atol=1e-6)


def test_missing_geometry_says_which_and_what_works(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"lacks SMPL_subdiv\.mat.*Without them, boxes are meas"):
        geometry_folder(tmp_path, EVALUATION_GEOMETRY, "boxes are measured")


class Evil:
    def __reduce__(self) -> Any:
        return (print, ("this must never run",))


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_distances_are_read_from_any_pickle_of_arrays(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "Pdist_matrix.pkl"
    values = np.arange(6, dtype=np.float64)[:, None] / 7
    for one in (values, values.astype(np.float32), np.asfortranarray(values.reshape(2, 3))):
        path.write_bytes(pickle.dumps({"Pdist_matrix": one}, protocol=protocol))
        np.testing.assert_array_equal(read_distances(path), one.ravel().astype(np.float32))


def test_a_pickle_that_runs_anything_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "Pdist_matrix.pkl"
    path.write_bytes(pickle.dumps({"Pdist_matrix": Evil()}))
    with pytest.raises(DataError, match=r"nothing of it was run.*builtins\.print"):
        read_distances(path)
    path.write_bytes(pickle.dumps({"Pdist_matrix": np.array([Evil()], object)}))
    with pytest.raises(DataError, match="nothing of it was run"):
        read_distances(path)
    assert capsys.readouterr().out == ""


def test_polygons_are_kept_in_single_precision_and_decode_as_written(world: Path) -> None:
    root = world / "coco"
    images = read_coco(root, "train2017")
    document = json.loads((root / "annotations/instances_train2017.json").read_text())
    segments = {one["id"]: one["segmentation"] for one in document["annotations"]}
    for image in images:
        for identity, mask in zip(image.ids, image.masks, strict=True):
            segment = segments[identity]
            if isinstance(segment, list):
                polygons = [np.array(one).reshape(-1, 2) for one in segment]
                expected = rle.fill(polygons, image.height, image.width)
                np.testing.assert_array_equal(mask.decode(), expected)
