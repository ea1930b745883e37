"""The image with detectron2, as it was built here; CI has no way to what it is built from."""

import json

import pytest

from images.build import IMAGES, Engine
from tests.images.pod import Run, built_image

# What a detection stage does of it: DensePose R-CNN, on the miniature's backbone.
PROBE = """\
import importlib.metadata, json, pathlib, tempfile
import densepose, detectron2, torch
from components.convert.conversion import write_backbone
from components.detection.interface import Head
from components.detection.libraries.building import build_detector
from components.detection.libraries import resolve
from components.detection.model import ModelConfig
from components.vision.backbones import random_backbone
folder = pathlib.Path(tempfile.mkdtemp())
write_backbone(random_backbone("resnet_digits", 0), "random", folder)
model = build_detector(resolve("auto"), ModelConfig(surface="legacy"), folder, Head(1)).eval()
sizes = torch.tensor([[64, 64]])
images = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
(found,) = model.predict({"images": images, "sizes": sizes, "originals": sizes})
print(json.dumps({"found": len(found), "library": type(model).__module__}))
"""


@pytest.fixture(scope="module")
def image(engine: Engine) -> str:
    names = ("detectron2", "torch")
    images = {name: engine.inspect(built_image(name)) for name in names}
    own, below = (images[name]["RootFS"]["Layers"] for name in names)
    if own[: len(below)] != below:
        pytest.skip("it stands on another torch image than is here: `make images` builds both")
    return built_image("detectron2")


def test_a_detector_of_the_papers_library_predicts_in_it(run: Run) -> None:
    done = run("python", "-W", "ignore", "-c", PROBE)

    assert done.returncode == 0, done.stderr
    known = json.loads(done.stdout.splitlines()[-1])
    assert known["library"] == "components.detection.libraries.detectron2.detector"
    assert 0 <= known["found"] <= 100


def test_it_says_which_code_it_has_as_the_torch_image_does(image: str, engine: Engine) -> None:
    labels = engine.inspect(image)["Config"]["Labels"]
    below = engine.inspect(built_image("torch"))["Config"]["Labels"]

    for name in ("version", "revision"):
        key = f"org.opencontainers.image.{name}"
        assert labels[key] == below[key]
    assert labels["org.opencontainers.image.title"] == "moco-transfer/detectron2"


def test_it_holds_what_runs_and_not_what_builds(run: Run) -> None:
    done = run(
        "sh", "-c", "id -u; for x in python moco gcc g++ git pip uv; do command -v $x; done; :"
    )

    assert done.stdout.split() == ["12345", "/opt/venv/bin/python", "/opt/moco/bin/moco"]


def test_its_bill_names_the_library(image: str) -> None:
    path = IMAGES / "detectron2.cdx.json"
    if not path.is_file():
        pytest.skip("the image was built elsewhere: its bill is not here")
    names = {component["name"] for component in json.loads(path.read_text())["components"]}

    assert {"detectron2", "detectron2-densepose", "fvcore", "torch"} <= names
