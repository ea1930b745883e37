"""From an image set to batches of views: the same ones whoever loads them, from any step on."""

import signal
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from components.core.errors import StoreError
from components.core.store.kept import KeptShards
from components.core.store.shards import stored_shards
from components.vision.batch import Batch, Colours, CorruptImage, encode_colours
from components.vision.colour import adjust_colours, blur
from components.vision.config import AugmentationConfig, EvaluationConfig, LoaderConfig
from components.vision.cropping import centre_crop, crop_and_resize
from components.vision.decoding import Pixels, decode_image, read_image
from components.vision.image_sets import ImageSet
from components.vision.quarantine import Quarantine
from components.vision.reading import Reader
from components.vision.sampling import EpochSampler, Key, RunSampler, Sampler
from components.vision.streaming import Fetched, Stream
from components.vision.views import View, draw_view, view_generator

RUN = 4 << 20  # bytes of the images of a shard that go together


class Checked(Protocol):
    """A batch that tells which images could not be read for it."""

    @property
    def corrupt(self) -> tuple[CorruptImage, ...]:
        """Images that could not be read while this batch was made."""
        ...


B = TypeVar("B", bound=Checked)


class ViewDataset(Dataset[Batch]):
    """Views of an image set; an unreadable image is replaced in training, else left out."""

    def __init__(
        self,
        images: ImageSet,
        augmentation: AugmentationConfig | EvaluationConfig,
        *,
        views: int = 1,
        seed: int = 0,
        cache: int = 0,
    ) -> None:
        """Prepare to make views.

        Args:
            images: The image set.
            augmentation: How a view is made.
            views: Views of each image; evaluation has one.
            seed: Of the views.
            cache: Bytes of decoded images to keep.
        """
        self.images = images
        self.augmentation = augmentation
        self.views = views
        self.seed = seed
        self._reader = Reader(
            images,
            self._read,
            seed=seed,
            replace=isinstance(augmentation, AugmentationConfig),
            cache=cache,
        )
        self._fetched: Mapping[int, bytes] = {}

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: Key) -> Batch:
        return self.__getitems__([key])

    def __getitems__(self, keys: Sequence[Key]) -> Batch:
        """Make the batch of these samples; torch's loader calls it with a whole batch."""
        self._fetched = keys.content if isinstance(keys, Fetched) else {}
        indices: list[int] = []
        corrupt: list[CorruptImage] = []
        # Each view goes to its place at once: memory that was just used is the fast one.
        size = self.augmentation.crop
        pixels = torch.empty(self.views, len(keys), size, size, 3, dtype=torch.uint8)
        drawn: list[list[View]] = [[] for _ in range(self.views)]
        for epoch, wanted in keys:
            sample = self._reader.find(epoch, wanted, corrupt)
            if sample is None:
                continue
            index, image = sample
            for number in range(self.views):
                if isinstance(self.augmentation, EvaluationConfig):
                    view = centre_crop(image, self.augmentation.resize, self.augmentation.crop)
                else:
                    height, width = image.shape[:2]
                    generator = view_generator(self.seed, epoch, wanted, number)
                    parameters = draw_view(self.augmentation, height, width, generator)
                    view = self._make(image, parameters)
                    drawn[number].append(parameters)
                pixels[number, len(indices)].numpy()[:] = view
            indices.append(index)
        return Batch(
            views=tuple(pixels[:, : len(indices)].permute(0, 1, 4, 2, 3).unbind()),
            colours=self._colours(drawn),
            labels=torch.tensor([self.images.label(index) for index in indices], dtype=torch.int64),
            indices=torch.tensor(indices, dtype=torch.int64),
            corrupt=tuple(corrupt),
        )

    def _read(self, index: int) -> Pixels:
        data = self._fetched.get(index)
        return read_image(self.images.path(index)) if data is None else decode_image(data)

    def _make(self, image: Pixels, view: View) -> Pixels:
        assert isinstance(self.augmentation, AugmentationConfig)
        pixels = crop_and_resize(image, view.crop, self.augmentation.crop, flip=view.flip)
        if self.augmentation.colour == "loader":
            pixels = adjust_colours(pixels, view.colours)
            if view.blur:
                pixels = blur(pixels, view.blur)
        return pixels

    def _colours(self, drawn: list[list[View]]) -> tuple[Colours, ...]:
        config = self.augmentation
        if isinstance(config, EvaluationConfig) or config.colour == "loader":
            return ()
        if not (
            config.jitter_probability or config.grayscale_probability or config.blur_probability
        ):
            return ()
        return tuple(encode_colours(views) for views in drawn)


class BatchLoader(Generic[B]):
    """Batches of a data set, epoch by epoch."""

    def __init__(
        self,
        dataset: Dataset[B],
        sampler: Sampler,
        config: LoaderConfig,
        *,
        pin_memory: bool = False,
        stream: Stream | None = None,
    ) -> None:
        """Start no process yet; the first epoch does, and later ones keep them.

        Args:
            dataset: What makes the batch of the samples, keys, that it is asked for.
            sampler: Which images each step takes.
            config: Processes, memory, tolerance.
            pin_memory: Put batches into page-locked memory, for copies to a GPU.
            stream: Gives the batches with their images, where these are in a bucket.
        """
        # One image is too little for threads. And the setting has to be made here: a forked
        # worker that made it would wait for threads that it did not inherit.
        cv2.setNumThreads(1)
        self.sampler = sampler
        self.quarantine = Quarantine(sampler.length, config.max_corrupt_fraction)
        self._batches = _BatchSampler(sampler, stream)
        self._loader = DataLoader(
            dataset,
            batch_sampler=self._batches,
            num_workers=config.workers,
            collate_fn=_as_it_is,
            pin_memory=pin_memory,
            prefetch_factor=config.prefetch if config.workers else None,
            persistent_workers=config.workers > 0,
            worker_init_fn=_become_worker,
            # Its own: starting to load would else draw from the random numbers of training, and
            # a training that continues, which starts once more, would draw others.
            generator=torch.Generator(),
        )

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return self.sampler.steps

    def epoch(self, epoch: int = 0, first_step: int = 0) -> Iterator[B]:
        """Yield the batches of one epoch, from a step of it on.

        Raises:
            DataError: when more images are unreadable than the config tolerates.
        """
        return self.between(epoch * self.steps + first_step, (epoch + 1) * self.steps)

    def between(self, first: int, end: int) -> Iterator[B]:
        """Yield the batches of steps `first` to `end` - 1, counted over all epochs.

        Loading goes on from one epoch to the next without a pause.

        Raises:
            DataError: when more images are unreadable than the config tolerates.
            StoreError: when images in a bucket cannot be had.
        """
        self._batches.begin(range(first, end))
        for number, batch in enumerate(self._loader):
            if number == self._batches.whole:
                raise self._batches.take_failure()
            self.quarantine.add(batch.corrupt)
            yield batch


Loader = BatchLoader[Batch]
"""Batches of views."""


def make_loader(
    images: ImageSet,
    augmentation: AugmentationConfig | EvaluationConfig,
    config: LoaderConfig,
    *,
    batch_size: int,
    views: int = 1,
    seed: int = 0,
    rank: int = 0,
    world: int = 1,
    pin_memory: bool = False,
) -> Loader:
    """Make the loader of a training or an evaluation.

    With an `AugmentationConfig` every epoch has its own order and full batches only;
    with an `EvaluationConfig` the order is the set's, and all images come once, so the
    last batches of ranks may differ in size: no collective call inside that loop.

    Args:
        images: The image set.
        augmentation: How a view is made.
        config: Processes, memory, tolerance.
        batch_size: Images of a step over all ranks.
        views: Views of each image.
        seed: Of order and views.
        rank: This process.
        world: Processes.
        pin_memory: Put batches into page-locked memory, for copies to a GPU.

    Raises:
        ConfigError: if the ranks cannot share a batch evenly, or there is no full batch.
    """
    dealt = {"seed": seed, "rank": rank, "world": world}
    training = isinstance(augmentation, AugmentationConfig)
    if training and images.shard_bytes:
        run = RUN // images.shard_bytes
        sampler: EpochSampler = RunSampler(len(images), batch_size, run=run, **dealt)
    else:
        sampler = EpochSampler(
            len(images), batch_size, drop_last=training, shuffle=training, **dealt
        )
    stream = None
    if images.shard_bytes and (stored := stored_shards(images.root)):
        parts = KeptShards(stored, config.disk_cache << 30) if config.disk_cache else stored
        stream = Stream(images, parts, config.read_ahead << 20)
    dataset = ViewDataset(images, augmentation, views=views, seed=seed, cache=config.cache << 20)
    return Loader(dataset, sampler, config, pin_memory=pin_memory, stream=stream)


class _BatchSampler:
    """The samples of the coming steps, as torch's loader wants to be told."""

    def __init__(self, sampler: Sampler, stream: Stream | None) -> None:
        self.sampler = sampler
        self.steps = range(sampler.steps)
        self.whole: int | None = None
        """Of the steps, those before the one whose images cannot be had, if there is one."""
        self._failure: StoreError | None = None
        self._stream = stream

    def begin(self, steps: range) -> None:
        self.steps, self.whole = steps, None

    def take_failure(self) -> StoreError:
        """Give the failure away: who holds it holds the loader, which would outlive its queues."""
        failure, self._failure = self._failure, None
        assert failure is not None
        return failure

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[Key]]:
        if self._stream is None:
            yield from self._keys()
            return
        whole = 0
        try:
            for keys in self._stream.fetch(self._keys()):
                yield keys
                whole += 1
        except StoreError as error:
            # Raised here, it would tear torch's loader down from within; so the batches before it
            # come first, and an empty one that says so: queues that were never used break, too.
            self.whole, self._failure = whole, error
            yield []

    def _keys(self) -> Iterator[list[Key]]:
        for step in self.steps:
            epoch, step_of_epoch = divmod(step, self.sampler.steps)
            indices = self.sampler.indices(epoch, step_of_epoch)
            yield [(epoch, index) for index in indices.tolist()]


def _as_it_is(batch: Any) -> Any:
    return batch


def _become_worker(_: int) -> None:
    # Whoever trains decides what a signal means; a worker ends with it, or by SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
