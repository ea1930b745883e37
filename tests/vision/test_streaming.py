"""Images of shards in a bucket: the batches of the folder, from any step, within bounds."""

import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from components.core.errors import ExitCode, StoreError
from components.core.store import HashMismatch, KeyNotFound, open_store
from components.core.store.kept import KeptShards
from components.core.store.shards import fetch_index, stored_shards
from components.datasets.packing import pack
from components.vision.config import EvaluationConfig, LoaderConfig, moco_v2
from components.vision.image_sets import ImageSet
from components.vision.loading import Loader, make_loader
from components.vision.sampling import Indices, Key, RunSampler
from components.vision.shares import only
from components.vision.streaming import Fetched, Stream
from tests.datasets.readers import read_image_set
from tests.vision.test_loading import assert_equal

IN_PROCESS = LoaderConfig(workers=0, max_corrupt_fraction=0.1)


@pytest.fixture
def packed(imagenet_folder: Path, tmp_path: Path) -> Path:
    pack("imagenet", imagenet_folder, tmp_path / "store/imagenet", shard=13)
    return tmp_path / "store/imagenet"


@pytest.fixture
def index(packed: Path, tmp_path: Path) -> Path:
    """What is fetched of the shards when they are in a store."""
    assert fetch_index(open_store(tmp_path / "store"), "imagenet", tmp_path / "index")
    return tmp_path / "index"


def loader(
    root: Path, config: LoaderConfig = IN_PROCESS, *, world: int = 1, rank: int = 0
) -> Loader:
    images = read_image_set("imagenet", root, "train")
    return make_loader(
        images, moco_v2(32), config, batch_size=8, views=2, seed=3, rank=rank, world=world
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_those_of_the_folder_from_any_step(
    packed: Path, index: Path, workers: int
) -> None:
    config = IN_PROCESS.derive(workers=workers)
    here, there = loader(packed, config), loader(index, config)
    assert not [*(index / "train").glob("*.tar")]
    everything = list(here.between(0, 14))
    assert_equal(list(there.between(0, 14)), everything)
    assert_equal(list(there.between(9, 14)), everything[9:])
    assert len({int(i) for batch in everything[:7] for i in batch.indices}) == 56


def test_what_is_measured_comes_in_the_order_of_the_set(packed: Path, index: Path) -> None:
    batches = []
    for root in (packed, index):
        images = read_image_set("imagenet", root, "val")
        assert images.image_id(3).endswith(".JPEG")
        shown = EvaluationConfig(resize=40, crop=32)
        batches.append([*make_loader(images, shown, IN_PROCESS, batch_size=7).epoch()])
    assert_equal(*batches)
    assert torch.cat([batch.indices for batch in batches[1]]).tolist() == [*range(30)]


def test_parts_of_a_set_are_read_as_well(packed: Path, index: Path) -> None:
    few = np.array([1, 2, 30, 31, 45, 59])
    here, there = (
        make_loader(
            only(read_image_set("imagenet", root, "train"), few),
            moco_v2(32),
            IN_PROCESS,
            batch_size=2,
        )
        for root in (packed, index)
    )
    assert_equal([*here.epoch()], [*there.epoch()])


def test_an_image_that_cannot_be_read_is_replaced_by_the_same_one(
    packed: Path, tmp_path: Path
) -> None:
    images = read_image_set("imagenet", packed, "train")
    shard, _, part = images.path(17).partition("@")
    content = bytearray(Path(shard).read_bytes())
    offset, size = map(int, part.split("+"))
    content[offset : offset + size] = bytes(size)
    Path(shard).write_bytes(content)
    assert fetch_index(open_store(tmp_path / "store"), "imagenet", tmp_path / "index")
    here, there = loader(packed), loader(tmp_path / "index")
    assert_equal([*there.epoch()], [*here.epoch()])
    assert [image.index for image in there.quarantine.listed()] == [17]


@given(
    length=st.integers(1, 400),
    share=st.integers(1, 12),
    world=st.integers(1, 4),
    run=st.integers(1, 50),
    epoch=st.integers(0, 3),
)
def test_an_epoch_of_runs_deals_all_images_once_to_any_number_of_ranks(
    length: int, share: int, world: int, run: int, epoch: int
) -> None:
    batch = share * world
    if length < batch:
        return
    alone = RunSampler(length, batch, run=run, seed=1)
    ranks = [RunSampler(length, batch, run=run, seed=1, rank=r, world=world) for r in range(world)]
    dealt = []
    for step in range(alone.steps):
        whole = alone.indices(epoch, step)
        assert whole.tolist() == np.concatenate([r.indices(epoch, step) for r in ranks]).tolist()
        dealt += whole.tolist()
    assert len({*dealt}) == len(dealt) == length // batch * batch
    assert {*dealt} <= {*range(length)}


def test_runs_are_shuffled_as_well_as_single_images_within_a_batch() -> None:
    """Shards sorted by class, the worst that is met: a batch still has the classes of a draw."""
    images, classes, batch = 64_000, 100, 256
    sampler = RunSampler(images, batch, run=38)
    labels = np.arange(images) * classes // images
    orders: dict[str, Sequence[Indices]] = {
        "runs": [sampler.indices(0, step) for step in range(sampler.steps)],
        "draw": [*np.random.default_rng(0).permutation(images).reshape(-1, batch)],
    }
    distance, classes_met = {}, {}
    for name, batches in orders.items():
        distance[name] = np.mean([np.abs(np.diff(indices)).mean() for indices in batches])
        classes_met[name] = np.mean([len({*labels[indices]}) for indices in batches])
    assert distance["draw"] == pytest.approx(images / 3, rel=0.02)
    assert distance["runs"] == pytest.approx(images / 3, rel=0.02)
    assert classes_met["runs"] == pytest.approx(classes_met["draw"], rel=0.02)
    first, next_ = sampler.indices(0, 100), sampler.indices(0, 101)
    assert 0.9 < np.mean(next_ - first == 1) < 1  # what a batch and the next one have in common
    runs = [{*(sampler.indices(epoch, 0) // sampler.run)} for epoch in (0, 1)]
    assert len(runs[0] & runs[1]) < batch / 3  # another epoch puts others together


class Counting:
    """Parts of shards, all zeros; knows how much was asked for and is not let go yet."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int, int]] = []
        self._lock = threading.Lock()

    def read(self, name: str, offset: int, size: int) -> bytes:
        with self._lock:
            self.asked.append((name, offset, size))
        return bytes(size)

    @property
    def bytes(self) -> int:
        return sum(size for *_, size in self.asked)


def many(images: int, size: int) -> ImageSet:
    files = [f"{i // 100:03}.tar@{i % 100 * (size + 1024)}+{size}" for i in range(images)]
    return ImageSet(Path("/nowhere"), files, np.zeros(images, np.int32), shard_bytes=size + 1024)


def keys(sampler: RunSampler, first: int = 0) -> Iterator[list[Key]]:
    for step in range(first, sampler.steps):
        yield [(0, int(index)) for index in sampler.indices(0, step)]


@settings(max_examples=25, deadline=None)
@given(
    size=st.integers(5_000, 40_000), ahead=st.integers(500_000, 9_000_000), first=st.integers(0, 90)
)
def test_no_more_is_held_than_was_allowed(size: int, ahead: int, first: int) -> None:
    images, parts = many(3_000, size), Counting()
    sampler = RunSampler(3_000, 32, run=20)
    given, batch = 0, 32 * (size + 1024)
    for fetched in Stream(images, parts, ahead).fetch(keys(sampler, first)):
        assert isinstance(fetched, Fetched)
        assert [len(fetched.content[index]) for _, index in fetched] == [size] * 32
        # What lies between images is read along; nothing is read twice.
        assert parts.bytes - given <= max(ahead, 2 * batch) * 1.01 + batch
        given += batch
    covered = sum(len(range(o, o + s)) for _, o, s in parts.asked)
    assert covered <= (sampler.steps - first) * batch


def test_neighbours_are_one_request_and_the_first_batch_waits_for_itself_alone() -> None:
    images, parts = many(20_000, 10_000), Counting()
    sampler = RunSampler(20_000, 32, run=38)
    stream = Stream(images, parts, 64 << 20).fetch(keys(sampler))
    next(stream)
    assert len(parts.asked) <= 32 + 64  # its own, and those of the window after it
    for _ in stream:
        pass
    assert np.mean([size for *_, size in parts.asked]) > 200_000
    assert Counter(parts.asked).most_common(1)[0][1] == 1


def lose(path: Path) -> None:
    path.unlink()


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:2_000])


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize(("spoil", "kind"), [(lose, KeyNotFound), (shorten, HashMismatch)])
def test_a_shard_that_is_gone_or_short_ends_it_by_its_name(
    packed: Path, index: Path, spoil: object, kind: type[StoreError]
) -> None:
    assert callable(spoil)
    spoil(packed / "train/train-000002.tar")
    with pytest.raises(kind, match=r"train-000002\.tar") as caught:
        [*loader(index, IN_PROCESS.derive(workers=1)).epoch()]
    assert caught.value.exit_code == ExitCode.LOST_STORE


def test_an_index_that_does_not_fit_is_refused(packed: Path, tmp_path: Path) -> None:
    assert not fetch_index(open_store(tmp_path / "store"), "elsewhere", tmp_path / "nothing")
    assert stored_shards(tmp_path / "nothing") is None
    (packed / "train/places.bin").write_bytes(b"other")
    with pytest.raises(HashMismatch, match=r"places\.bin is not of this index\.json"):
        fetch_index(open_store(tmp_path / "store"), "imagenet", tmp_path / "index")


def test_what_was_read_is_kept_on_disk_up_to_a_limit(
    packed: Path, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    config = IN_PROCESS.derive(disk_cache=1)
    expected = [*loader(packed, config).between(0, 14)]
    assert_equal([*loader(index, config).between(0, 14)], expected)
    kept = [*(tmp_path / "scratch").rglob("*.tar.*")]
    assert len(kept) == 5
    kept[0].unlink()  # as a system that tidies up does; what it held is asked for again
    assert_equal([*loader(index, config).between(0, 14)], expected)
    shutil.rmtree(packed)  # all of it was read, and nothing is asked for again
    assert_equal([*loader(index, config).between(0, 14)], expected)


def test_a_full_disk_cache_reads_on(packed: Path, index: Path, tmp_path: Path) -> None:
    stored = stored_shards(index / "train")
    assert stored is not None
    kept = KeptShards(stored, 60_000, tmp_path / "kept")
    for name in ("train-000000.tar", "train-000001.tar", "train-000002.tar"):
        content = (packed / "train" / name).read_bytes()
        for offset, size in ((0, 100), (1_000, 20_000), (len(content) - 10, 10)):
            assert kept.read(name, offset, size) == content[offset : offset + size]
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["train-000000.tar."]
    (tmp_path / "file").touch()
    hindered = KeptShards(stored, 1 << 20, tmp_path / "file")
    assert hindered.read("train-000003.tar", 5, 50) == content_of(packed, "train-000003.tar", 5, 50)


def content_of(packed: Path, name: str, offset: int, size: int) -> bytes:
    return (packed / "train" / name).read_bytes()[offset : offset + size]
