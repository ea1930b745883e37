import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as reference

from components.core.errors import DataError
from components.evaluation.annotations import Kind, check_annotations
from components.evaluation.coco import evaluate_coco
from components.evaluation.results import encode_mask, read_results, write_results
from tests.evaluation.making import World


def test_a_mask_survives_the_result_format() -> None:
    mask = np.random.default_rng(0).random((13, 40)) > 0.7

    encoded = json.loads(json.dumps(encode_mask(mask)))

    np.testing.assert_array_equal(reference.decode(encoded).astype(bool), mask)


@pytest.mark.parametrize("kind", ["bbox", "segm", "keypoints"])
def test_stored_predictions_give_the_same_figures(kind: Kind, tmp_path: Path) -> None:
    world = World(8)
    truth, path = tmp_path / "instances_val2017.json", tmp_path / "results.json"
    truth.write_text(json.dumps(world.annotations))

    write_results(path, world.results, world.annotations, kind)

    annotations = json.loads(truth.read_text())
    stored = evaluate_coco(annotations, read_results(path, annotations, kind), kind)
    assert stored == evaluate_coco(world.annotations, world.results, kind)


@pytest.mark.parametrize(
    ("kind", "change", "fault"),
    [
        ("bbox", {"image_id": -4}, "prediction 1: image id -4 is unknown"),
        ("bbox", {"category_id": 77}, "prediction 1: category id 77 is unknown"),
        ("bbox", {"bbox": [3, 4, 0, 9]}, r"box \[3, 4, 0, 9\] has no area"),
        ("bbox", {"bbox": [float("nan"), 4, 1, 9]}, "is not finite"),
        ("bbox", {"bbox": [3, 4, 9]}, "prediction 1: it is malformed"),
        ("bbox", {"bbox": None}, "prediction 1: it is malformed"),
        ("bbox", {"score": float("nan")}, "score nan is not a finite number"),
        ("segm", {"segmentation": [[1, 1, 5, 5]]}, "not a compressed RLE"),
        ("segm", {"segmentation": {"size": [2, 2], "counts": "04"}}, r"the mask is \[2, 2\]"),
        ("keypoints", {"keypoints": [1.0, 2.0, 1.0]}, "3 numbers for keypoints instead of 51"),
    ],
)
def test_a_prediction_that_cannot_be_evaluated_is_refused(
    kind: Kind, change: dict[str, Any], fault: str, tmp_path: Path
) -> None:
    world = World(8)
    world.results[1] = {**world.results[1], **change}
    path = tmp_path / "results.json"

    with pytest.raises(DataError, match=fault) as error:
        write_results(path, world.results, world.annotations, kind)
    assert "same split and classes" in str(error.value)
    assert not path.exists()

    path.write_text(json.dumps(world.results))
    with pytest.raises(DataError, match=rf"results\.json: .*{fault}"):
        read_results(path, world.annotations, kind)


def test_a_prediction_without_a_field_is_refused(tmp_path: Path) -> None:
    world = World(8)
    del world.results[0]["score"]
    with pytest.raises(DataError, match="prediction 0: there is no 'score'"):
        write_results(tmp_path / "results.json", world.results, world.annotations, "bbox")


def test_something_else_than_a_list_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    with pytest.raises(DataError, match="cannot read the predictions"):
        read_results(path, World(1).annotations, "bbox")
    path.write_text("{}")
    with pytest.raises(DataError, match="is not a list of predictions"):
        read_results(path, World(1).annotations, "bbox")
    path.write_text("[{")
    with pytest.raises(DataError, match="is not JSON"):
        read_results(path, World(1).annotations, "bbox")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"image_id": 999_999}, "annotation 1 is on image 999999, which is not listed"),
        ({"category_id": 77}, "annotation 1 is of category 77, which is not listed"),
        ({"segmentation": [[1, 1, 5, 5]]}, "annotation 1 has a polygon of fewer than three points"),
        ({"segmentation": []}, "annotation 1 has a polygon of fewer than three points"),
    ],
)
def test_annotations_that_would_be_misread_are_refused(change: dict[str, Any], fault: str) -> None:
    annotations = World(8).annotations
    annotations["annotations"][0].update(change)
    with pytest.raises(DataError, match=fault):
        check_annotations(annotations, "segm")


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        ([1], "not a JSON object"),
        (
            {"images": [{"id": 1}]},
            r"images\[0\] has no height, width; has no list 'annotations'",
        ),
        ({"images": [], "annotations": [], "categories": []}, "the split is empty"),
        (
            {
                "images": [{"id": 1, "height": 2, "width": 2}] * 2,
                "annotations": [],
                "categories": [{"id": 1, "name": "a"}],
            },
            "2 images share the id 1",
        ),
    ],
)
def test_what_is_no_annotations_is_refused(document: Any, fault: str) -> None:
    with pytest.raises(DataError, match=fault):
        check_annotations(document, "bbox")


@pytest.mark.parametrize("kind", ["bbox", "segm", "keypoints"])
def test_whatever_the_ids_are_the_figures_are_the_same(kind: Kind) -> None:
    world = World(seed=3)
    figures = evaluate_coco(world.annotations, world.results, kind)
    of_image: Counter[int] = Counter()
    truth = [{**one} for one in world.annotations["annotations"]]
    for one in truth:  # counted anew in each image, as some exports do
        of_image[one["image_id"]] += 1
        one["id"] = of_image[one["image_id"]]
    assert len({one["id"] for one in truth}) < len(truth) / 2
    again = evaluate_coco({**world.annotations, "annotations": truth}, world.results, kind)
    assert again == figures
    if kind == "bbox":
        perfect = [
            {name: one[name] for name in ("image_id", "category_id", "bbox")} | {"score": 0.9}
            for one in truth
            if not one["iscrowd"]
        ]
        found = evaluate_coco({**world.annotations, "annotations": truth}, perfect, kind)
        assert found.values["AP"] == pytest.approx(100)
