"""Images of one's own with a class for every pixel: pictures, and masks of the same names."""

from components.core.dataset import Dataset, Miniature

DATASETS = (
    Dataset(
        name="masks",
        summary="Images beside masks: images/train/*, masks/train/*.png, both of val, classes.txt",
        readers={"segmentation": "components.datasets.masks.reading:Masks"},
        miniature=Miniature(
            "components.datasets.masks.digits:write",
            "images beside masks: a ground and ten digits, and pixels of none",
        ),
    ),
)
