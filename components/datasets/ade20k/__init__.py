"""ADE20K's scene parsing benchmark: 150 classes of things and stuff (Zhou et al. 2017)."""

from components.core.dataset import Dataset, Miniature

DATASETS = (
    Dataset(
        name="ade20k",
        summary="ADE20K, ADEChallengeData2016: images and annotations, training and validation",
        readers={"segmentation": "components.datasets.ade20k.reading:Ade20k"},
        miniature=Miniature(
            "components.datasets.ade20k.digits:write",
            "ADE20K's layout: eleven classes, and pixels of none",
        ),
    ),
)
