from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from components.core.errors import DataError
from components.evaluation.voc import (
    CLASSES,
    THRESHOLDS,
    Detection,
    Truth,
    evaluate_voc,
    result_file,
    write_results,
)

SIDES = ("xmin", "ymin", "xmax", "ymax")
KINDS = ("cat", "dog", "sofa")
OBJECT = """<object><name>{}</name><pose>Left</pose><truncated>0</truncated>
<difficult>{}</difficult><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax>
</bndbox></object>"""


def write_truth(root: Path, objects: dict[str, list[tuple[Any, ...]]]) -> None:
    """Write VOC's layout; an object is class, difficult, xmin, ymin, xmax, ymax."""
    (root / "ImageSets" / "Main").mkdir(parents=True)
    (root / "Annotations").mkdir()
    (root / "ImageSets" / "Main" / "test.txt").write_text("\n".join(objects) + "\n")
    for image, found in objects.items():
        body = "".join(OBJECT.format(*one) for one in found)
        (root / "Annotations" / f"{image}.xml").write_text(f"<annotation>{body}</annotation>")


def read_truth(root: Path, split: str) -> dict[str, Truth]:
    """Read what `write_truth` wrote."""
    truth = {}
    for name in (root / f"ImageSets/Main/{split}.txt").read_text().split():
        objects = list(ElementTree.parse(root / f"Annotations/{name}.xml").iter("object"))
        boxes = [
            [float(side.text or "") for side in one.iter() if side.tag in SIDES] for one in objects
        ]
        truth[name] = Truth(
            names=tuple(one.findtext("name", "") for one in objects),
            boxes=np.array(boxes, np.float64).reshape(-1, 4),
            difficult=np.array([one.findtext("difficult") == "1" for one in objects], bool),
        )
    return truth


def random_world(root: Path, seed: int) -> list[Detection]:
    """Write random truth, some images empty and a third of objects difficult; return finds."""
    random = np.random.default_rng(seed)
    objects: dict[str, list[tuple[Any, ...]]] = {}
    detections = []
    for number in range(25):
        image = f"{number:06d}"
        objects[image] = []
        for _ in range(random.integers(0, 6)):
            corner, side = random.integers(1, 90, 2), random.integers(5, 60, 2)
            box = [*corner.tolist(), *(corner + side).tolist()]
            kind = str(random.choice(KINDS))
            objects[image].append((kind, int(random.random() < 0.3), *box))
            for _ in range(random.integers(0, 4)):
                left, top, right, bottom = np.array(box) + random.normal(size=4) * 3
                score = round(float(random.random()), 6)
                moved = (left - 1, top - 1, max(right, left), max(bottom, top))
                detections.append(Detection(image, kind, score, moved))
        detections += [
            Detection(image, str(random.choice(KINDS)), random.random(), (1.0, 2.0, 30.0, 40.0))
            for _ in range(random.integers(0, 3))
        ]
    write_truth(root, objects)
    return detections


def plain_ap(root: Path, folder: Path, name: str, threshold: float) -> tuple[float, float]:
    """State VOC's metric once more, one detection after the other: 11 points, and area."""
    truth = read_truth(root, "test")
    lines = [line.split() for line in (folder / result_file("test", name)).read_text().splitlines()]
    taken: set[tuple[str, int]] = set()
    total = sum(
        one.names[index] == name and not one.difficult[index]
        for one in truth.values()
        for index in range(len(one.names))
    )
    right = wrong = 0
    curve = [(0.0, 1.0)]
    for image, _, *corners in sorted(lines, key=lambda line: -float(line[1])):
        box = [float(value) for value in corners]
        best, chosen = -1.0, -1
        for index, other in enumerate(truth[image].boxes.tolist()):
            if truth[image].names[index] == name:
                overlap = iou(box, other)
                if overlap > best:
                    best, chosen = overlap, index
        if best > threshold:
            if truth[image].difficult[chosen]:
                continue
            right += (image, chosen) not in taken
            wrong += (image, chosen) in taken
            taken.add((image, chosen))
        else:
            wrong += 1
        curve.append((right / total, right / (right + wrong)))
    points = [
        max((p for r, p in curve[1:] if r >= recall), default=0.0)
        for recall in np.arange(0.0, 1.1, 0.1)
    ]
    area = sum(
        (after[0] - before[0]) * max(p for r, p in curve[1:] if r >= after[0])
        for before, after in pairwise(curve)
    )
    return sum(points) / 11, area


def iou(one: list[float], other: list[float]) -> float:
    width = max(min(one[2], other[2]) - max(one[0], other[0]) + 1, 0)
    height = max(min(one[3], other[3]) - max(one[1], other[1]) + 1, 0)
    sizes = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (one, other)]
    return width * height / (sum(sizes) - width * height)


@pytest.mark.parametrize("seed", range(5))
def test_every_figure_is_that_of_a_plain_statement(seed: int, tmp_path: Path) -> None:
    detections = random_world(tmp_path, seed)
    truth = read_truth(tmp_path, "test")
    write_results(tmp_path, "test", detections, truth, KINDS)

    figures = evaluate_voc(truth, tmp_path, "test", KINDS)

    table = np.array(
        [[plain_ap(tmp_path, tmp_path, kind, t) for t in THRESHOLDS] for kind in KINDS]
    )
    for column, suffix in enumerate(("", "_area")):
        expected = table[:, :, column].mean(0) * 100
        assert figures.values["AP" + suffix] == pytest.approx(expected.mean(), abs=1e-9)
        assert figures.values["AP50" + suffix] == pytest.approx(expected[0], abs=1e-9)
        assert figures.values["AP75" + suffix] == pytest.approx(expected[5], abs=1e-9)
    assert 5 < figures.values["AP"] < figures.values["AP50"] < 95
    assert list(figures.per_class) == list(KINDS)


@pytest.mark.parametrize("seed", range(3))
def test_every_figure_is_that_of_detectron2(seed: int, tmp_path: Path) -> None:
    module = pytest.importorskip("detectron2.evaluation.pascal_voc_evaluation")
    detections = random_world(tmp_path, seed)
    truth = read_truth(tmp_path, "test")
    write_results(tmp_path, "test", detections, truth, KINDS)

    figures = evaluate_voc(truth, tmp_path, "test", KINDS)

    def ap(threshold: float, points: bool) -> float:
        files = (
            str(tmp_path / "comp4_det_test_{}.txt"),
            str(tmp_path / "Annotations" / "{}.xml"),
            str(tmp_path / "ImageSets" / "Main" / "test.txt"),
        )
        found = [module.voc_eval(*files, kind, threshold, points)[2] for kind in KINDS]
        return float(np.mean(found)) * 100

    mean = np.mean([ap(threshold, True) for threshold in THRESHOLDS])
    assert figures.values["AP"] == pytest.approx(float(mean), abs=1e-9)
    assert figures.values["AP75"] == pytest.approx(ap(0.75, True), abs=1e-9)
    assert figures.values["AP50_area"] == pytest.approx(ap(0.5, False), abs=1e-9)


def test_a_box_written_is_the_box_annotated(tmp_path: Path) -> None:
    """Pixels 0 to 9 are xmin 1 to xmax 10 in VOC's files, and edges 0 to 10 here."""
    write_truth(tmp_path, {"a": [("dog", 0, 1, 1, 10, 20)]})
    truth = read_truth(tmp_path, "test")

    write_results(tmp_path, "test", [Detection("a", "dog", 0.9, (0, 0, 10, 20))], truth, ("dog",))

    text = (tmp_path / "comp4_det_test_dog.txt").read_text()
    assert text == "a 0.900000 1.000000 1.000000 10.000000 20.000000\n"
    assert evaluate_voc(truth, tmp_path, "test", ("dog",)).values["AP"] == pytest.approx(100)


def test_a_difficult_object_is_neither_found_nor_missed(tmp_path: Path) -> None:
    write_truth(tmp_path, {"a": [("dog", 0, 1, 1, 10, 20), ("dog", 1, 51, 51, 60, 70)]})
    truth = read_truth(tmp_path, "test")
    easy = Detection("a", "dog", 0.5, (0, 0, 10, 20))
    hard = Detection("a", "dog", 0.9, (50, 50, 60, 70))
    for detections in ([easy], [easy, hard], [easy, hard, hard]):
        write_results(tmp_path, "test", detections, truth, ("dog",))
        assert evaluate_voc(truth, tmp_path, "test", ("dog",)).values["AP50"] == pytest.approx(100)


def test_a_class_that_is_not_there_is_left_out(tmp_path: Path) -> None:
    write_truth(tmp_path, {"a": [("dog", 0, 1, 1, 10, 20), ("cat", 1, 1, 1, 9, 9)]})
    truth = read_truth(tmp_path, "test")
    write_results(tmp_path, "test", [Detection("a", "cat", 0.9, (0, 0, 10, 20))], truth)

    figures = evaluate_voc(truth, tmp_path, "test")

    assert figures.per_class == {"dog": 0.0}
    assert figures.values["AP"] == 0
    assert len(list(tmp_path.glob("comp4_det_test_*.txt"))) == len(CLASSES) == 20


@pytest.mark.parametrize(
    ("detection", "fault"),
    [
        (Detection("b", "dog", 0.9, (0, 0, 1, 1)), "image 'b' is unknown"),
        (Detection("a", "digit", 0.9, (0, 0, 1, 1)), "class 'digit' is unknown"),
        (Detection("a", "dog", 0.9, (4, 0, 4, 1)), "has no area"),
        (Detection("a", "dog", float("inf"), (0, 0, 1, 1)), "score inf is not a finite number"),
    ],
)
def test_a_detection_that_cannot_be_evaluated_is_refused(
    detection: Detection, fault: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=fault):
        write_results(tmp_path, "test", [detection], ["a"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("b 0.5 1 2 3 4", "line 1: image 'b' is unknown"),
        ("a 0.5 1 2 3", "line 1 is not an image, a score and four coordinates"),
        ("a much 1 2 3 4", "line 1 is not an image, a score and four coordinates"),
        ("a nan 1 2 3 4", "line 1: a number is not finite"),
    ],
)
def test_a_malformed_result_file_is_refused(line: str, fault: str, tmp_path: Path) -> None:
    write_truth(tmp_path, {"a": [("dog", 0, 1, 1, 10, 20)]})
    (tmp_path / "comp4_det_test_dog.txt").write_text(line + "\n")
    with pytest.raises(DataError, match=rf"comp4_det_test_dog\.txt: {fault}"):
        evaluate_voc(read_truth(tmp_path, "test"), tmp_path, "test", ("dog",))


def test_a_missing_result_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*comp4_det_test_aeroplane\.txt"):
        evaluate_voc({}, tmp_path, "test")
