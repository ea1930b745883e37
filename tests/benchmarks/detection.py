"""A step of fine-tuning Mask R-CNN R50-FPN and the making of its batches, against both libraries.

A step is timed in the training loop itself: it lies between two batches that the loop asks for.
"""

import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any

import torch

from components.convert.conversion import write_backbone
from components.detection.coco import CocoConfig, mask_rcnn_fpn
from components.detection.data import DetectionBatch, training_loader
from components.detection.libraries import Library
from components.detection.libraries.building import build_detector
from components.detection.train import head_of
from components.training.learner import Learner
from components.training.loop import train
from components.vision.backbones import build_backbone
from tests.benchmarks import _detection_peers as peers
from tests.benchmarks._coco import HEIGHT, WIDTH, write_instances
from tests.benchmarks._timing import ratio, seconds, skipped
from tests.benchmarks.input_pipeline import IMAGES, write_photographs
from tests.datasets.readers import read_coco

SPLIT = "train2017"
OBJECTS = 7 * IMAGES
STEPS = 9  # that are timed
ROUNDS = 5  # of batches: every image once
SAMPLE = {"rois": 32, "rpn": mask_rcnn_fpn().model.rpn.derive(batch=64).model_dump(mode="json")}
"""Few regions and anchors to learn from: a CPU would need 9 s for a step."""
CONFIG = mask_rcnn_fpn().derive(
    batch_size=2,
    lr=1e-5,  # whatever the weights, the loss stays finite
    lr_batch=2,
    shorter_sides=(192,),
    longer_side=320,
    loader={"workers": 0},
)


def run() -> list[dict[str, Any]]:
    """Measure on one core; the ratio is the peer's time over ours, so more than 1 is faster."""
    torch.set_num_threads(1)  # the loader sets OpenCV's
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / SPLIT).mkdir()
        write_photographs(folder / SPLIT, (WIDTH, HEIGHT))
        (folder / "annotations").mkdir()
        names = sorted(path.name for path in (folder / SPLIT).iterdir())
        write_instances(folder / "annotations" / f"instances_{SPLIT}.json", names, OBJECTS)
        (folder / "backbone").mkdir()
        write_backbone(build_backbone("resnet50"), "random", folder / "backbone")
        results = [_compare_steps(folder, library) for library in STOCK]
        return results + [_compare_batches(folder, *peer) for peer in LOADERS]


STOCK: dict[Library, dict[str, Any]] = {
    # Its pyramid has no norm, and its RoIAlign a fixed number of points.
    "torchvision": {"neck_norm": False, "sampling": 2},
    "detectron2": {},
}
"""What the libraries' own models differ in from ours: ours is built so too."""

Loader = Callable[[CocoConfig, Path, str], Iterator[Any]]
LOADERS: tuple[tuple[Library, str, Loader], ...] = (
    ("torchvision", "", peers.torchvision_batches),
    ("detectron2", "", peers.detectron2_batches),
    (
        "detectron2",
        ", which leaves polygons to the loss",
        partial(peers.detectron2_batches, masks="polygon"),
    ),
)


def _compare_steps(folder: Path, library: Library) -> dict[str, Any]:
    name = f"detection step / {library}'s own model and loop"
    if not importlib.util.find_spec(library):
        return skipped(name, f"{library} is not installed here: make {library}")
    torch.manual_seed(0)
    model = CONFIG.model.model_dump(mode="json") | SAMPLE | STOCK[library]
    config = CONFIG.derive(model=model, iterations=STEPS + 2)
    images = read_coco(folder, SPLIT)
    batch = next(training_loader(images, config, folder).epoch(0))
    head = head_of(config, images)
    make = {"torchvision": peers.torchvision_step, "detectron2": peers.detectron2_step}[library]
    detector = build_detector(library, config.model, folder / "backbone", head)
    (folder / library).mkdir()
    turns = _Turns(batch, make(config, batch.columns, head.classes))
    train(
        Learner(
            module=detector,
            batches=turns,
            prepare=lambda raw, device, _: raw.to(device),
            norm_weight_decay=config.norm_weight_decay,
        ),
        config,
        total_steps=config.iterations,
        state=str(folder / library / "state"),
        identity={},
        output=folder / library,
    )
    return ratio(name, turns.pairs, goal=1.0)


class _Turns:
    """Batches, always the same one; a step of the peer's comes after each step of the loop's.

    Attributes:
        steps: Of an epoch.
        pairs: Seconds of CPU of both steps in turn, the first ones left out.
    """

    def __init__(self, batch: DetectionBatch, peer: peers.Step) -> None:
        self.steps = STEPS + 2
        self.pairs: list[tuple[float, float]] = []
        self._batch = batch
        self._peer = peer

    def between(self, first: int, end: int) -> Iterator[DetectionBatch]:
        """Yield the batch; the last time is for the end of the training, which is not timed."""
        for turn in range(STEPS + 1):
            started = time.process_time()
            yield self._batch
            ours = time.process_time() - started
            theirs = seconds(self._peer, time.process_time)
            if turn:
                self.pairs.append((ours, theirs))
        yield self._batch


def _compare_batches(folder: Path, library: Library, way: str, make: Loader) -> dict[str, Any]:
    """Compare images a second at the paper's sizes, two images a batch as on a GPU."""
    name = f"detection batches with masks as bits / {library}'s own loader{way}"
    if not importlib.util.find_spec(library):
        return skipped(name, f"{library} is not installed here: make {library}")
    config = mask_rcnn_fpn().derive(batch_size=2, loader={"workers": 0})
    ways = (_our_batches(config, folder), make(config, folder, SPLIT))
    pairs = [(_cpu_seconds(ways[0]), _cpu_seconds(ways[1])) for _ in range(ROUNDS + 1)][1:]
    ours, theirs = (IMAGES / statistics.median(one) for one in zip(*pairs, strict=True))
    row = ratio(name, pairs, goal=1.0)
    rates = f"{ours:.1f} against {theirs:.1f} images/s a core, {WIDTH}×{HEIGHT} JPEG"
    return {**row, "detail": f"{rates}; {row['detail'].partition('; ')[2]}"}


def _our_batches(config: CocoConfig, folder: Path) -> Iterator[DetectionBatch]:
    loader = training_loader(read_coco(folder, SPLIT), config, folder)
    for epoch in count():
        yield from loader.epoch(epoch)


def _cpu_seconds(batches: Iterator[Any]) -> float:
    """Return the seconds of CPU for all images once."""
    started = time.process_time()
    for _ in islice(batches, IMAGES // 2):
        pass
    return time.process_time() - started
