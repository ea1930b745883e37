"""Any images, without classes, for pre-training."""

from components.core.dataset import Dataset

DATASETS = (
    Dataset(
        name="images",
        summary="any folder tree of images, or a text file with one path a line",
        readers={"images": "components.datasets.images.reading:Images"},
    ),
)
