"""Steps of Mask R-CNN at 800 pixels in our loop, against unmodified detectron2 in its own."""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import torch

from components.convert.conversion import write_backbone
from components.detection.coco import CocoConfig, mask_rcnn_c4, mask_rcnn_fpn
from components.detection.data import DetectionBatch, training_loader
from components.detection.libraries import Library
from components.detection.libraries.building import build_detector
from components.detection.train import head_of
from components.vision.backbones import build_backbone
from tests.benchmarks import _detection_peers as stock
from tests.benchmarks._coco import HEIGHT, WIDTH, write_instances
from tests.benchmarks.gpu._measure import Rate, ours, peers, row, skipped
from tests.benchmarks.input_pipeline import IMAGES, write_photographs
from tests.datasets.readers import read_coco

SPLIT = "train2017"
C4 = mask_rcnn_c4()
MODELS = {
    "R50-FPN": mask_rcnn_fpn(),
    # Without the norm that the paper adds, which the peer does not have.
    "R50-C4": C4.derive(model=C4.model.derive(head_norm="none").model_dump(mode="json")),
}
COUNTS = (16, 8, 4, 2)  # images a step: as many as fit, the paper's 16 at most


def run() -> Iterator[dict[str, Any]]:
    """Measure; every ratio is our rate over detectron2's in fp32, of equally many images."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / SPLIT).mkdir()
        write_photographs(folder / SPLIT, (WIDTH, HEIGHT))
        (folder / "annotations").mkdir()
        names = sorted(path.name for path in (folder / SPLIT).iterdir())
        file = folder / "annotations" / f"instances_{SPLIT}.json"
        write_instances(file, names, 7 * IMAGES)
        (folder / "backbone").mkdir()
        write_backbone(build_backbone("resnet50"), "random", folder / "backbone")
        for model, config in MODELS.items():
            yield from _rows(model, config, folder)


def _rows(model: str, config: CocoConfig, folder: Path) -> Iterator[dict[str, Any]]:
    title = f"detection step, Mask R-CNN {model}"
    if find_spec("detectron2") is None:
        yield skipped(f"{title} / unmodified detectron2", "detectron2 is not installed here")
        reference = None
    else:
        reference, count = _that_fits(config, folder)
        config = config.derive(batch_size=count)
    for library in get_args(Library):
        if find_spec(library) is None:
            continue
        for precision, goal in (("fp32", 1.0), ("auto", 1.5)):
            own = _ours(config.derive(precision=precision), folder, library)
            word = "fp32" if precision == "fp32" else "AMP"
            name = f"{title}, {library}'s model, {word}, {config.batch_size} images"
            if reference is None:
                yield {
                    "name": name,
                    "ratio": "alone",
                    "goal": None,
                    "detail": f"{own.per_second:.1f} images/s; {own.peak / 1e9:.1f} GB",
                }
            else:
                yield row(f"{name} / unmodified detectron2 in fp32", own, reference, goal)


def _that_fits(config: CocoConfig, folder: Path) -> tuple[Rate, int]:
    for count in COUNTS:
        smaller = config.derive(batch_size=count)
        batch = _batch(smaller, folder)
        classes = head_of(smaller, read_coco(folder, SPLIT)).classes
        try:
            step = stock.detectron2_step(smaller, batch.columns, classes, device="cuda")
            return peers(step, count, warm_up=4), count
        except torch.OutOfMemoryError:
            continue
    raise MemoryError(f"not even {COUNTS[-1]} images fit")


def _ours(config: CocoConfig, folder: Path, library: Library) -> Rate:
    torch.manual_seed(0)
    settled = config.derive(lr=1e-5, library=library)
    head = head_of(config, read_coco(folder, SPLIT))
    detector = build_detector(library, config.model, folder / "backbone", head)
    columns = _batch(settled, folder).to(torch.device("cuda"))
    return ours(detector, settled, columns, uniform=False)


def _batch(config: CocoConfig, folder: Path) -> DetectionBatch:
    """Return a batch whose images are as large as they get, 800 pixels high."""
    steady = config.derive(shorter_sides=(800,), loader={"workers": 0})
    batch = next(training_loader(read_coco(folder, SPLIT), steady, folder).between(0, 1))
    return replace(batch, columns=dict(batch.columns))
