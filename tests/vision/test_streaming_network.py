"""Shards in a real bucket, over a network that is spoilt, and a training that reads from there."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from components.core.errors import ExitCode, StoreError
from components.core.manifest import verify
from components.core.store import HashMismatch, open_store
from components.core.store.shards import fetch_index
from components.datasets import packing
from components.datasets.imagenet import digits as imagenet
from components.datasets.packing import pack
from components.datasets.shards import find_images
from components.pretrain import PretrainConfig
from components.rendering.config import DigitsConfig
from components.vision.config import LoaderConfig
from pipelines.__main__ import main
from tests.datasets.test_shards import foreign
from tests.programs import Program, run
from tests.servers.minio import MinioServer
from tests.servers.toxiproxy import Link, Toxiproxy
from tests.vision.test_loading import assert_equal
from tests.vision.test_streaming import loader

pytestmark = pytest.mark.slow

BUDGET = 12  # seconds that a request is tried again
MARGIN = 90  # seconds for a machine that is busy with other tests
STEPS = 40  # so many that most images are still in the bucket after the first one
CONFIG = LoaderConfig(workers=0, max_corrupt_fraction=0.1)


@pytest.fixture
def link(minio_server: MinioServer, toxiproxy: Toxiproxy) -> Iterator[Link]:
    with toxiproxy.link(minio_server.address) as link:
        yield link


@pytest.fixture
def packed(imagenet_folder: Path, tmp_path: Path) -> Path:
    pack("imagenet", imagenet_folder, tmp_path / "packed", shard=13)
    return tmp_path / "packed"


@pytest.fixture
def index(
    packed: Path, bucket_url: str, link: Link, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Path:
    """The index of shards in a bucket that are read over the link."""
    open_store(bucket_url).put_folder(packed, "imagenet")
    monkeypatch.setenv("MOCO_S3_ENDPOINT", f"http://{link.address}")
    monkeypatch.setenv("MOCO_S3_RETRY_SECONDS", str(BUDGET))
    assert fetch_index(open_store(bucket_url), "imagenet", tmp_path / "index")
    return tmp_path / "index"


Toxic = tuple[str, str, dict[str, int]]
TOXICS: list[list[Toxic]] = [
    [("latency", "downstream", {"latency": 50, "jitter": 50})],
    [("bandwidth", "downstream", {"rate": 100})],
    [("slicer", "downstream", {"average_size": 500, "size_variation": 400, "delay": 100})],
    [("limit_data", "downstream", {"bytes": 30_000})],  # every connection breaks there
]


@pytest.mark.parametrize("toxics", TOXICS, ids=lambda toxics: "+".join(t[0] for t in toxics))
def test_batches_are_those_of_the_folder_over_any_network(
    packed: Path, index: Path, link: Link, toxics: list[Toxic]
) -> None:
    expected = [*loader(packed, CONFIG).epoch()]
    with ExitStack() as stack:
        for kind, direction, attributes in toxics:
            stack.enter_context(link.spoilt(kind, direction, **attributes))
        assert_equal([*loader(index, CONFIG).epoch()], expected)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_store_that_comes_back_is_waited_for(
    packed: Path, index: Path, link: Link, workers: int
) -> None:
    config = CONFIG.derive(workers=workers, prefetch=1)
    coming = loader(index, config).between(0, STEPS)
    batches = [next(coming)]
    with link.down():
        waiting = threading.Thread(target=lambda: batches.extend(coming))
        waiting.start()
        time.sleep(4)
        assert waiting.is_alive()
    waiting.join(BUDGET + MARGIN)
    assert_equal(batches, [*loader(packed, config).between(0, STEPS)])


@pytest.mark.parametrize("workers", [0, 2])
def test_one_that_stays_away_ends_it_in_time(
    index: Path, link: Link, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOCO_S3_RETRY_SECONDS", "3")
    coming = loader(index, CONFIG.derive(workers=workers, prefetch=1)).between(0, STEPS)
    next(coming)
    with link.down():
        start = time.monotonic()
        with pytest.raises(StoreError, match=r"read train/train-\d+\.tar.* is right and up"):
            list(coming)
        assert time.monotonic() - start < 3 + MARGIN


def test_a_shard_that_is_replaced_ends_it(packed: Path, index: Path, bucket_url: str) -> None:
    shard = packed / "train/train-000003.tar"
    content = bytearray(shard.read_bytes())
    content[600] ^= 1
    open_store(bucket_url).write("imagenet/train/train-000003.tar", bytes(content))
    with pytest.raises(HashMismatch, match=r"train-000003\.tar was replaced while it was in use"):
        list(loader(index, CONFIG).epoch())


def pretraining(source: list[str], folder: Path) -> list[str]:
    config = PretrainConfig().miniature()
    config = config.derive(epochs=6, batch_size=16, negatives=64, sub_batch=4, processes=1)
    config = config.derive(knn={"neighbours": 5}, log_every=2, checkpoint_seconds=1)
    return [
        *("-m", "components.pretrain", "--config", config.to_json(), *source),
        *("--output.encoder", str(folder / "encoder"), "--output.metrics", str(folder / "metrics")),
    ]


def test_a_training_goes_on_at_the_very_picture_and_gives_the_folders_bits(
    bucket_url: str, tmp_path: Path
) -> None:
    """It is stopped halfway through shards in a bucket, and goes on there."""
    data, packed = tmp_path / "data", tmp_path / "packed"
    imagenet.write(DigitsConfig(train_scenes=96, val_scenes=30, pixels=48), data)
    pack("imagenet", data, packed, shard=50)
    open_store(bucket_url).put_folder(packed, "a/imagenet")

    command = pretraining(["--mount.data", str(packed)], tmp_path / "mounted")
    assert run(command).returncode == 0

    command = pretraining(["--input.data", f"{bucket_url}/a/imagenet"], tmp_path / "streamed")
    program = Program(command)
    assert program.stderr is not None
    lines = []
    for line in program.stderr:
        lines.append(line)
        if '"step": 12, ' in line:
            program.send_signal(signal.SIGTERM)
    assert program.wait() == ExitCode.INTERRUPTED, "".join(lines)
    again = run(command)
    assert again.returncode == 0, again.stderr
    assert "continuing from a checkpoint" in again.stderr

    mounted, streamed = (verify(tmp_path / name / "encoder") for name in ("mounted", "streamed"))
    assert mounted.files == streamed.files
    assert [*streamed.inputs] == ["data"]
    assert streamed.inputs["data"].name == "imagenet"


def test_foreign_shards_are_indexed_and_checked_where_they_are(
    bucket_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign(tmp_path / "theirs")
    store, place = open_store(bucket_url), f"{bucket_url}/theirs"
    store.put_folder(tmp_path / "theirs", "theirs")
    assert main(["data", "check", "imagenet", place]) == ExitCode.BAD_DATA
    assert "`moco data index` makes the index" in capsys.readouterr().err
    assert main(["data", "index", place]) == 0
    assert "12 images of train, 8 images of val" in capsys.readouterr().out
    assert main(["data", "check", "imagenet", place]) == 0
    assert "train images: 12" in capsys.readouterr().out
    assert main(["data", "index", f"{bucket_url}/nowhere"]) == ExitCode.BAD_DATA
    assert "has no train/*.tar and no val/*.tar" in capsys.readouterr().err

    shard = bytearray(store.read("theirs/val/part1.tar"))
    shard[530] ^= 1
    store.write("theirs/val/part1.tar", bytes(shard))
    store.delete("theirs/train/part0.tar")
    assert main(["data", "check", "imagenet", place, "--decode"]) == ExitCode.BAD_DATA
    told = capsys.readouterr().out
    assert "train/part0.tar: is missing" in told
    assert "val/part1.tar: its bytes are others than the index says" in told


def test_images_are_packed_into_a_bucket_and_an_interrupted_packing_goes_on(
    imagenet_folder: Path,
    bucket_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store, place = open_store(bucket_url), f"{bucket_url}/sets/imagenet"
    command = ["data", "pack", "imagenet", str(imagenet_folder), place, "--images", "13"]
    find = find_images

    def interrupted(path: Path, names: list[str]) -> object:
        if "000003" in path.name:
            raise KeyboardInterrupt
        return find(path, names)

    with monkeypatch.context() as context:
        context.setattr(packing, "find_images", interrupted)
        with pytest.raises(SystemExit):
            main([*command, "--jobs", "1"])
    before = {entry.key: entry for entry in store.list("sets/imagenet/train")}
    names = {key.rpartition("/")[2] for key in before}
    assert names >= {".packing.json", *(f"train-{number:06}.tar" for number in range(3))}
    assert not names & {"train-000003.tar", "index.json", "places.bin"}
    assert main([*command[:-1], "14"]) == ExitCode.USAGE
    assert f"{place}/train holds other shards" in capsys.readouterr().err
    assert main(command) == 0
    assert "60 images of train, 30 images of val" in capsys.readouterr().out
    assert main(["data", "check", "imagenet", place, "--decode"]) == 0

    stored = {entry.key: entry for entry in store.list("sets/imagenet")}
    pack("imagenet", imagenet_folder, tmp_path / "here", shard=13)
    here = tmp_path / "here"
    files = {path.relative_to(here).as_posix() for path in here.rglob("*.*")}
    assert {key.removeprefix("sets/imagenet/") for key in stored} == files
    for file in files:
        assert store.read(f"sets/imagenet/{file}") == (here / file).read_bytes()
