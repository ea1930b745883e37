"""LVIS v0.5's average precision, over all classes and over rare, common and frequent ones.

A class is judged only on images where it is annotated or known to be absent
(`neg_category_ids`), and unmatched detections do not count where not every instance is
annotated (`not_exhaustive_category_ids`): "Detection and instance segmentation evaluation"
of Gupta et al. 2019. The evaluator is hotcoco, the oracle in the tests the `lvis` package.
"""

from collections import defaultdict
from collections.abc import Sequence

from hotcoco import COCO
from hotcoco import mask as rle

from components.core.errors import DataError
from components.evaluation.annotations import Kind, Record, check_annotations, with_own_ids
from components.evaluation.coco import areas, average, defined, only, per_class, precisions, run
from components.evaluation.figures import Figures
from components.evaluation.results import check_results

DETECTIONS = 300  # an image's, of all classes together
_FREQUENCIES = ("r", "c", "f")


def evaluate_lvis(annotations: Record, results: Sequence[Record], kind: Kind) -> Figures:
    """Return LVIS's AP, AP50, AP75, APs, APm, APl, APr, APc and APf.

    The 300 most certain detections of an image count. Annotations and detections without area
    (an empty mask) do not take part, as in the reference implementation.

    Args:
        annotations: The ground truth in LVIS v0.5's layout.
        results: Predictions in COCO's result format; further fields are ignored.
        kind: Boxes or masks.

    Raises:
        DataError: if the annotations or the predictions cannot be evaluated as they are.
    """
    check_annotations(annotations, kind)
    annotations = with_own_ids(annotations)
    _check_federation(annotations)
    check_results(results, annotations, kind)
    truth = {**annotations, "annotations": [a for a in annotations["annotations"] if a["area"] > 0]}
    capped = with_area(most_certain(only(results, kind)), kind)
    evaluation = run(COCO(truth), capped, kind, federated=True)
    precision = precisions(evaluation)
    categories = sorted(annotations["categories"], key=lambda category: category["id"])
    groups = {
        f"AP{letter}": average(
            precision[:, :, [category["frequency"] == letter for category in categories]]
        )
        for letter in _FREQUENCIES
    }
    return Figures(
        values=defined(
            {
                "AP": average(precision),
                "AP50": average(precision[0]),
                "AP75": average(precision[5]),
            }
            | areas(evaluation)
            | groups
        ),
        per_class=per_class(precision, annotations),
    )


def most_certain(results: Sequence[Record]) -> list[Record]:
    """Keep the 300 detections of each image with the highest scores; of equals, the first ones."""
    of_image: dict[int, list[Record]] = defaultdict(list)
    for result in results:
        of_image[result["image_id"]].append(result)
    return [
        result
        for records in of_image.values()
        for result in sorted(records, key=lambda record: -record["score"])[:DETECTIONS]
    ]


def with_area(results: list[Record], kind: Kind) -> list[Record]:
    """Leave out empty masks; a box without area was refused before."""
    if kind != "segm" or not results:
        return results
    sizes = rle.area([result["segmentation"] for result in results])
    return [result for result, size in zip(results, sizes, strict=True) if size > 0]


def _check_federation(annotations: Record) -> None:
    for image in annotations["images"]:
        for field in ("neg_category_ids", "not_exhaustive_category_ids"):
            if field not in image:
                raise DataError(
                    f"image {image['id']} has no {field}: these are not LVIS annotations; "
                    "COCO's own need COCO's metric"
                )
    for category in annotations["categories"]:
        if category.get("frequency") not in _FREQUENCIES:
            raise DataError(
                f"category {category['id']} has no frequency r, c or f: these are not LVIS "
                "annotations; COCO's own need COCO's metric"
            )
