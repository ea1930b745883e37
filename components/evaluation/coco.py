"""COCO's average precision for boxes, masks and keypoints.

The evaluator is hotcoco, a port of pycocotools to Rust: the tests compare all figures with
pycocotools itself on random detections with crowds, ties, empty images and every area range.
"""

import contextlib
import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from hotcoco import COCO, COCOeval

from components.evaluation.annotations import Kind, Record, check_annotations, with_own_ids
from components.evaluation.figures import Figures
from components.evaluation.results import check_results

_FIELDS = {"bbox": "bbox", "segm": "segmentation", "keypoints": "keypoints"}
_AREAS = {"s": "small", "m": "medium", "l": "large"}
Slices = npt.NDArray[np.float64]


def evaluate_coco(annotations: Record, results: Sequence[Record], kind: Kind) -> Figures:
    """Return COCO's AP, AP50, AP75, APs, APm and APl (keypoints have no APs).

    100 detections an image and class count, 20 of keypoints. A detection's area is that of
    what is compared: its box, its mask, the extent of its keypoints, as COCO's server has it.

    Args:
        annotations: The ground truth in COCO's layout.
        results: Predictions in COCO's result format; further fields are ignored.
        kind: What is compared.

    Raises:
        DataError: if the annotations or the predictions cannot be evaluated as they are.
    """
    check_annotations(annotations, kind)
    annotations = with_own_ids(annotations)
    check_results(results, annotations, kind)
    evaluation = run(COCO(annotations), only(results, kind), kind)
    precision = precisions(evaluation)
    return Figures(
        values=defined(
            {
                "AP": average(precision),
                "AP50": average(precision[0]),
                "AP75": average(precision[5]),
            }
            | areas(evaluation)
        ),
        per_class=per_class(precision, annotations),
    )


def only(results: Sequence[Record], kind: Kind) -> list[Record]:
    """Return the predictions without what is not compared: an evaluator takes areas from it."""
    keep = ("image_id", "category_id", "score", _FIELDS[kind])
    return [{name: result[name] for name in keep} for result in results]


def run(
    truth: COCO, results: Sequence[Record] | COCO, kind: Kind, federated: bool = False
) -> COCOeval:
    """Match and accumulate; `federated` by LVIS's rules."""
    detections = results if isinstance(results, COCO) else truth.load_res(list(results))
    evaluation = COCOeval(truth, detections, kind, lvis_style=federated)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def precisions(evaluation: COCOeval, area: str = "all") -> Slices:
    """Return precision by IoU threshold, recall and class, (10, 101, C); -1 without truth."""
    accumulated = evaluation.eval
    assert accumulated is not None, "accumulate() was run"
    at = evaluation.params.area_rng_lbl.index(area)
    precision: Slices = np.asarray(accumulated["precision"])[:, :, :, at, -1]
    return precision


def areas(evaluation: COCOeval) -> dict[str, float]:
    """Return the AP of each area range that the kind has."""
    labels = evaluation.params.area_rng_lbl
    return {
        f"AP{letter}": average(precisions(evaluation, name))
        for letter, name in _AREAS.items()
        if name in labels
    }


def average(precision: Slices) -> float:
    """Return the mean precision in percent over what has ground truth; NaN if nothing has."""
    known = precision[precision > -1]
    return float(known.mean()) * 100 if known.size else float("nan")


def per_class(precision: Slices, annotations: Record) -> dict[str, float]:
    """Return the AP of each class by its name."""
    categories = sorted(annotations["categories"], key=lambda category: category["id"])
    return defined(
        {
            str(category["name"]): average(precision[:, :, index])
            for index, category in enumerate(categories)
        }
    )


def defined(values: dict[str, float]) -> dict[str, float]:
    """Leave out what is not a number."""
    return {name: value for name, value in values.items() if not np.isnan(value)}
