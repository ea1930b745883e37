"""Reads samples one by one: keeps some in memory, and gets round those that cannot be read."""

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from components.core.errors import DataError
from components.vision.batch import CorruptImage
from components.vision.views import view_generator


class Sample(Protocol):
    """What is read: an array, or several."""

    @property
    def nbytes(self) -> int:
        """Bytes that it takes in memory."""
        ...


S = TypeVar("S", bound=Sample)

_REPLACEMENT = 1 << 16  # a view's number that no view has: the generator of replacements
_ATTEMPTS = 100


class Files(Protocol):
    """Samples that lie in files."""

    def __len__(self) -> int:
        """Return the number of samples."""
        ...

    def path(self, index: int) -> str:
        """Return the path of a sample's image."""
        ...


class Reader(Generic[S]):
    """Reads the samples of a set.

    In training, an unreadable one is replaced by another one drawn from its own epoch
    and index, so everything else stays as it was. In evaluation it is left out.
    """

    def __init__(
        self,
        files: Files,
        read: Callable[[int], S],
        *,
        seed: int,
        replace: bool,
        cache: int,
    ) -> None:
        """Prepare to read.

        Args:
            files: The set.
            read: Reads a sample, or raises DataError.
            seed: Of the replacements.
            replace: Whether an unreadable sample is replaced.
            cache: Bytes of samples to keep.
        """
        self.files = files
        self.seed = seed
        self.replace = replace
        self._read = read
        self._cache: dict[int, S] = {}
        self._cache_left = cache

    def find(self, epoch: int, wanted: int, corrupt: list[CorruptImage]) -> tuple[int, S] | None:
        """Read a sample, or its replacement; return its index too.

        Args:
            epoch: Which replacements are drawn depends on it.
            wanted: Index of the sample.
            corrupt: Takes what could not be read.
        """
        index = wanted
        replacements = None
        for _ in range(_ATTEMPTS):
            try:
                return index, self._get(index)
            except DataError as error:
                corrupt.append(CorruptImage(index, self.files.path(index), str(error)))
            if not self.replace:
                return None
            replacements = replacements or view_generator(self.seed, epoch, wanted, _REPLACEMENT)
            index = int(replacements.integers(len(self.files)))
        return None

    def _get(self, index: int) -> S:
        if index in self._cache:
            return self._cache[index]
        sample = self._read(index)
        if sample.nbytes <= self._cache_left:
            self._cache[index] = sample
            self._cache_left -= sample.nbytes
        return sample
