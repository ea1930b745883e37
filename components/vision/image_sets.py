"""The common form of images with their classes, for millions of them."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


class Names(Sequence[str]):
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

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        start = int(self._ends[index - 1]) if index else 0
        return os.fsdecode(self._bytes[start : int(self._ends[index])])


@dataclass(frozen=True)
class ImageSet:
    """Images with their classes; nothing is opened until it is needed.

    Attributes:
        root: The folder that file names are relative to.
        files: File names.
        labels: Class indices, (N,), int32; -1 without classes.
        classes: Class names; empty without classes.
        ids: What a data set calls its images, numbers or names; empty where the file name is that.
    """

    root: Path
    files: Sequence[str]
    labels: npt.NDArray[np.int32]
    classes: tuple[str, ...] = ()
    ids: Sequence[Any] = ()

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
