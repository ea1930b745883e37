"""Start of a detection training: annotations of train2017's size until the set is ready.

Each reader runs in a process of its own, so that its peak of memory is its own. Then it forks a
process, as a loader does, which reads the annotations of every image once in random order:
what that process no longer shares with its parent is what each worker of a loader takes.
"""

import contextlib
import importlib.util
import json
import multiprocessing
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.benchmarks._coco import write_instances
from tests.benchmarks._timing import skipped
from tests.datasets.readers import read_coco

IMAGES, OBJECTS = 118_287, 860_001
SPLIT = "train2017"
ROUNDS = 2

Read = Callable[[int], object]
"""Reads the annotations of an image."""
Prepared = tuple[Read, int]
"""How a prepared set is read, and its number of images."""


def run() -> list[dict[str, Any]]:
    """Measure time, peak and a worker's memory; ratios are the peer's over ours."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "annotations").mkdir()
        names = [f"{number:012d}.jpg" for number in range(1, IMAGES + 1)]
        write_instances(_file(folder), names, OBJECTS)
        present = [peer for peer in PEERS if importlib.util.find_spec(peer)]
        found: dict[str, list[dict[str, float]]] = {one: [] for one in ("ours", *present)}
        # In turns, so that whatever else the machine does falls on all of them.
        for _ in range(ROUNDS):
            for reader, measured in found.items():
                measured.append(_measure(reader, folder))
    results = []
    for peer in PEERS:
        if peer not in present:
            results.append(skipped(f"COCO reader / {peer}", f"{peer} is not installed here"))
            continue
        for key, what, unit, goal in MEASURED:
            theirs, ours = (
                statistics.median(one[key] for one in found[reader]) for reader in (peer, "ours")
            )
            results.append(
                {
                    "name": f"COCO reader, train2017's size, {what} / {peer}",
                    "ratio": round(theirs / ours, 2),
                    "goal": goal,
                    "detail": f"{peer} {theirs:,.1f} {unit}, ours {ours:,.1f} {unit}",
                }
            )
    return results


def _ours(folder: Path) -> Prepared:
    from components.detection.coco import mask_rcnn_fpn
    from components.detection.data import training_loader

    images = read_coco(folder, SPLIT)
    training_loader(images, mask_rcnn_fpn(), folder)
    return images.__getitem__, len(images)


def _detectron2(folder: Path) -> Prepared:
    from detectron2.data import DatasetFromList, get_detection_dataset_dicts
    from detectron2.data.datasets import register_coco_instances

    register_coco_instances(f"coco_{SPLIT}", {}, str(_file(folder)), str(folder / SPLIT))
    dataset = DatasetFromList(get_detection_dataset_dicts(f"coco_{SPLIT}"), copy=False)
    return dataset.__getitem__, len(dataset)


def _torchvision(folder: Path) -> Prepared:
    from torchvision.datasets import CocoDetection

    with contextlib.redirect_stdout(sys.stderr):
        dataset = CocoDetection(folder / SPLIT, str(_file(folder)))
    return lambda index: dataset._load_target(dataset.ids[index]), len(dataset)


READERS = {"ours": _ours, "detectron2": _detectron2, "torchvision": _torchvision}
IMPORTS = {
    "ours": (
        "components.detection.data",
        "components.datasets.loading",
        "components.datasets.coco.instances",
    ),
    "detectron2": ("detectron2.data", "pycocotools.coco"),
    "torchvision": ("torchvision.datasets", "pycocotools.coco"),
}
"""What a training has imported anyway, before the clock starts."""
PEERS = ("detectron2", "torchvision")
MEASURED = (
    ("seconds", "time until it is ready", "s of CPU", 1.0),
    ("peak", "peak of memory", "MB", 1.0),
    ("worker", "memory of a worker's own", "MB", None),
)


def _measure(reader: str, folder: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.benchmarks.readers", reader, str(folder)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    measured: dict[str, float] = json.loads(output)
    return measured


def _measure_here(reader: str, folder: Path) -> dict[str, float]:
    for module in IMPORTS[reader]:
        importlib.import_module(module)
    started = time.process_time()
    read, images = READERS[reader](folder)
    seconds = time.process_time() - started
    return {
        "seconds": seconds,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
        "worker": _worker(read, images),
    }


def _worker(read: Read, images: int) -> float:
    """Return the private memory of a forked process after a pass over the images, MB."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def work() -> None:
        for index in random.Random(0).sample(range(images), images):
            read(index)
        sender.send(_memory("Private_Clean") + _memory("Private_Dirty"))

    process = context.Process(target=work)
    process.start()
    private: float = receiver.recv()
    process.join()
    return private


def _memory(kind: str) -> float:
    """Return memory of this process, MB."""
    rows = Path("/proc/self/smaps_rollup").read_text("ascii").splitlines()
    return next(float(row.split()[1]) for row in rows if row.startswith(f"{kind}:")) * 1024 / 1e6


def _file(folder: Path) -> Path:
    return folder / "annotations" / f"instances_{SPLIT}.json"


if __name__ == "__main__":
    print(json.dumps(_measure_here(sys.argv[1], Path(sys.argv[2]))))
    sys.stdout.flush()
    os._exit(0)  # freeing millions of objects is nobody's start-up
