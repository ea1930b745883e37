"""Parts of a split that are drawn: the images whose labels count, and those that are held out."""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from components.core.errors import DataError
from components.vision.config import ALL
from components.vision.image_sets import ImageSet, Names, NamesInFile

Indices = npt.NDArray[np.int64]


def share_of_images(
    owners: npt.NDArray[Any], labels: npt.NDArray[Any], percent: float, seed: int, where: str
) -> Indices:
    """Draw a share of the images that have labels; they come in the order of the set.

    The shares of one seed are nested, and every class is in each of them. Classes keep their
    proportions: an image with several is drawn as one of its rarest.

    Args:
        owners: The image of each label, (M,).
        labels: Classes, (M,).
        percent: How many of a hundred images.
        seed: Of the draw.
        where: Names the images, for an error.

    Raises:
        DataError: if so few images cannot have every class.
    """
    pairs = np.unique(np.stack([owners, labels], 1).astype(np.int64), axis=0)
    images = np.unique(pairs[:, 0])
    if percent == ALL:
        return images
    sizes = np.bincount(pairs[:, 1])
    drawn = np.empty(images[-1] + 1)
    drawn[images] = np.random.default_rng(seed).permutation(len(images))
    pairs = pairs[np.lexsort((drawn[pairs[:, 0]], pairs[:, 1]))]  # each class in the drawn order
    places = np.arange(len(pairs)) - np.searchsorted(pairs[:, 1], pairs[:, 1])
    parts = places / sizes[pairs[:, 1]]
    rarest = np.lexsort((sizes[pairs[:, 1]], pairs[:, 0]))
    rarest = rarest[np.unique(pairs[rarest, 0], return_index=True)[1]]  # a row for each image
    first = np.isin(images, pairs[places == 0, 0])
    wanted, needed = round(len(images) * percent / 100), np.count_nonzero(first)
    if wanted < needed:
        least = np.ceil(1000 * needed / len(images)) / 10
        raise DataError(
            f"{where}: {percent:g} % of {len(images):,} labelled images are {wanted}, and "
            f"{needed} are needed to show each of {np.count_nonzero(sizes)} classes; the least "
            f"share is {least:g} %"
        )
    order = np.lexsort((drawn[images], parts[rarest], ~first))
    return np.sort(images[order[:wanted]])


def labelled(images: ImageSet, percent: float, seed: int) -> ImageSet:
    """Return the part of a set whose labels are learned from, as `share_of_images` draws it."""
    if percent == ALL:
        return images
    owners = np.arange(len(images))
    drawn = share_of_images(owners, images.labels, percent, seed, str(images.root))
    return only(images, drawn)


def only(images: ImageSet, indices: Indices) -> ImageSet:
    """Return a part of a set."""
    ids: Any = images.ids
    if isinstance(ids, Names | NamesInFile):
        ids = Names(ids[index] for index in indices.tolist())
    elif len(ids):
        ids = np.asarray(ids)[indices]
    files = Names(images.files[index] for index in indices.tolist())
    return replace(images, files=files, labels=images.labels[indices], ids=ids)


def hold_out(labels: npt.NDArray[Any], percent: float, seed: int = 0) -> npt.NDArray[np.bool_]:
    """Say which images are held out of training, (N,): a share of each class, one at least.

    A class of a single image keeps it.

    Args:
        labels: Classes, (N,).
        percent: How many of a hundred.
        seed: Of the draw.
    """
    drawn = np.random.default_rng(seed).permutation(len(labels))
    held = np.zeros(len(labels), np.bool_)
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        own = own[np.argsort(drawn[own])]
        held[own[: min(max(1, round(len(own) * percent / 100)), len(own) - 1)]] = True
    return held
