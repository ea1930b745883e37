import copy
import json
from pathlib import Path

import numpy as np
import pytest
from lvis import LVIS, LVISEval, LVISResults

from components.core.errors import DataError
from components.evaluation.annotations import Kind, Record
from components.evaluation.lvis import DETECTIONS, evaluate_lvis
from components.evaluation.results import encode_mask
from tests.evaluation.making import World, stripped


def reference(
    annotations: Record, results: list[Record], kind: Kind, folder: Path
) -> dict[str, float]:
    """Return the figures of the `lvis` package in percent; those it has not measured left out."""
    np.float = float  # type: ignore[attr-defined] # lvis 0.5.3 uses a name that numpy gave up
    (folder / "truth.json").write_text(json.dumps(annotations))
    truth = LVIS(str(folder / "truth.json"))
    evaluation = LVISEval(truth, LVISResults(truth, stripped(results, kind)), kind)
    evaluation.run()
    figures = evaluation.get_results()
    return {name: value * 100 for name, value in figures.items() if name[:2] == "AP" and value > -1}


def two_classes() -> tuple[Record, Record]:
    """Return annotations of one image with a dog found, and a prediction of it."""
    box = {"image_id": 1, "category_id": 5, "bbox": [0.0, 0.0, 20.0, 20.0]}
    annotations = {
        "images": [
            {
                **{"id": 1, "height": 50, "width": 50},
                **{"neg_category_ids": [], "not_exhaustive_category_ids": []},
            },
        ],
        "categories": [
            {"id": 5, "name": "dog", "frequency": "r"},
            {"id": 9, "name": "cat", "frequency": "f"},
        ],
        "annotations": [{**box, "id": 1, "area": 400.0}],
    }
    return annotations, {**box, "score": 0.5}


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(12))
def test_every_figure_is_that_of_lvis(kind: Kind, seed: int, tmp_path: Path) -> None:
    world = World(seed, federated=True)

    figures = evaluate_lvis(world.annotations, world.results, kind)

    expected = reference(world.annotations, world.results, kind, tmp_path)
    assert figures.values.keys() == expected.keys()
    for name, value in expected.items():
        assert abs(figures.values[name] - value) < 1e-9, name


def test_what_has_no_area_takes_no_part(tmp_path: Path) -> None:
    world = World(4, federated=True)
    world.annotations["annotations"][0]["area"] = 0.0
    sizes = {one["id"]: (one["height"], one["width"]) for one in world.annotations["images"]}
    for result in world.results[::5]:
        result["segmentation"] = encode_mask(np.zeros(sizes[result["image_id"]], np.uint8))

    figures = evaluate_lvis(world.annotations, world.results, "segm")

    expected = reference(world.annotations, world.results, "segm", tmp_path)
    assert figures.values == pytest.approx(expected, abs=1e-9)


def test_a_class_is_judged_only_where_it_is_known_to_be_absent() -> None:
    annotations, dog = two_classes()
    cat = {**dog, "category_id": 9, "score": 0.9}
    annotations["annotations"].append(
        {**annotations["annotations"][0], "id": 2, "image_id": 2, "category_id": 9}
    )
    annotations["images"].append({**annotations["images"][0], "id": 2})
    found = {**cat, "image_id": 2, "score": 0.1}

    unknown = evaluate_lvis(annotations, [dog, cat, found], "bbox")
    annotations["images"][0]["neg_category_ids"] = [9]
    absent = evaluate_lvis(annotations, [dog, cat, found], "bbox")

    assert unknown.values["APf"] == pytest.approx(100)
    assert absent.values["APf"] == pytest.approx(50)
    assert absent.values["APr"] == pytest.approx(100)


def test_a_second_dog_is_no_mistake_where_not_all_dogs_are_annotated() -> None:
    annotations, dog = two_classes()
    other = {**dog, "bbox": [25.0, 25.0, 20.0, 20.0], "score": 0.9}

    strict = evaluate_lvis(annotations, [dog, other], "bbox")
    annotations["images"][0]["not_exhaustive_category_ids"] = [5]
    lenient = evaluate_lvis(annotations, [dog, other], "bbox")

    assert strict.values["AP"] == pytest.approx(50)
    assert lenient.values["AP"] == pytest.approx(100)


def test_only_the_300_most_certain_of_all_classes_count() -> None:
    annotations, dog = two_classes()
    cats = [{**dog, "category_id": 9, "score": 0.9} for _ in range(DETECTIONS)]

    assert evaluate_lvis(annotations, [dog, *cats[1:]], "bbox").values["AP"] == pytest.approx(100)
    assert evaluate_lvis(annotations, [dog, *cats], "bbox").values["AP"] == 0


def test_annotations_of_coco_are_refused() -> None:
    world = World(1)
    with pytest.raises(DataError, match="no neg_category_ids: these are not LVIS annotations"):
        evaluate_lvis(world.annotations, world.results, "bbox")
    world = World(1, federated=True)
    annotations = copy.deepcopy(world.annotations)
    del annotations["categories"][0]["frequency"]
    with pytest.raises(DataError, match="has no frequency r, c or f"):
        evaluate_lvis(annotations, world.results, "bbox")
