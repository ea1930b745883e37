"""A data set of one's own, and its recipe: on Python's path, and no other file knows of them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PORTS = {"input": ("data", "backbone"), "output": ("model", "metrics", "predictions")}
DECLARATION = """\
from components.core.dataset import Dataset, Miniature

DATASETS = (
    Dataset(
        name="stains",
        summary="stained glass: glass/SPLIT/*.jpg beside stains/SPLIT/*.png",
        readers={"segmentation": "components.datasets.stains.reading:Stains"},
        miniature=Miniature("components.datasets.stains.reading:write", "stains on glass"),
    ),
)
"""
READING = """\
import numpy as np
from PIL import Image

from components.datasets.interface import SegmentationReader
from components.datasets.semantic import SemanticSet
from components.rendering.sets import render_pictures, write_jpeg
from components.rendering.source import real_digits


class Stains(SegmentationReader):
    def scan(self, root, split, findings):
        names = sorted(path.stem for path in (root / "glass" / split).glob("*.jpg"))
        if not names:
            findings.fault(f"glass/{split}", "has no pictures")
            return None
        return SemanticSet(
            root=root,
            files=[f"glass/{split}/{name}.jpg" for name in names],
            label_files=[f"stains/{split}/{name}.png" for name in names],
            classes=("glass", "stain"),
        )


def write(config, folder):
    for split, count in (("train", 12), ("val", 6)):
        for place in ("glass", "stains"):
            (folder / place / split).mkdir(parents=True)
        pictures = render_pictures(config, f"stains/{split}", real_digits(split), count)
        for number, picture in enumerate(pictures):
            write_jpeg(config, picture, folder / f"glass/{split}/{split}{number}.jpg")
            labels = np.zeros(picture.pixels.shape[:2], np.uint8)
            for thing in picture.things:
                labels[thing.mask] = 1
            Image.fromarray(labels).save(folder / f"stains/{split}/{split}{number}.png")
"""
RECIPE = """\
from components.report import Column, Metric, Table
from components.segmentation import STAGE, SegmentationConfig
from pipelines.recipes._shared import INITIALISATIONS, one_table, training

TABLE = Table(
    key="stains",
    title="Stains on glass",
    section="stains",
    source="none",
    rows=INITIALISATIONS,
    columns=(Column(key="glass", name="val"),),
    metrics=(Metric(key="mIoU", name="mIoU"),),
    command="moco run stains",
)
RECIPE = one_table(
    "stains",
    "Stains on glass",
    training(TABLE, STAGE, data="stains", config=lambda _: SegmentationConfig(dataset="stains")),
)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A folder for Python's path, with a data set in it."""
    folder = tmp_path / "path/components/datasets/stains"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(DECLARATION)
    (folder / "reading.py").write_text(READING)
    recipes = tmp_path / "path/pipelines/recipes"
    recipes.mkdir(parents=True)
    (recipes / "stains.py").write_text(RECIPE)
    return tmp_path / "path"


def run(path: Path, folder: Path, *argv: str) -> "subprocess.CompletedProcess[str]":
    """Run a command where the data set can be found."""
    places = os.pathsep.join([str(path), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": places, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *argv],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def moco(path: Path, folder: Path, *argv: str) -> "subprocess.CompletedProcess[str]":
    return run(path, folder, "-m", "pipelines", *argv)


@pytest.mark.slow
def test_it_is_found_written_checked_trained_on_and_reported(path: Path, tmp_path: Path) -> None:
    listed = moco(path, tmp_path, "data", "list", "--json")
    found = {one["name"]: one for one in json.loads(listed.stdout)}
    assert found["stains"]["kinds"] == ["segmentation"]
    assert {"ade20k", "coco", "voc_segmentation"} < found.keys()

    done = moco(
        path,
        tmp_path,
        *("run", "stains", "--scale", "digits", "--rows", "random"),
        *("--set", "segmentation.iterations=4", "--set", "segmentation.evaluations=1"),
        *("--set", "digits.train_scenes=10", "--set", "digits.val_scenes=10"),
        *("--set", "digits.pictures.train=20", "--set", "digits.pictures.val=20"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (run_folder,) = (tmp_path / "runs").glob("stains-*")
    metrics = run_folder / "stains_glass_random_0/metrics"
    details = json.loads((metrics / "metrics.json").read_text())["details"]
    assert (details["dataset"], details["training_images"], details["images"]) == ("stains", 12, 6)
    classes = json.loads((metrics / "per_class.json").read_text())
    assert [one["class"] for one in classes] == ["glass", "stain"]
    report = next(run_folder.rglob("index.html"))
    assert "Stains on glass" in report.read_text()

    # The check and the training say the same of it, and of a fault.
    data = run_folder / "digits/stains"
    checked = moco(path, tmp_path, "data", "check", "stains", str(data), "--decode")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "train images: 12" in checked.stdout
    spoiled = next((data / "stains/val").iterdir())
    spoiled.unlink()
    checked = moco(path, tmp_path, "data", "check", "stains", str(data))
    assert checked.returncode != 0
    assert f"fault: stains/val/{spoiled.name}: does not exist" in checked.stdout


def test_a_name_that_is_taken_is_refused(path: Path, tmp_path: Path) -> None:
    declaration = path / "components/datasets/stains/__init__.py"
    declaration.write_text(DECLARATION.replace('"stains"', '"coco"'))

    done = moco(path, tmp_path, "data", "list")

    assert done.returncode != 0
    assert "two data sets are called 'coco'" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_it_its_name_is_refused_with_those_there_are(tmp_path: Path) -> None:
    config = json.dumps({"dataset": "stains"})
    ports = [f"--{kind}.{name}" for kind, names in PORTS.items() for name in names]
    words = [word for port in ports for word in (port, str(tmp_path))]
    done = run(ROOT, tmp_path, "-m", "components.segmentation", "--config", config, *words)
    assert done.returncode != 0
    assert "no data set for segmentation is called 'stains'" in done.stderr
    assert "ade20k, cityscapes, masks, voc_segmentation" in done.stderr
    assert "Traceback" not in done.stderr
