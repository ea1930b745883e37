"""Which images each process sees at each step, as a function of seed, epoch and step alone."""

from functools import lru_cache
from math import gcd
from typing import Protocol

import numpy as np
import numpy.typing as npt

from components.core.errors import ConfigError

Indices = npt.NDArray[np.int64]
Key = tuple[int, int]
"""Epoch and index of a sample."""


class Sampler(Protocol):
    """Which images are dealt to one process.

    Attributes:
        length: Images in the set.
        steps: Of an epoch.
    """

    length: int
    steps: int

    def indices(self, epoch: int, step: int) -> Indices:
        """Return this rank's images of a step."""
        ...


class EpochSampler:
    """Deals every epoch's images to steps and ranks.

    The batch of a step is the same whatever the number of ranks: together they hold
    what a single process would. Any step can be asked for at any time, so resuming
    needs no replay.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        *,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        drop_last: bool = True,
        shuffle: bool = True,
    ) -> None:
        """Plan epochs over `length` images.

        Args:
            length: Images in the set.
            batch_size: Images of a step over all ranks; a multiple of `world`.
            seed: Of the order.
            rank: This process.
            world: Processes.
            drop_last: Leave out what does not fill a batch, as in training. Otherwise the
                last batch is short, its shares differ by one image, and may be empty.
            shuffle: A new order every epoch; otherwise the order of the set.

        Raises:
            ConfigError: if the ranks cannot share a batch evenly, or there is no full batch.
        """
        if batch_size % world:
            raise ConfigError(f"batch_size {batch_size} is not a multiple of the {world} processes")
        if length < (batch_size if drop_last else 1):
            raise ConfigError(f"{length} images do not fill one batch of {batch_size}")
        self.length = length
        self.batch_size = batch_size
        self.rank = rank
        self.world = world
        self.steps = length // batch_size if drop_last else -(-length // batch_size)
        self._order = lru_cache(maxsize=1)(_Order(length, seed, shuffle=shuffle))

    def indices(self, epoch: int, step: int) -> Indices:
        """Return this rank's share of the batch of a step, `batch_size / world` images."""
        if not 0 <= step < self.steps:
            raise IndexError(f"step {step} of an epoch of {self.steps}")
        batch = self._order(epoch)[step * self.batch_size : (step + 1) * self.batch_size]
        return np.array_split(batch, self.world)[self.rank]


class RunSampler(EpochSampler):
    """Deals images of shards for training so that neighbours, which are read at once, go together.

    The set is cut into runs of neighbours, at other places in every epoch, and the runs come in an
    order drawn anew. That row of images is parted evenly among the places of a batch, so that each
    step takes the next image of as many runs as a batch has images. The order is known without a
    list of images: of a billion it would have 8 GB.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        *,
        run: int,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """Plan epochs over `length` images, as `EpochSampler` does.

        Args:
            length: Images in the set.
            batch_size: Images of a step over all ranks; a multiple of `world`.
            run: Images of a run at most. A place of a batch sees four runs in an epoch at least,
                so that those of a small set are shorter.
            seed: Of the order.
            rank: This process.
            world: Processes.

        Raises:
            ConfigError: as `EpochSampler`.
        """
        super().__init__(length, batch_size, seed=seed, rank=rank, world=world)
        self.run = max(1, min(run, self.steps // 4))
        # Then the places of a batch do not all begin a run at the same step.
        while gcd(self.run, self.steps) > 1:
            self.run -= 1
        self._seed = seed
        self._drawn = lru_cache(maxsize=1)(self._draw)

    def indices(self, epoch: int, step: int) -> Indices:
        """Return this rank's share of the batch of a step, `batch_size / world` images."""
        if not 0 <= step < self.steps:
            raise IndexError(f"step {step} of an epoch of {self.steps}")
        share = self.batch_size // self.world
        places = np.arange(self.rank * share, (self.rank + 1) * share) * self.steps + step
        runs, first = self._drawn(epoch)
        images = runs[places // self.run] * self.run + places % self.run
        return (images + first) % self.length

    def _draw(self, epoch: int) -> tuple[Indices, int]:
        """Draw the order of the runs, and the image with which the first one begins."""
        generator = np.random.default_rng((self._seed, epoch))
        whole = self.length // self.run
        # The last run, which may be shorter, stays the last: it is of other images every time.
        return np.append(generator.permutation(whole), whole), int(generator.integers(self.length))


class AlikeSampler:
    """Deals a set once, for measuring, in batches of images that are all of one kind.

    Images of one size need no padding in a batch, which would change what is found in them.
    """

    def __init__(self, kinds: Indices, batch_size: int, *, rank: int = 0, world: int = 1) -> None:
        """Plan the batches.

        Args:
            kinds: Rows that are equal for images of one kind, (N, K).
            batch_size: Images of a process's batch, at most.
            rank: This process.
            world: Processes; in the last step some may have no image.
        """
        self.length = len(kinds)
        _, kind = np.unique(kinds, axis=0, return_inverse=True)
        order = np.argsort(kind.ravel(), kind="stable")
        alike = np.split(order, np.flatnonzero(np.diff(kind.ravel()[order])) + 1)
        batches = [
            group[first : first + batch_size]
            for group in alike
            for first in range(0, len(group), batch_size)
        ]
        batches.sort(key=lambda batch: int(batch[0]))  # as near to the set's order as can be
        self.steps = -(-len(batches) // world)
        self._own = batches[rank::world]

    def indices(self, epoch: int, step: int) -> Indices:
        """Return this rank's batch of a step, which may be empty in the last one."""
        return self._own[step] if step < len(self._own) else np.empty(0, np.int64)


class _Order:
    def __init__(self, length: int, seed: int, *, shuffle: bool) -> None:
        self.length = length
        self.seed = seed
        self.shuffle = shuffle

    def __call__(self, epoch: int) -> Indices:
        if not self.shuffle:
            return np.arange(self.length)
        return np.random.default_rng((self.seed, epoch)).permutation(self.length)
