import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cityscapesscripts.evaluation import evalInstanceLevelSemanticLabeling as InstanceScript
from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as PixelScript
from cityscapesscripts.helpers.labels import labels
from PIL import Image

from components.core.errors import DataError
from components.evaluation.cityscapes import (
    CLASSES,
    THINGS,
    Instance,
    evaluate_instances,
    evaluate_labels,
    read_instances,
    to_label_ids,
    to_train_ids,
    write_instances,
)
from components.evaluation.semantic import write_label_map

SIZE = (96, 128)
STUFF = (0, 4, 7, 11, 23)
SAME = 3  # identities of a class


def write_world(root: Path, seed: int) -> tuple[Path, Path]:
    """Write three images with instances, small ones, groups and void, and finds of them."""
    random = np.random.default_rng(seed)
    truth, found = root / "gtFine" / "val", root / "found"
    (truth / "aachen").mkdir(parents=True)
    found.mkdir()
    for number in range(3):
        image = f"aachen_{number:06d}_000019"
        scene = np.full(SIZE, 7, np.uint16)
        instances = []
        for _ in range(30):
            where = rectangle(random)
            kind = random.random()
            label = int(random.choice([24, 26, 26, 33]))
            if kind < 0.3:
                scene[where] = random.choice(STUFF)
            elif kind < 0.4:
                scene[where] = label
            else:
                scene[where] = label * 1000 + random.integers(0, SAME)
            for _ in range(random.integers(0, 3)):
                by = random.integers(-3, 4, 2).tolist()
                mask = np.zeros(SIZE, bool)
                mask[where] = True
                score = round(float(random.random()), 1)
                instances.append(Instance(label, score, np.roll(mask, by, (0, 1))))
        for identity in np.unique(scene[scene >= 1000])[::2]:
            score = float(random.random())
            instances.append(Instance(int(identity) // 1000, score, scene == identity))
        Image.fromarray(scene).save(truth / "aachen" / f"{image}_gtFine_instanceIds.png")
        write_instances(found, image, instances)
    return truth, found


def rectangle(random: np.random.Generator) -> tuple[slice, slice]:
    top, left = random.integers(0, SIZE)
    height, width = random.integers(4, 45, 2)
    return slice(top, top + height), slice(left, left + width)


def official_instances(
    truth: Path, found: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """Return the averages of the published script."""
    monkeypatch.setattr(np, "in1d", np.isin, raising=False)  # numpy gave the old name up
    # It would leave all matches in the working folder.
    monkeypatch.setattr(InstanceScript, "writeDict2JSON", lambda *_: None)
    args = InstanceScript.args
    settings = {
        "gtInstancesFile": str(folder / "gtInstances.json"),
        "predictionPath": str(found),
        "JSONOutput": False,
        "quiet": True,
    }
    for name, value in settings.items():
        monkeypatch.setattr(args, name, value)
    images = sorted(truth.glob("*/*_instanceIds.png"))
    predictions = [
        found / image.name.replace("gtFine_instanceIds.png", "pred.txt") for image in images
    ]
    result: dict[str, Any] = InstanceScript.evaluateImgLists(
        [str(one) for one in predictions], [str(one) for one in images], args
    )
    averages: dict[str, Any] = result["averages"]
    return averages


@pytest.mark.parametrize("seed", range(8))
def test_instance_figures_are_those_of_the_published_script(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth, found = write_world(tmp_path, seed)

    figures = evaluate_instances(truth, found)

    expected = official_instances(truth, found, tmp_path, monkeypatch)
    assert figures.values["AP"] == pytest.approx(expected["allAp"] * 100, abs=1e-9)
    assert figures.values["AP50"] == pytest.approx(expected["allAp50%"] * 100, abs=1e-9)
    assert 1 < figures.values["AP"] < figures.values["AP50"] < 99
    classes = {
        name: values["ap"] * 100
        for name, values in expected["classes"].items()
        if not np.isnan(values["ap"])
    }
    assert figures.per_class == pytest.approx(classes, abs=1e-9)


def test_a_small_group_weighs_double_as_in_the_published_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth, found = tmp_path / "val", tmp_path / "found"
    (truth / "ulm").mkdir(parents=True)
    found.mkdir()
    scene = np.full(SIZE, 7, np.uint16)
    scene[:20, :20] = 26_000
    scene[50:60, 50:56] = 26  # a group of 60 pixels
    Image.fromarray(scene).save(truth / "ulm" / "ulm_000000_000019_gtFine_instanceIds.png")
    stray = np.zeros(SIZE, bool)
    stray[50:60, 53:63] = True  # 30 of its 100 pixels on the group
    write_instances(
        found,
        "ulm_000000_000019",
        [Instance(26, 0.9, stray), Instance(26, 0.5, scene == 26_000)],
    )

    figures = evaluate_instances(truth, found)

    expected = official_instances(truth, found, tmp_path, monkeypatch)
    assert figures.values["AP50"] == pytest.approx(100)
    assert figures.values["AP"] == pytest.approx(expected["allAp"] * 100, abs=1e-9)
    assert figures.values["AP"] < 80


@pytest.mark.parametrize("seed", range(3))
def test_miou_is_that_of_the_published_script(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(seed)
    truth, found = tmp_path / "val", tmp_path / "found"
    (truth / "ulm").mkdir(parents=True)
    found.mkdir()
    pairs = []
    for number in range(3):
        name = f"ulm_{number:06d}_000019"
        true = random.integers(0, 32, SIZE)  # every void label; neither motorcycle nor bicycle
        guess = np.where(random.random(SIZE) < 0.6, true, random.integers(0, 32, SIZE))
        pairs.append((truth / "ulm" / f"{name}_gtFine_labelIds.png", found / f"{name}_pred.png"))
        write_label_map(pairs[-1][0], true)
        write_label_map(pairs[-1][1], guess)

    figures = evaluate_labels(truth, found)

    args = PixelScript.args
    for setting, value in {"JSONOutput": False, "quiet": True, "evalInstLevelScore": False}.items():
        monkeypatch.setattr(args, setting, value)
    expected = PixelScript.evaluateImgLists(
        [str(one) for _, one in pairs], [str(one) for one, _ in pairs], args
    )
    assert figures.values["mIoU"] == pytest.approx(expected["averageScoreClasses"] * 100, abs=1e-9)
    classes = {
        name: iou * 100 for name, iou in expected["classScores"].items() if not np.isnan(iou)
    }
    assert figures.per_class == pytest.approx(classes, abs=1e-9)
    assert len(classes) == 17


def test_a_label_id_that_no_class_has_is_refused(tmp_path: Path) -> None:
    truth = tmp_path / "gtFine" / "val"
    (truth / "ulm").mkdir(parents=True)
    write_label_map(truth / "ulm" / "ulm_000000_000019_gtFine_labelIds.png", np.full((2, 3), 7))
    found = tmp_path / "found"
    found.mkdir()
    write_label_map(found / "ulm_000000_000019.png", np.full((2, 3), 34))
    with pytest.raises(DataError, match=r"ulm_000000_000019\.png: label id 34 is unknown"):
        evaluate_labels(truth, found)


def test_the_classes_are_those_of_the_published_table() -> None:
    evaluated = {one.id: one.name for one in labels if not one.ignoreInEval}
    assert evaluated == CLASSES
    assert tuple(one.id for one in labels if one.hasInstances and not one.ignoreInEval) == THINGS
    ids = np.array([one.id for one in labels if one.id >= 0])
    train_ids = np.array(
        [one.trainId if one.trainId >= 0 else 255 for one in labels if one.id >= 0]
    )
    np.testing.assert_array_equal(to_train_ids(ids), train_ids)
    np.testing.assert_array_equal(to_train_ids(to_label_ids(np.arange(19))), np.arange(19))


def test_instances_survive_their_files(tmp_path: Path) -> None:
    mask = np.zeros(SIZE, bool)
    mask[3:9, 4:50] = True
    write_instances(
        tmp_path,
        "ulm_000000_000019",
        [Instance(26, 1 / 3, mask), Instance(24, 0.5, np.zeros(SIZE, bool))],
    )

    (instance,) = read_instances(tmp_path / "ulm_000000_000019_pred.txt")

    assert (instance.label, instance.score) == (26, 1 / 3)
    np.testing.assert_array_equal(instance.mask, mask)


def test_predictions_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    truth, found = write_world(tmp_path, 1)
    mask = np.ones(SIZE, bool)
    with pytest.raises(DataError, match=r"label id 13 is not one of .*not train ids"):
        write_instances(found, "aachen_000000_000019", [Instance(13, 0.5, mask)])
    with pytest.raises(DataError, match="score nan is not a finite number"):
        write_instances(found, "aachen_000000_000019", [Instance(26, float("nan"), mask)])

    file = found / "aachen_000000_000019_pred.txt"
    for line, fault in (
        ("mask.png 26", "line 1 is not a mask's path, a label id and a score"),
        ("../mask.png 26 0.5", "mask ../mask.png lies outside of the folder"),
        ("mask.png 99 0.5", "label id 99 is unknown"),
        ("mask.png 26 0.5", "cannot read the label map .*mask.png"),
    ):
        file.write_text(line + "\n")
        with pytest.raises(DataError, match=fault):
            evaluate_instances(truth, found)

    write_instances(found, "aachen_000000_000019", [Instance(26, 0.5, mask[:-1])])
    with pytest.raises(DataError, match=r"a mask is \(95, 128\), the image \(96, 128\)"):
        evaluate_instances(truth, found)
    shutil.copy(file, found / "aachen_000000_000019_again.txt")
    with pytest.raises(DataError, match=r"has 2 files aachen_000000_000019\*\.txt"):
        evaluate_instances(truth, found)
    with pytest.raises(DataError, match=r"has no CITY/\*_gtFine_instanceIds\.png"):
        evaluate_instances(found, truth)
