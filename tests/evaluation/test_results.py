import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as reference

from components.core.errors import DataError
from components.evaluation.annotations import Kind, check_annotations, read_annotations
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

    annotations = read_annotations(truth, kind)
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


def test_files_that_are_no_annotations_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "instances.json"
    with pytest.raises(DataError, match=r"cannot read the annotations .*instances\.json"):
        read_annotations(path, "bbox")
    for content, fault in (
        ("[1]", "not a JSON object"),
        ('{"images": [{"id": 1}]}', r"images\[0\] has no height, width; has no list 'annotations'"),
        ('{"images": [], "annotations": [], "categories": []}', "the split is empty"),
        ("{", "perhaps half downloaded"),
    ):
        path.write_text(content)
        with pytest.raises(DataError, match=fault):
            read_annotations(path, "bbox")
