"""Images for one process of a training: its share of a loader, and what no process could read."""

from typing import Any

import torch

from components.training import distributed
from components.vision.config import AugmentationConfig, EvaluationConfig, LoaderConfig
from components.vision.image_sets import ImageSet
from components.vision.loading import BatchLoader, Loader, make_loader


def rank_loader(
    images: ImageSet,
    views: AugmentationConfig | EvaluationConfig,
    loader: LoaderConfig,
    *,
    batch_size: int,
    count: int = 1,
    seed: int = 0,
) -> Loader:
    """Make this rank's loader; `make_loader` says what an epoch of it is.

    Args:
        images: The whole set.
        views: How an image is shown.
        loader: Processes, memory, tolerance.
        batch_size: Images of a step over all ranks.
        count: Views of each image.
        seed: Of order and views.
    """
    return make_loader(
        images,
        views,
        loader,
        batch_size=batch_size,
        views=count,
        seed=seed,
        rank=distributed.rank(),
        world=distributed.world(),
        pin_memory=torch.cuda.is_available(),
    )


def corrupt_images(loader: BatchLoader[Any]) -> list[dict[str, str]]:
    """List the images that any rank could not read, in the order of the set. Collective."""
    shares = distributed.gather_objects(loader.quarantine.listed())
    by_index = {image.index: image for share in shares for image in share}
    return [{"file": image.file, "reason": image.reason} for _, image in sorted(by_index.items())]
