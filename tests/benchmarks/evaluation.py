"""COCO's AP over 5,000 images with about 150,000 detections, against pycocotools.

Both start from parsed annotations and predictions and end with the figures; ours checks them too.
"""

import contextlib
import copy
import io
import statistics
import time
from typing import Any

import numpy as np
from hotcoco import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from components.evaluation.annotations import Kind, Record
from components.evaluation.coco import evaluate_coco, only

IMAGES, OBJECTS, DETECTIONS = 5_000, 7, 30  # val2017: 36,781 objects
CLASSES = 80
HEIGHT, WIDTH = 480, 640
CORNERS = np.linspace(0, 2 * np.pi, 24, endpoint=False)
GOAL = 20
ROUNDS = 3  # of ours; the peer's takes half a minute


def run() -> list[dict[str, Any]]:
    """Evaluate the same detections by both, boxes and masks."""
    annotations, results = make(np.random.default_rng(0))
    return [_compare(annotations, results, kind) for kind in ("bbox", "segm")]


def make(random: np.random.Generator) -> tuple[Record, list[Record]]:
    """Return ellipses as objects; a third of the detections are near one."""
    annotations: list[Record] = []
    results = []
    for image in range(IMAGES):
        objects = [_ellipse(random) for _ in range(OBJECTS)]
        classes = random.integers(1, CLASSES + 1, OBJECTS).tolist()
        for category, ellipse in zip(classes, objects, strict=True):
            record = {"image_id": image, "category_id": category, "iscrowd": 0}
            identity = len(annotations) + 1
            annotations.append({**record, "id": identity, **_shape(ellipse, polygon=True)})
        for _ in range(DETECTIONS):
            index = random.integers(0, OBJECTS)
            near = random.random() < 1 / 3
            ellipse = objects[index] + random.normal(size=4) * 3 if near else _ellipse(random)
            category = classes[index] if near else int(random.integers(1, CLASSES + 1))
            record = {"image_id": image, "category_id": category, "score": random.random()}
            results.append({**record, **_shape(ellipse, polygon=False)})
    document = {
        "info": {},
        "images": [{"id": one, "height": HEIGHT, "width": WIDTH} for one in range(IMAGES)],
        "categories": [{"id": one, "name": str(one)} for one in range(1, CLASSES + 1)],
        "annotations": annotations,
    }
    return document, results


def _compare(annotations: Record, results: list[Record], kind: Kind) -> dict[str, Any]:
    times = []
    for _ in range(ROUNDS):
        started = time.process_time()
        figures = evaluate_coco(annotations, results, kind)
        times.append(time.process_time() - started)
    ours = statistics.median(times)
    given = copy.deepcopy((annotations, only(results, kind)))
    started = time.process_time()
    expected = _reference(*given, kind)
    theirs = time.process_time() - started
    difference = abs(figures.values["AP"] - expected)
    assert difference < 1e-9
    return {
        "name": f"evaluate {kind}, {IMAGES:,} images, {len(results):,} detections",
        "ratio": round(theirs / ours, 1),
        "goal": GOAL,
        "detail": f"pycocotools {theirs:.1f} s, ours {ours:.2f} s of CPU, AP {expected:.2f} both",
    }


def _reference(annotations: Record, results: list[Record], kind: Kind) -> float:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = annotations
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0]) * 100


def _ellipse(random: np.random.Generator) -> Any:
    """Return centre and radii; areas from small to large."""
    radii = np.exp(random.uniform(np.log(6), np.log(120), 2))
    return np.concatenate((random.uniform(0, [WIDTH, HEIGHT]), radii))


def _shape(ellipse: Any, polygon: bool) -> Record:
    x, y, across, down = ellipse
    xs = np.clip(x + abs(across) * np.cos(CORNERS), 0, WIDTH)
    ys = np.clip(y + abs(down) * np.sin(CORNERS), 0, HEIGHT)
    corners = np.stack((xs, ys), 1).ravel().tolist()
    encoded = rle.fr_poly(corners, HEIGHT, WIDTH)
    width, height = max(float(np.ptp(xs)), 1.0), max(float(np.ptp(ys)), 1.0)
    mask = {"size": [HEIGHT, WIDTH], "counts": encoded["counts"].decode()}
    return {
        "bbox": [float(xs.min()), float(ys.min()), width, height],
        "area": float(rle.area(encoded)),
        "segmentation": [corners] if polygon else mask,
    }
