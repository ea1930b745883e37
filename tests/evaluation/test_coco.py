import contextlib
import copy
import io

import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from components.core.errors import DataError
from components.evaluation.annotations import Kind, Record
from components.evaluation.coco import evaluate_coco
from tests.evaluation.making import World, stripped

NAMES: dict[Kind, tuple[str, ...]] = {
    "bbox": ("AP", "AP50", "AP75", "APs", "APm", "APl"),
    "segm": ("AP", "AP50", "AP75", "APs", "APm", "APl"),
    "keypoints": ("AP", "AP50", "AP75", "APm", "APl"),
}


def reference(annotations: Record, results: list[Record], kind: Kind) -> dict[str, float]:
    """Return pycocotools' figures in percent; those it has not measured (-1) are left out."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(annotations)
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(stripped(results, kind)), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {
        name: value * 100
        for name, value in zip(NAMES[kind], evaluation.stats.tolist(), strict=False)
        if value > -1
    }


@pytest.mark.parametrize("kind", ["bbox", "segm", "keypoints"])
@pytest.mark.parametrize("seed", range(12))
def test_every_figure_is_that_of_pycocotools(kind: Kind, seed: int) -> None:
    world = World(seed)

    figures = evaluate_coco(world.annotations, world.results, kind)

    expected = reference(world.annotations, world.results, kind)
    assert figures.values.keys() == expected.keys()
    for name, value in expected.items():
        assert abs(figures.values[name] - value) < 1e-9, name
    assert 0 < figures.values["AP"] < 100
    mean = sum(figures.per_class.values()) / len(figures.per_class)
    assert mean == pytest.approx(figures.values["AP"], abs=1e-9)


def test_perfect_boxes_give_100_percent() -> None:
    world = World(3)
    truth = [one for one in world.annotations["annotations"] if not one["iscrowd"]]
    results = [{**one, "score": 1.0} for one in truth]

    figures = evaluate_coco(world.annotations, results, "bbox")

    assert figures.values["AP"] == pytest.approx(100, abs=1e-9)


def test_no_prediction_at_all_is_an_ap_of_zero() -> None:
    world = World(3)
    assert evaluate_coco(world.annotations, [], "bbox").values["AP"] == 0


def test_a_range_without_objects_is_left_out_instead_of_minus_one() -> None:
    image = {"id": 1, "height": 50, "width": 50}
    box = {"id": 1, "image_id": 1, "category_id": 5, "bbox": [0, 0, 9, 9], "area": 81.0}
    annotations = {
        "images": [image],
        "categories": [{"id": 5, "name": "dot"}, {"id": 9, "name": "nowhere"}],
        "annotations": [{**box, "iscrowd": 0}],
    }

    figures = evaluate_coco(annotations, [{**box, "score": 0.5}], "bbox")

    assert figures.values.keys() == {"AP", "AP50", "AP75", "APs"}
    assert figures.per_class == {"dot": pytest.approx(100)}


def test_nothing_given_is_changed() -> None:
    world = World(5)
    before = copy.deepcopy((world.annotations, world.results))

    evaluate_coco(world.annotations, world.results, "segm")

    assert (world.annotations, world.results) == before


def test_predictions_of_another_data_set_are_refused() -> None:
    world = World(2)
    results = [{**one, "image_id": one["image_id"] + 100_000} for one in world.results]
    with pytest.raises(DataError, match=r"image id \d+ is unknown.*and [\d,]+ more"):
        evaluate_coco(world.annotations, results, "bbox")
