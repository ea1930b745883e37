"""The common form of images with their classes, for millions of them."""

import os
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


class _Texts(Sequence[str], ABC):
    """Texts that are made when they are asked for."""

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self._text(index % len(self))

    @abstractmethod
    def _text(self, index: int) -> str:
        """Make a text, counted from 0."""


class Names(_Texts):
    """Millions of texts in one block of bytes.

    A list of Python strings would take four times the memory, and again in every
    loading process, because counting references touches the pages.
    """

    def __init__(self, names: Iterable[str]) -> None:
        encoded = [os.fsencode(name) for name in names]
        self._ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)
        self._bytes = b"".join(encoded)

    def __len__(self) -> int:
        return len(self._ends)

    def _text(self, index: int) -> str:
        start = int(self._ends[index - 1]) if index else 0
        return os.fsdecode(self._bytes[start : int(self._ends[index])])


class NamesInFile(Sequence[str]):
    """Texts of a file, one a line, that is not read before one is asked for."""

    def __init__(self, path: Path, count: int) -> None:
        self._path = path
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        return self._names[index]

    @cached_property
    def _names(self) -> Names:
        text = self._path.read_text("utf-8", errors="surrogateescape")
        return Names(text.split("\n")[:-1])


class ShardFiles(_Texts):
    """Names of images in shards, `SHARD.tar@OFFSET+SIZE`, made when they are asked for."""

    def __init__(
        self, shards: Sequence[str], ends: npt.NDArray[np.int64], places: npt.NDArray[np.void]
    ) -> None:
        """Take the index as it is.

        Args:
            shards: The file names.
            ends: How many of the images are in a shard and those before it, (shards,).
            places: Fields `offset` and `size` of each image, (N,), in the order of the shards.
        """
        self._shards = [*shards]
        self._ends = ends.tolist()
        self._offsets = np.asarray(places["offset"])
        self._sizes = np.asarray(places["size"])

    def __len__(self) -> int:
        return len(self._sizes)

    def _text(self, index: int) -> str:
        shard = self._shards[bisect_right(self._ends, index)]
        return f"{shard}@{self._offsets[index]}+{self._sizes[index]}"


@dataclass(frozen=True)
class ImageSet:
    """Images with their classes; nothing is opened until it is needed.

    Attributes:
        root: The folder that file names are relative to.
        files: File names.
        labels: Class indices, (N,), int32; -1 without classes.
        classes: Class names; empty without classes.
        ids: What a data set calls its images, numbers or names; empty where the file name is that.
        shard_bytes: Of images in shards, how many bytes one takes there on average; else 0.
    """

    root: Path
    files: Sequence[str]
    labels: npt.NDArray[np.int32]
    classes: tuple[str, ...] = ()
    ids: Sequence[Any] = ()
    shard_bytes: int = 0

    def __len__(self) -> int:
        return len(self.files)

    def path(self, index: int) -> str:
        """Return the path of an image."""
        return f"{self.root}/{self.files[index]}"

    def label(self, index: int) -> int:
        """Return the class index of an image, -1 without classes."""
        return int(self.labels[index])

    def image_id(self, index: int) -> str:
        """Return what the data set calls an image."""
        return str(self.ids[index]) if len(self.ids) else self.files[index]
