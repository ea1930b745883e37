"""Which training images come when: a function of seed and epoch; resuming needs no replay."""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]


class ImageOrder:
    """The places of every epoch, each with an image; all epochs have equally many.

    Attributes:
        length: Places of an epoch.
    """

    def __init__(
        self,
        factors: npt.NDArray[np.float64],
        lying: npt.NDArray[np.bool_],
        *,
        seed: int,
        alike: int,
    ) -> None:
        """Plan epochs over N images.

        Args:
            factors: How often an epoch shows each image on average, at least 1, (N,). The
                fraction is rounded up or down at random, anew in each epoch.
            lying: Whether an image is wider than high, (N,).
            seed: Of the order.
            alike: So many neighbours are all lying or all not, but for the last few places:
                together they need less padding.
        """
        self.length = int(factors.sum() + 1e-6)
        self._factors = factors
        self._lying = lying
        self._seed = seed
        self._alike = alike
        self._cached = lru_cache(maxsize=2)(self._make)

    def __call__(self, epoch: int) -> Indices:
        """Return the image of each place of an epoch, (length,)."""
        return self._cached(epoch)

    def _make(self, epoch: int) -> Indices:
        generator = np.random.default_rng((self._seed, epoch))
        images = generator.permutation(len(self._factors))
        # Where a grid of whole numbers, shifted at random, falls into an image's stretch of
        # the sum: on average its factor, and never more than one beside it.
        ends = np.floor(np.cumsum(self._factors[images]) + generator.random() + 1e-6)
        shown = np.repeat(images, np.diff(ends, prepend=0).astype(np.int64))
        shown = generator.permutation(shown)[: self.length]
        groups, rest = [], []
        for lying in (False, True):
            own = shown[self._lying[shown] == lying]
            whole = len(own) - len(own) % self._alike
            groups.append(own[:whole].reshape(-1, self._alike))
            rest.append(own[whole:])
        mixed = generator.permutation(np.concatenate(groups), axis=0)
        return np.concatenate([mixed.ravel(), *rest])
