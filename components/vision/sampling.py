"""Which images each process sees at each step, as a function of seed, epoch and step alone."""

from functools import lru_cache
from typing import Protocol

import numpy as np
import numpy.typing as npt

from components.core.errors import ConfigError

Indices = npt.NDArray[np.int64]


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
