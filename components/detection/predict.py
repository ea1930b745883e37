"""Looks for instances in images, shared out among the processes."""

import time
from dataclasses import dataclass

import torch

from components.core.log import get_logger
from components.datasets.results import RecordsByImage, Results
from components.detection.data import DetectionBatch
from components.detection.interface import Detector
from components.training import distributed
from components.vision.loading import BatchLoader
from components.vision.prediction import Prediction

log = get_logger(__name__)

PICTURED = 4
"""Images whose predictions are shown."""


@dataclass(frozen=True)
class Predicted:
    """What was found in all images.

    Attributes:
        records: Records by image; an image that could not be read has none.
        pictured: What was found in the first images of this rank that show an instance.
    """

    records: RecordsByImage
    pictured: dict[int, Prediction]


@torch.no_grad()
def predict(detector: Detector, loader: BatchLoader[DetectionBatch], results: Results) -> Predicted:
    """Look for instances in all images. Collective: each rank does its share.

    Args:
        detector: On the training device.
        loader: This rank's share of the images, each once.
        results: Turns what is found into records.

    Returns:
        The records of all ranks, on every rank.
    """
    distributed.share_buffers(detector)
    detector.eval()
    device = distributed.device()
    own: dict[int, list[object]] = {}
    pictured: dict[int, Prediction] = {}
    told = time.monotonic()
    for raw in loader.epoch(0):
        if not len(raw):
            continue  # a rank's last share
        predictions = detector.predict(raw.to(device))
        for index, prediction in zip(raw.indices.tolist(), predictions, strict=True):
            own[index] = results.records(index, prediction)
            if len(pictured) < PICTURED and _shows(results, index):
                pictured[index] = prediction
        if distributed.rank() == 0 and time.monotonic() - told >= 1:
            told = time.monotonic()
            done = min(len(own) * distributed.world(), len(results.images))
            log.info("progress", done=done, total=len(results.images), unit="images")
    records: dict[int, list[object]] = {}
    for share in distributed.gather_objects(own):
        records |= share
    return Predicted(records, pictured)


def _shows(results: Results, index: int) -> bool:
    first, end = results.images.starts[index : index + 2].tolist()
    return bool(end > first)
