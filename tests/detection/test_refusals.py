"""What cannot be trained or measured is refused by name, before any step."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.core.errors import ConfigError, DataError, MocoError, UsageError
from components.core.main import execute
from components.core.stage import Job, Mount, load_stage
from components.detection.config import DetectionConfig
from components.detection.evaluate import EvaluateDetectionConfig
from components.detection.interface import Head
from components.detection.libraries import resolve
from components.detection.libraries.building import build_detector
from components.detection.measure import run as measure
from components.detection.model import ModelConfig
from components.detection.train import detect
from tests.detection.making import CONFIGS, DATA, PRESETS, run_here

Change = Callable[[Any], object]


def first(document: Any) -> Any:
    return document["annotations"][0]


def without_area(document: Any) -> None:
    for one in document["annotations"][:3]:
        one["bbox"][2] = 0


def two_points(document: Any) -> None:
    for one in document["annotations"][:3]:
        one["segmentation"] = [[1, 2, 3, 4]]


def unknown_category(document: Any) -> None:
    first(document)["category_id"] = 6  # in the gap


def other_classes(document: Any) -> None:
    document["categories"] = document["categories"][:-1]
    last = 11
    document["annotations"] = [a for a in document["annotations"] if a["category_id"] != last]


def only_crowds(document: Any) -> None:
    for one in document["annotations"]:
        one["iscrowd"] = 1


def empty(document: Any) -> None:
    document["images"], document["annotations"] = [], []


@pytest.fixture
def data(world: Path, tmp_path: Path) -> Path:
    """COCO's layout, its annotations to be spoiled."""
    root = tmp_path / "coco"
    root.mkdir()
    for folder in ("train2017", "val2017", "train2014", "val2014"):
        (root / folder).symlink_to(world / "coco" / folder)
    for folder in ("annotations", "densepose"):
        shutil.copytree(world / "coco" / folder, root / folder)
    return root


def refused(
    task: str, data: Path, backbone: Path, folder: Path, error: type[MocoError], **changes: Any
) -> str:
    """Return the message of a refusal, after which there is no state: nothing was trained."""
    config: DetectionConfig = CONFIGS[task]
    with pytest.raises(error) as caught:
        run_here(config, data, backbone, folder / "out", **changes)
    assert not list((folder / "out/state").glob("**/manifest.json"))
    return str(caught.value)


@pytest.mark.parametrize(
    ("file", "change", "told"),
    [
        ("instances_train2017", without_area, "has a box of 0×.* pixels, without area"),
        ("instances_train2017", two_points, "has a polygon of 2 points instead of 3"),
        ("instances_train2017", unknown_category, "names category 6, which"),
        ("instances_train2017", only_crowds, "none of 60 training images shows an instance"),
        ("instances_train2017", empty, "has no images: an empty split"),
        (
            "instances_val2017",
            other_classes,
            "val2017: has other classes than .*only: nine",
        ),
        ("instances_val2017", two_points, "has a polygon of 2 points instead of 3"),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_bad_annotations_are_refused(
    file: str, change: Change, told: str, data: Path, backbone: Path, tmp_path: Path
) -> None:
    path = data / "annotations" / f"{file}.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    message = refused("coco", data, backbone, tmp_path, DataError)
    assert re.search(told, message), message


def test_category_ids_may_have_gaps(world: Path) -> None:
    document = json.loads((world / "coco/annotations/instances_train2017.json").read_text())
    ids = sorted(one["id"] for one in document["categories"])
    assert ids != list(range(ids[0], ids[0] + len(ids)))  # so every training here has them


def test_a_model_that_the_data_cannot_teach_is_refused(
    world: Path, backbone: Path, tmp_path: Path
) -> None:
    model = CONFIGS["voc"].miniature().model.derive(masks=True).model_dump(mode="json")
    message = refused("voc", world / "voc", backbone, tmp_path, ConfigError, model=model)
    assert "model.masks: voc has none to learn from" in message


@pytest.mark.parametrize(("field", "least"), [("neck_channels", 64), ("surface_channels", 32)])
@pytest.mark.parametrize("channels", [16, 100])
def test_channels_that_the_deeplab_head_cannot_group_are_refused(
    field: str, least: int, channels: int
) -> None:
    model = PRESETS["densepose_deeplab"].model
    with pytest.raises(ConfigError, match=rf"{field} is {channels};.*multiple of 32 from {least}"):
        model.derive(**{field: channels})


def test_a_backbone_with_other_channels_is_refused(
    world: Path, backbone: Path, tmp_path: Path
) -> None:
    spoiled = tmp_path / "backbone"
    shutil.copytree(backbone, spoiled)
    card = json.loads((spoiled / "backbone.json").read_text())
    (spoiled / "backbone.json").write_text(json.dumps({**card, "channel_order": "BGR"}))
    (spoiled / "manifest.json").unlink()
    stage = load_stage("detection.coco")
    job = Job(
        CONFIGS["coco"].miniature(),
        paths={"data": world / "coco", "backbone": spoiled},
        manifests={},
        identity={},
        outputs={name: tmp_path / name for name in stage.outputs},
        state=str(tmp_path / "state"),
    )
    with pytest.raises(DataError, match="RGB"):
        detect(job, "torchvision")
    assert not (tmp_path / "state").exists()


def test_a_library_that_is_not_installed_is_refused_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("detectron2", "densepose"):
        monkeypatch.setitem(sys.modules, package, None)  # as if it were not there
    nowhere = tmp_path / "nowhere"
    for task, lacking in (("coco", "detectron2"), ("densepose", "densepose")):
        message = refused(task, nowhere, nowhere, tmp_path, ConfigError, library="detectron2")
        assert f"{lacking} is needed and not installed" in message
        assert "images/detectron2" in message
    assert resolve("auto", ModelConfig()) == "torchvision"
    newer = PRESETS["densepose_deeplab"]
    assert resolve("auto", newer.model) == "detectron2"
    assert set(newer.requires()) == {"detectron2", "densepose"}
    with pytest.raises(ConfigError, match="deeplab is a head of detectron2 alone"):
        newer.derive(library="torchvision")
    assert CONFIGS["densepose"].requires() == {}


def test_a_detector_of_a_library_that_is_not_installed_is_refused(
    backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "detectron2", None)
    with pytest.raises(ConfigError, match=r"needs detectron2.*`make detectron2`"):
        build_detector("detectron2", ModelConfig(), backbone, Head(1))


@pytest.mark.parametrize(
    ("gone", "told"),
    [
        ("UV_symmetry_transforms.mat", "trains without mirrored images"),
        ("Pdist_matrix.pkl", "boxes can be measured"),
    ],
)
def test_missing_geometry_is_named_before_training_with_what_works_without(
    gone: str, told: str, data: Path, backbone: Path, tmp_path: Path
) -> None:
    (data / "densepose" / gone).unlink()
    message = refused("densepose", data, backbone, tmp_path, DataError)
    assert gone in message
    assert "facebookresearch/DensePose" in message
    assert told in message
    assert "without_geometry" in message


def test_densepose_trains_without_its_geometry_when_it_is_told_to(
    data: Path, backbone: Path, tmp_path: Path
) -> None:
    shutil.rmtree(data / "densepose")
    changes = {"iterations": 2, "precise_bn": 0, "without_geometry": True}
    run = run_here(CONFIGS["densepose"], data, backbone, tmp_path / "run", **changes)
    assert "AP" in run.metrics.values
    assert not any(name.startswith("gps") for name in run.metrics.values)
    records = json.loads((tmp_path / "run/predictions/results.json").read_text())
    assert all("uv_data" in one for one in records)


@pytest.mark.parametrize("given", [{}, {"model": "m"}, {"model": "m", "predictions": "p"}])
def test_evaluation_wants_either_a_detector_or_predictions(
    given: dict[str, str], world: Path, tmp_path: Path
) -> None:
    paths = {name: tmp_path / path for name, path in given.items()}
    job = Job(
        config=EvaluateDetectionConfig(),
        paths={**paths, "data": world / "coco"},
        manifests={},
        identity={},
        outputs={"metrics": tmp_path},
        state="",
    )
    with pytest.raises(UsageError, match=r"either|belong together"):
        measure(job)


@pytest.mark.parametrize(
    ("task", "file", "content", "told"),
    [
        ("coco", "results.json", '[{"image_id": 1, "category_id": 1, "score": 0.5}]', "unknown"),
        ("coco", "results.json", "{", "is not JSON"),
        ("voc", "comp4_det_test_one.txt", "nobody 0.5 1 1 2 2\n", "'nobody' is unknown"),
        ("cityscapes", "a_pred.txt", "", "has 0 files"),
    ],
)
def test_predictions_that_do_not_fit_are_refused(
    task: str, file: str, content: str, told: str, world: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "predictions"
    folder.mkdir()
    (folder / file).write_text(content)
    stage = load_stage("detection.evaluate")
    data = Mount(str(world / DATA.get(task, task)))
    inputs = {"data": data, "predictions": Mount(str(folder))}
    config = stage.config(dataset=task)
    argv = stage.argv(config, inputs, {"metrics": str(tmp_path / "metrics")})
    if task == "voc":
        for name in ("zero", "two", "three", "four", "five", "six", "seven", "eight", "nine"):
            (folder / f"comp4_det_test_{name}.txt").touch()
    with pytest.raises(DataError, match=told):
        execute(stage, stage.parse(argv[2:]))
