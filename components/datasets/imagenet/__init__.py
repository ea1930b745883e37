"""ImageNet: a folder for each class."""

from components.core.dataset import Dataset, Miniature

DATASETS = (
    Dataset(
        name="imagenet",
        summary="ImageNet, or any images in class folders: train/CLASS/*, val/CLASS/*",
        readers={"classification": "components.datasets.imagenet.reading:Imagenet"},
        miniature=Miniature(
            "components.datasets.imagenet.digits:write",
            "ImageNet's layout: ten balanced classes, train and val",
        ),
    ),
)
