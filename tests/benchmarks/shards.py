"""Images from shards: on a disk against files, in a bucket against a disk and a peer's loader."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from components.core.store import open_store
from components.core.store.shards import fetch_index
from components.datasets.loading import image_reader
from components.datasets.packing import pack
from components.vision.config import LoaderConfig, moco_v1
from components.vision.loading import Loader, ViewDataset, make_loader
from components.vision.streaming import Fetched
from tests.benchmarks._timing import compare, seconds, skipped
from tests.benchmarks.store import distant
from tests.servers.minio import MinioServer, running_minio

IMAGES, WIDTH, HEIGHT = 3000, 500, 375  # about as large as ImageNet's are
EPOCHS = 2
IN_PROCESS = LoaderConfig(workers=0)
READ_AHEAD = 64  # MiB, so that the images are several times as much
BATCH = 32  # of a process: the paper's on eight GPUs
SHARD = 250
ROUND_TRIP = 0.010  # seconds, as from a pod to an object store's first byte
MOST_SECONDS = 2.0  # to the first batch
_CORES = os.sched_getaffinity(0)


def run() -> list[dict[str, Any]]:
    """Measure batches of pre-training on one core; a server and a network have the others."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name, running_minio() as server:
        folder = Path(name)
        _write_images(folder / "files/train")
        pack("images", folder / "files", folder / "shards", shard=SHARD)
        os.environ.update(server.environment())
        bucket = server.make_bucket()
        open_store(f"s3://{bucket}").put_folder(folder / "shards", "images")
        _take_a_core()
        return [
            compare(
                "pairs of views from shards on a disk / from files",
                partial(_load, folder / "shards"),
                partial(_load, folder / "files"),
                goal=0.95,
            ),
            *_in_a_bucket(server, bucket, folder),
        ]


def _in_a_bucket(server: MinioServer, bucket: str, folder: Path) -> Iterator[dict[str, Any]]:
    index = folder / "index"
    fetch_index(open_store(f"s3://{bucket}"), "images", index)
    here = partial(_load, folder / "shards")
    yield compare(
        "pairs of views from MinIO / from a disk, loopback", partial(_load, index), here, goal=0.95
    )
    yield _against_webdataset(server, bucket, index)
    with distant(server, ROUND_TRIP) as far:
        _take_a_core()
        os.environ.update(far.environment())
        farther = folder / "farther"
        fetch_index(open_store(f"s3://{bucket}"), "images", farther)
        network = f"{ROUND_TRIP * 1e3:.0f} ms round trip"
        yield compare(
            f"pairs of views from MinIO / from a disk, {network}",
            partial(_load, farther),
            here,
            goal=0.95,
        )
        for share in (BATCH, 8 * BATCH):
            yield {
                "name": f"seconds to the first {share} pairs from MinIO, {network}",
                "ratio": round(seconds(partial(_first, farther, share)), 2),
                "goal": MOST_SECONDS,
                "lower_is_better": True,
                "detail": f"from a disk {seconds(partial(_first, folder / 'shards', share)):.2f} s",
            }
    os.environ.update(server.environment())
    peaks = [_peak(root) for root in (folder / "shards", index)]
    yield {
        "name": "memory of a process that reads from MinIO, over one that reads a disk, MiB",
        "ratio": peaks[1] - peaks[0],
        "goal": None,
        "detail": f"{peaks[1]} and {peaks[0]} MiB where read_ahead is {READ_AHEAD}",
    }


def _against_webdataset(server: MinioServer, bucket: str, index: Path) -> dict[str, Any]:
    name = "pairs of views from MinIO / WebDataset's loader, loopback"
    try:
        import webdataset
    except ModuleNotFoundError:
        return skipped(name, "needs webdataset")
    client = server.client()
    urls = [
        f"pipe:curl -s '{client.presigned_get_object(bucket, str(entry.object_name))}'"
        for entry in client.list_objects(bucket, "images/train/")
        if str(entry.object_name).endswith(".tar")
    ]

    def theirs() -> None:
        # Our own views of what it reads, so that only the reading differs.
        dataset = ViewDataset(image_reader("images").read(index, "train"), moco_v1(), views=2)
        shards = webdataset.WebDataset(urls, shardshuffle=len(urls), empty_check=False)
        batches = shards.shuffle(1000).to_tuple("jpg").batched(BATCH)
        read = 0
        for _ in range(EPOCHS):
            for (encoded,) in batches:
                content = dict(enumerate(encoded))
                dataset.__getitems__(Fetched([(0, number) for number in content], content))
                read += len(content)
        assert read == EPOCHS * IMAGES

    return compare(name, partial(_load, index), theirs, goal=1.0, turns=3)


def _loader(root: Path, batch: int, config: LoaderConfig) -> Loader:
    images = image_reader("images").read(root, "train")
    return make_loader(images, moco_v1(), config, batch_size=batch, views=2)


def _load(root: Path, config: LoaderConfig = IN_PROCESS) -> None:
    loader = _loader(root, BATCH, config)
    read = sum(len(batch.labels) for batch in loader.between(0, EPOCHS * loader.steps))
    assert read == EPOCHS * loader.steps * BATCH


def _first(root: Path, batch: int) -> None:
    next(_loader(root, batch, IN_PROCESS).epoch())


def _peak(root: Path) -> int:
    """Return the most memory that a process holds which reads epochs, MiB."""
    code = "import sys; from tests.benchmarks import shards; shards.tell_peak(sys.argv[1])"
    command = [sys.executable, "-c", code, str(root)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def tell_peak(root: str) -> None:
    """Print the most memory that this process holds while it reads epochs, MiB."""
    _first(Path(root), BATCH)
    Path("/proc/self/clear_refs").write_text("5", "ascii")  # what importing took does not count
    _load(Path(root), IN_PROCESS.derive(read_ahead=READ_AHEAD))
    status = Path("/proc/self/status").read_text("ascii")
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    print(int(peak.split()[1]) >> 10)


def _take_a_core() -> None:
    """Leave all cores but the last one to the processes that this one has started."""
    cores = sorted(os.sched_getaffinity(0) | _CORES)
    if len(cores) == 1:
        return
    for child in Path(f"/proc/self/task/{os.getpid()}/children").read_text("ascii").split():
        for thread in Path(f"/proc/{child}/task").iterdir():
            os.sched_setaffinity(int(thread.name), cores[:-1])
    os.sched_setaffinity(0, cores[-1:])


def _write_images(folder: Path) -> None:
    generator = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for number in range(IMAGES):
        small = generator.integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
        image = Image.fromarray(small).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
        image.save(folder / f"{number}.jpg", quality=90)
